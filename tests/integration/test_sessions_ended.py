"""Sessions and maps that callers leave, break or overfill, and that the daemon ends: nothing of them is left."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from plugind.policyfile import shipped_policy
from plugind.profiles import load_profiles, profiles_dir
from plugind_client import Client, PlugindError
from plugind_proto.v1 import runtime_pb2, runtime_pb2_grpc
from tests.support.daemon import Daemon, profiles_with
from tests.support.jail import descendants, living_instances
from tests.support.pace import stretched
from tests.support.plugins import folder
from tests.support.streams import Request, Stream, nothing_left

pytestmark = [pytest.mark.root, pytest.mark.alone]  # streams that are held to 5 s

TIER2 = load_profiles(profiles_dir())[2]
CODE = """
import os, time
count = 0
def run(payload, context):
    global count
    count += 1
    if payload == "sleep":
        time.sleep(60)
    if payload == "outlive":
        os._exit = lambda status: time.sleep(60)
    if payload == "large":
        return "x" * 4_000_000
    return count if payload == "count" else payload
"""
CLIENT = """
import sys, threading, time
from plugind_client import Client
client = Client(sys.argv[1])
session = client.session("talker")
print(session.call("count"), flush=True)
if sys.argv[2] == "mid-input":
    threading.Thread(target=session.call, args=("sleep",), daemon=True).start()
if sys.argv[2] == "map":
    session.close()
    threading.Thread(target=client.map, args=("talker", ["sleep"]), daemon=True).start()
