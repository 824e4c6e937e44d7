"""A crowd of runs that wait for their turn: others are answered meanwhile, and nobody waits beyond the caller's deadline."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from plugind.profiles import load_profiles, profiles_dir
from plugind_client import Client, Denied
from plugind_proto.v1 import runtime_pb2, runtime_pb2_grpc
from tests.support.daemon import Daemon
from tests.support.jail import descendants, living_instances
from tests.support.pace import stretched
from tests.support.plugins import folder

pytestmark = pytest.mark.root

INSTANCES = load_profiles(profiles_dir())[2].instances
CROWD = 300
OF_A_CHANNEL = 200  # gRPC lets 256 calls of one connection be open
LATE_S = 600  # nobody's deadline passes during a test, nor when its own 60 s are left for it
CODE = "import time\ndef run(payload, context):\n    time.sleep(payload)\n    return payload\n"


@pytest.fixture(scope="module")
def sleeping(daemon: Daemon, tmp_path_factory: pytest.TempPathFactory) -> Daemon:
    daemon.install(
        folder(tmp_path_factory.mktemp("plugins"), "sleeper", code=CODE, extra="[limits]\nwall_ms = 60000\n")
    )
    assert daemon.client().run("sleeper", 0).output == 0
    return daemon


@contextlib.contextmanager
def crowd(daemon: Daemon, count: int, deadline_s: float = LATE_S) -> Iterator[list[grpc.Future]]:
    """So many runs that sleep, from this process; canceled at the end, and gone."""
    with contextlib.ExitStack() as stack:
        calls: list[grpc.Future] = []
        for first in range(0, count, OF_A_CHANNEL):
            options = [("grpc.use_local_subchannel_pool", 1)]
            channel = stack.enter_context(grpc.insecure_channel(f"unix:{daemon.socket}", options=options))
            run = runtime_pb2_grpc.RuntimeStub(channel).Run
            request = runtime_pb2.RunRequest(plugin="sleeper", input_json=b"50")
            calls += [run.future(request, timeout=deadline_s) for _ in range(min(OF_A_CHANNEL, count - first))]
        client = daemon.client()
        reach(lambda: len(client.runs()) == count)
        yield calls
        for call in calls:
            call.cancel()
        reach(lambda: not client.runs())
    reach(lambda: not instances(daemon))


def reach(condition) -> None:
    deadline = time.monotonic() + stretched(20)
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def instances(daemon: Daemon) -> int:
    return len(living_instances(descendants(daemon.process.pid)))


def started(client: Client) -> int:
    return sum(run.state == "running" for run in client.runs())


def ends(client: Client, count: int) -> list[tuple[str, str]]:
    """Event and outcome, or the first reason, of what the audit has last; newest first."""
    found = client.audit.query(limit=count).records
    return [(each.event, each.fields.get("outcome") or each.fields["reasons"][0]["code"]) for each in found]


def test_while_a_crowd_waits_health_is_answered_and_busy_says_when_to_come_again(sleeping: Daemon) -> None:
    client = sleeping.client()
    with crowd(sleeping, INSTANCES + CROWD) as calls:
        reach(lambda: started(client) == INSTANCES)
        with grpc.insecure_channel(f"unix:{sleeping.socket}") as channel:
            health = health_pb2_grpc.HealthStub(channel)
            for _ in range(20):
                answer = health.Check(health_pb2.HealthCheckRequest(service="plugind.v1.Runtime"), timeout=LATE_S)
                assert answer.status == health_pb2.HealthCheckResponse.SERVING
        with pytest.raises(Denied) as caught:
            client.run("sleeper", 0)
        assert (caught.value.code, caught.value.retryable) == ("BUSY", True)
        assert caught.value.retry_after_ms > 0
        assert f"in {caught.value.retry_after_ms / 1000:g} s" in caught.value.reasons[0].remedy
        assert client.why().reasons == caught.value.reasons
        assert not any(call.done() for call in calls), "all of them run or wait"
        assert (started(client), len(client.runs())) == (INSTANCES, INSTANCES + CROWD)
    assert client.run("sleeper", 0).output == 0


def test_a_map_and_a_session_tell_the_hint_too(sleeping: Daemon) -> None:
    client = sleeping.client()
    with crowd(sleeping, INSTANCES):
        reach(lambda: started(client) == INSTANCES)
        with pytest.raises(Denied) as of_map:
            client.map("sleeper", [0])
        with pytest.raises(Denied) as of_session, client.session("sleeper") as session:
            session.call(0)
        for caught in (of_map, of_session):
            assert caught.value.code == "BUSY"
            assert caught.value.retry_after_ms > 0


def test_a_deadline_ends_what_runs_and_what_waits(sleeping: Daemon) -> None:
    client = sleeping.client()
    with crowd(sleeping, INSTANCES):
        reach(lambda: started(client) == INSTANCES)
        with crowd_of_one(sleeping, 0.5) as waits:
            assert waits.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        reach(lambda: len(client.runs()) == INSTANCES)
        assert ends(client, 1)[0] in {("DENIED", "BUSY"), ("OUTCOME", "canceled")}
        assert started(client) == INSTANCES
    with crowd_of_one(sleeping, 1.5) as runs:
        assert runs.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    reach(lambda: not client.runs())
    assert ends(client, 1) == [("OUTCOME", "canceled")]
    reach(lambda: not instances(sleeping))


@contextlib.contextmanager
def crowd_of_one(daemon: Daemon, deadline_s: float) -> Iterator[grpc.Future]:
    with grpc.insecure_channel(f"unix:{daemon.socket}") as channel:
        request = runtime_pb2.RunRequest(plugin="sleeper", input_json=b"50")
        yield runtime_pb2_grpc.RuntimeStub(channel).Run.future(request, timeout=deadline_s)


def test_a_run_waits_for_its_turn_longer_than_a_second_when_its_deadline_leaves_time(sleeping: Daemon) -> None:
    client = sleeping.client()
    with crowd(sleeping, INSTANCES) as calls:
        reach(lambda: started(client) == INSTANCES)
        with grpc.insecure_channel(f"unix:{sleeping.socket}") as channel:
            request = runtime_pb2.RunRequest(plugin="sleeper", input_json=b"0", timeout_ms=1000)
            waits = runtime_pb2_grpc.RuntimeStub(channel).Run.future(request, timeout=LATE_S)
            time.sleep(1.5)
            assert not waits.done()
            calls[0].cancel()
            assert waits.result().outcome == "ok"
