"""Idempotency keys of the real clients: sent as given, and sent again while no daemon can be reached, and only then."""

import threading
import time

import grpc
import pytest

from plugind_client import Canceled, Client, Conflict, InvalidRequest, Unavailable, running
from tests.support.fake_daemon import FakeDaemon, allowed
from tests.unit.test_client_calls import Awaited


@pytest.fixture(params=[Client, Awaited], ids=["sync", "async"])
def kind(request):
    return request.param


def calls(client, key):
    """Every way to run something with a key."""
    return [
        lambda: client.run("echo", 1, idempotency_key=key).output,
        lambda: client.execute("echo", 1, idempotency_key=key).output,
        lambda: client.map("echo", [1], idempotency_key=key).outputs[0],
    ]


def test_key_is_sent_as_it_is_given(tmp_path, kind):
    with FakeDaemon(str(tmp_path / "d.sock")) as daemon, kind(daemon.socket) as client:
        for call in calls(client, "plan_7/durations"):
            assert call() == 1
        client.run("echo", 1)
        runs = [getattr(request, "run", request) for request in daemon.requests]
        # A map's own request, and the one that the fake makes of its item.
        assert [run.idempotency_key for run in runs] == ["plan_7/durations"] * 4 + [""]


@pytest.mark.parametrize("which", range(3))
def test_request_with_a_key_outlives_a_restart(tmp_path, kind, which):
    socket = str(tmp_path / "d.sock")
    with kind(socket) as client:
        with FakeDaemon(socket) as daemon:
            assert client.run("echo", 0).output == 0
        daemons = []

        def start_late():
            time.sleep(0.5)
            daemons.append(FakeDaemon(socket).__enter__())

        thread = threading.Thread(target=start_late)
        thread.start()
        try:
            assert calls(client, "k")[which]() == 1
        finally:
            thread.join()
            for daemon in daemons:
                daemon.__exit__()


def test_request_without_a_key_is_sent_once(tmp_path, kind):
    started = time.monotonic()
    with kind(tmp_path / "missing.sock") as client:
        for call in calls(client, None):
            with pytest.raises(Unavailable):
                call()
    assert time.monotonic() - started < running.AGAIN_S / 2


def test_it_is_given_up_in_the_end(tmp_path, kind, monkeypatch):
    monkeypatch.setattr(running, "AGAIN_S", 0.4)
    with kind(tmp_path / "missing.sock") as client:
        started = time.monotonic()
        with pytest.raises(Unavailable) as raised:
            client.run("echo", 1, idempotency_key="k")
        assert 0.1 < time.monotonic() - started < 5
    assert raised.value.code == "UNAVAILABLE"


@pytest.mark.parametrize(
    "status,error",
    [
        (grpc.StatusCode.DEADLINE_EXCEEDED, Unavailable),
        (grpc.StatusCode.CANCELLED, Canceled),
        (grpc.StatusCode.ABORTED, Conflict),
    ],
)
def test_any_other_failure_is_told_at_once(tmp_path, kind, status, error):
    with FakeDaemon(str(tmp_path / "d.sock"), refusal=(status, "no", None)) as daemon, kind(daemon.socket) as client:
        with pytest.raises(error):
            client.run("echo", 1, idempotency_key="k")
        assert len(daemon.requests) == 1


def test_unavailable_is_asked_again_until_it_passes(tmp_path, kind):
    with FakeDaemon(str(tmp_path / "d.sock")) as daemon, kind(daemon.socket) as client:
        tries = []

        def later(request, context):
            tries.append(request.idempotency_key)
            if len(tries) < 4:
                context.abort(grpc.StatusCode.UNAVAILABLE, "starting")
            return allowed(b"7")

        daemon.answers["late"] = later
        assert client.run("late", 1, idempotency_key="k").output == 7
        assert tries == ["k"] * 4


def test_closing_the_client_ends_the_tries(tmp_path):
    client = Client(tmp_path / "missing.sock")
    timer = threading.Timer(0.3, client.close)
    timer.start()
    with pytest.raises(InvalidRequest):
        client.run("echo", 1, idempotency_key="k")
    timer.join()