time.sleep(0.3)
print("ready", flush=True)
time.sleep(60)
"""


@pytest.fixture(scope="module")
def policy() -> Iterator[Path]:
    """Where the front, which is not root, can read it."""
    with tempfile.TemporaryDirectory(prefix="plugind-test-") as parent:
        Path(parent).chmod(0o755)
        made = Path(parent, "policy.toml")
        made.write_bytes(shipped_policy().read_bytes())
        made.with_name("config.toml").write_text(f'policy = "{made}"\nprofiles = "{profiles_with(Path(parent), 0)}"\n')
        yield made


@pytest.fixture(scope="module")
def daemon(policy: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    parent = tmp_path_factory.mktemp("plugins")
    with Daemon("--config", str(policy.with_name("config.toml"))) as running:
        for version in ("1.0.0", "2.0.0"):
            running.install(folder(parent, "talker", version, CODE, extra="[limits]\nwall_ms = 20000\n"))
        running.install(folder(parent, "other"))
        with Stream(running, "talker") as stream:  # whatever is made once is made
            assert stream.opened().version == "2.0.0"
        yield running
        assert running.client().audit.verify().holds


@pytest.fixture(scope="module")
def client(daemon: Daemon) -> Client:
    """One for all, so that its connection is there all the time."""
    return daemon.client()


@pytest.fixture(autouse=True)
def _nothing_left(daemon: Daemon, client: Client) -> Iterator[None]:
    with nothing_left(daemon, client):
        yield


def outcomes(client: Client, run_id: str) -> list[str]:
    """What the audit says of a run, oldest first: events, and the outcome."""
    deadline = time.monotonic() + stretched(10)
    while True:
        found = client.audit.query(limit=50).records
        told = [each.fields.get("outcome", each.event) for each in found if each.fields.get("run") == run_id]
        if told[:1] != ["INTENT"] or time.monotonic() > deadline:
            return told[::-1]
        time.sleep(0.02)


def running(daemon: Daemon, count: int) -> None:
    """Waits until so many instances run plugin code."""
    deadline = time.monotonic() + stretched(10)
    while len(living_instances(descendants(daemon.process.pid))) != count:
        assert time.monotonic() < deadline
        time.sleep(0.005)


# --- a caller that leaves --------------------------------------------------------------------------------------------


GIVEN = {
    "in the middle": (b'"sleep"',),
    "many in the middle": (b'"large"', b'"large"', b'"sleep"', b"1", b"2"),
    "closing": (b'"outlive"',),
}


@pytest.mark.parametrize("state", ["opening", "idle", *GIVEN])
@pytest.mark.parametrize("how", ["stream", "connection", "cancel"])
def test_leaving_in_every_state_ends_the_instance(daemon: Daemon, client: Client, state: str, how: str) -> None:
    run_id = f"left-{state.replace(' ', '-')}-{how}"
    with Stream(daemon, "talker", run_id=run_id) as stream:
        if state != "opening":
            stream.opened()
        for text in GIVEN.get(state, ()):
            stream.give(text)
        if state == "closing":
            stream.answer()
            stream.half_close()
        time.sleep(0.15 if state in GIVEN else 0)
        match how:
            case "stream":
                stream.call.cancel()
            case "connection":
                stream._channel.close()
            case "cancel":
                while not client.cancel(run_id):
                    assert state == "opening"
                with contextlib.suppress(grpc.RpcError):
                    for message in stream.call:
                        assert message.HasField("answer") or message.ended.run.outcome == "canceled" or message.opened
    assert outcomes(client, run_id) in (["INTENT", "canceled"], [])[: 1 + (state == "opening")]


@pytest.mark.parametrize("state", ["idle", "mid-input", "map"])
def test_a_client_that_is_killed_takes_its_instances_along(daemon: Daemon, client: Client, state: str) -> None:
    with subprocess.Popen([sys.executable, "-c", CLIENT, daemon.socket, state], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert [process.stdout.readline() for _ in range(2)] == [b"1\n", b"ready\n"]
        running(daemon, 1)
        (run,) = client.runs()
        process.send_signal(signal.SIGKILL)
    assert outcomes(client, run.run_id) == ["INTENT", "canceled"]


@pytest.mark.parametrize("how", ["stream", "connection"])
def test_a_map_that_is_left(daemon: Daemon, client: Client, how: str) -> None:
    channel = grpc.insecure_channel(f"unix:{daemon.socket}")
    request = runtime_pb2.MapRequest(run=runtime_pb2.RunRequest(plugin="talker", run_id=f"map-{how}"))
    request.items.extend(runtime_pb2.MapItem(input_json=text) for text in (b"1", b'"sleep"'))
    call = runtime_pb2_grpc.RuntimeStub(channel).Map.future(request)
    running(daemon, 1)
    call.cancel() if how == "stream" else channel.close()
    assert outcomes(client, f"map-{how}") == ["INTENT", "canceled"]
    channel.close()


def test_one_that_never_reads_ends_all_the_same(daemon: Daemon, client: Client) -> None:
    """The answers fill what grpc holds for it; then the session is idle, and its place is free again."""
    with Stream(daemon, "talker", idle_ms=500, run_id="unread") as stream:
        for _ in range(6):
            stream.give(b'"large"')
        assert outcomes_of_one_that_started(client) == ["INTENT", "ok"]
        assert living_instances(descendants(daemon.process.pid)) == []
        assert client.runs() == []
        with Stream(daemon, "talker", run_id="unread") as other:  # a name is free with its run
            other.opened()
            stream.call.cancel()
            time.sleep(0.2)
            other.give(b'"count"')
            assert other.answer().output_json == b"1", "who leaves late ends nobody else"
            other.half_close()
            assert other.ended().why == "closed"


def outcomes_of_one_that_started(client: Client) -> list[str]:
    deadline = time.monotonic() + stretched(10)
    while not (told := outcomes(client, "unread")):
        assert time.monotonic() < deadline
    return told


def test_calls_that_never_end_keep_nobody_out(daemon: Daemon, client: Client) -> None:
    """Not from the kill switch, above all. As many as a connection takes, on more than a dozen of them."""
    with contextlib.ExitStack() as stack:
        channels = [stack.enter_context(_connection(daemon)) for _ in range(13)]
        silent = [stack.enter_context(Stream(daemon, channel=channels[number % 2])) for number in range(160)]
        (reason,) = silent[-1].ended().run.reasons
        assert (reason.code, reason.rule) == ("BUSY", "api.sessions")
        for channel in channels[2:]:
            health = health_pb2_grpc.HealthStub(channel)
            watches = [health.Watch(health_pb2.HealthCheckRequest()) for _ in range(100)]
            assert next(watches[-1]).status == health_pb2.HealthCheckResponse.SERVING
            stack.callback(lambda watches=watches: [watch.cancel() for watch in watches])
        assert client.runs() == []
        assert client.execute("talker", 1).outcome == "ok"
        assert client.kill("other", "a test").unconfirmed_runs == 0
        client.lift_kill("other", "a test")
        assert silent[0].code() is grpc.StatusCode.INVALID_ARGUMENT, "after a while they are ended"
        with Stream(daemon, "talker", channel=channels[0]) as stream:
            stream.opened()


def _connection(daemon: Daemon) -> grpc.Channel:
    """One of its own: else all of a process share one."""
    return grpc.insecure_channel(f"unix:{daemon.socket}", options=[("grpc.use_local_subchannel_pool", 1)])


# --- one that breaks the order of messages ---------------------------------------------------------------------------


def test_half_closed_at_once_it_is_a_session_without_inputs(daemon: Daemon) -> None:
    with Stream(daemon, "talker") as stream:
        stream.half_close()
        stream.opened()
        ended = stream.ended()
    assert (ended.run.outcome, ended.why, ended.answered) == ("ok", "closed", 0)


def test_half_closed_in_the_middle_every_input_is_answered(daemon: Daemon) -> None:
    with Stream(daemon, "talker") as stream:
        for number in range(20):
            stream.give(b"%d" % number)
        stream.half_close()
        stream.opened()
        assert [stream.answer().output_json for _ in range(20)] == [b"%d" % number for number in range(20)]
        assert stream.ended().answered == 20


OPEN = Request(open=runtime_pb2.SessionOpen(run=runtime_pb2.RunRequest(plugin="talker")))


@pytest.mark.parametrize(
    ("first", "more"),
    [
        ([], []),
        ([Request(input_json=b"1")], []),
        ([Request()], []),
        ([Request(open=runtime_pb2.SessionOpen())], []),
        ([Request(open=runtime_pb2.SessionOpen(run=runtime_pb2.RunRequest(plugin="talker", input_json=b"1")))], []),
        (
            [Request(open=runtime_pb2.SessionOpen(run=runtime_pb2.RunRequest(plugin="talker", idempotency_key="k")))],
            [],
        ),
        ([OPEN], [OPEN]),
        ([OPEN], [Request()]),
        ([OPEN], [Request(input_json=b"")]),
        ([OPEN, Request(input_json=b"1")], [OPEN]),
    ],
)
def test_messages_out_of_order_end_it(
    daemon: Daemon, client: Client, first: list[Request], more: list[Request]
) -> None:
    with Stream(daemon) as stream:
        for message in [*first, *more]:
            stream.send(message)
        stream.half_close()
        assert stream.code() is grpc.StatusCode.INVALID_ARGUMENT
    if more:
        (intent,) = client.audit.query(events=("INTENT",), limit=1).records
        assert outcomes(client, intent.fields["run"]) == ["INTENT", "canceled"]


# --- one that sends or keeps too much --------------------------------------------------------------------------------


def test_too_large_an_input_is_refused_alone(daemon: Daemon) -> None:
    with Stream(daemon, "talker") as stream:
        stream.opened()
        for text in (b'"count"', b'"' + b"x" * TIER2.input_bytes + b'"', b"{", b"NaN", b'"count"'):
            stream.give(text)
        answers = [stream.answer() for _ in range(5)]
        stream.half_close()
        ended = stream.ended()
    assert [answers[0].output_json, answers[4].output_json] == [b"1", b"2"]
    codes = [[reason.code for reason in answer.error.refused.reasons] for answer in answers[1:4]]
    assert codes == [["INPUT_TOO_LARGE"], ["INPUT_INVALID"], ["INPUT_INVALID"]]
    assert (ended.run.outcome, ended.answered) == ("ok", 2)


def test_a_session_of_more_bytes_than_the_tier_keeps_is_full(daemon: Daemon) -> None:
    with Stream(daemon, "talker") as stream:
        stream.opened()
        given = 0
        while given < 100:
            given += 1
            stream.give(b'"large"')
            message = stream.hear()
            if message.HasField("ended"):
                break
        assert next(stream.call, None) is None
    assert (message.ended.run.outcome, message.ended.why) == ("ok", "full")
    assert TIER2.session_bytes // 4_000_000 <= message.ended.answered == given - 1
    assert given * 4_000_000 < TIER2.session_bytes + 2 * TIER2.ceilings.output_bytes


def test_one_more_than_there_are_places_is_told_so(daemon: Daemon, client: Client) -> None:
    with contextlib.ExitStack() as stack:
        streams = [stack.enter_context(Stream(daemon, "talker")) for _ in range(TIER2.instances)]
        for stream in streams:
            stream.opened()
        with Stream(daemon, "talker") as one_more:
            ended = one_more.ended()
        (reason,) = ended.run.reasons
        assert (ended.run.decision, reason.code, ended.why) == ("deny", "BUSY", "")
        assert "send it again later" in reason.remedy
        assert "instances in profiles/tier2.toml" in reason.remedy
        assert client.execute("talker", 1).reasons[0].code == "BUSY"
        streams[0].half_close()
        streams[0].ended()
        with Stream(daemon, "talker") as next_one:
            next_one.opened()


# --- what the daemon ends --------------------------------------------------------------------------------------------


def reload(daemon: Daemon, policy: Path) -> None:
    policy.write_text(policy.read_text() + "\n# changed\n")
    before = daemon.log.read_text()
    daemon.process.send_signal(signal.SIGHUP)
    deadline = time.monotonic() + stretched(10)
    while "is in force" not in daemon.log.read_text()[len(before) :]:
        assert time.monotonic() < deadline, daemon.log.read_text()
        time.sleep(0.01)


@pytest.mark.parametrize("change", ["another version", "suspended", "policy"])
def test_what_changes_the_decision_ends_it_with_the_next_input(
    daemon: Daemon, client: Client, policy: Path, change: str
) -> None:
    with Stream(daemon, "talker") as stream:
        stream.opened()
        stream.give(b'"count"')
        assert stream.answer().output_json == b"1"
        try:
            if change == "another version":
                client.rollback("talker", reason="a test")
            elif change == "suspended":
                client.suspend("talker", "a test")
            else:
                reload(daemon, policy)
            stream.give(b'"count"')
            ended = stream.ended()
        finally:
            if change == "another version":
                client.activate("talker", "2.0.0")
            elif change == "suspended":
                client.resume("talker", "a test")
    assert (ended.run.outcome, ended.why, ended.answered) == ("ok", "changed", 1)


def test_a_kill_of_twenty_sessions_and_a_map(daemon: Daemon, client: Client) -> None:
    """Some idle, some in the middle, one closing: all are gone when the kill returns."""
    with contextlib.ExitStack() as stack:
        streams = [stack.enter_context(Stream(daemon, "talker")) for _ in range(20)]
        for number, stream in enumerate(streams):
            stream.opened()
            stream.give(b'"outlive"')
            stream.answer()
            if number % 2:
                stream.give(b'"sleep"')
        streams[0].half_close()
        mapping = threading.Thread(target=_quietly, args=(client.map, "talker", ["sleep"]))
        mapping.start()
        running(daemon, 21)
        try:
            report = client.kill("talker", "a test")
            assert living_instances(descendants(daemon.process.pid)) == []
            assert (report.ended_runs, report.unconfirmed_runs) == (21, 0)
            ends = [stream.ended() for stream in streams]
        finally:
            client.lift_kill("talker", "a test")
        mapping.join()
    assert {(ended.run.outcome, ended.why) for ended in ends} == {("killed", "")}


def _quietly(function, *arguments) -> None:
    with contextlib.suppress(PlugindError):
        function(*arguments)


def test_the_end_of_the_daemon_ends_them_in_order(tmp_path: Path) -> None:
    with Daemon() as own, contextlib.ExitStack() as stack:
        own.install(folder(tmp_path, "talker", code=CODE))
        streams = [stack.enter_context(Stream(own, "talker", run_id=f"last-{number}")) for number in range(4)]
        for stream in streams:
            stream.opened()
        streams[1].give(b'"sleep"')
        streams[2].give(b'"outlive"')
        streams[2].answer()
        streams[2].half_close()
        below = descendants(own.process.pid)
        own.restart()
        assert [pid for pid in below if Path(f"/proc/{pid}").exists()] == []
        told = []
        for stream in streams:
            with contextlib.suppress(grpc.RpcError):
                told += [message.ended.run.outcome for message in stream.call if message.HasField("ended")]
        assert set(told) <= {"killed"}
        for number in range(4):
            assert outcomes(own.client(), f"last-{number}") == ["INTENT", "killed"]
