"""The sessions behind a module's functions: few, of their own process and thread, replaced when they end, gone at the end."""

import asyncio
import gc
import json
import subprocess
import sys
import threading
import time

import pytest

from plugind.sandbox.inside.runner import describe
from plugind_client import AsyncClient, Canceled, Client, Denied, LimitExceeded, PluginFailed, SessionOver, Unavailable
from plugind_proto.v1 import runtime_pb2
from tests.support.fake_batches import over
from tests.support.fake_daemon import FakeDaemon, allowed, denied, ended

TEXT = "def same(x): return x\n"


@pytest.fixture
def daemon(tmp_path):
    with FakeDaemon(str(tmp_path / "d.sock"), runs_synthesized=True) as daemon:
        daemon.answers["same"] = same
        yield daemon


@pytest.fixture
def client(daemon):
    with Client(daemon.socket) as client:
        yield client


@pytest.fixture
def module(client):
    return client.load_source(TEXT, name="same")


def same(request, _context):
    return allowed(json.dumps(json.loads(request.input_json)["arguments"]["x"]).encode())


def sessions(daemon):
    return sum(isinstance(request, runtime_pb2.SessionOpen) for request in daemon.requests)


def until(condition, longest_s=10):
    end = time.monotonic() + longest_s
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


def first(answer):
    """The first input that comes gets another answer than all after it."""
    left = [answer]
    return lambda request, context: left.pop() if left else same(request, context)


def test_calls_one_after_the_other_share_a_session(daemon, module):
    assert sessions(daemon) == 0
    assert [module.same(number) for number in range(50)] == list(range(50))
    assert (sessions(daemon), daemon.sessions_open) == (1, 1)


def test_threads_have_one_each(daemon, module):
    together, wrong = threading.Barrier(6), []

    def waits(request, context):
        together.wait(20)
        return same(request, context)

    daemon.answers["same"] = waits
    threads = [
        threading.Thread(target=lambda n=n: wrong.extend(n for _ in range(3) if module.same(n) != n)) for n in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (wrong, sessions(daemon)) == ([], 6)


@pytest.mark.parametrize("why", ["idle", "changed", "full"])
def test_session_that_the_daemon_has_ended_is_replaced_and_the_input_sent_again(daemon, module, why):
    daemon.answers["same"] = first(over(why))
    assert [module.same(number) for number in range(3)] == [0, 1, 2]
    assert sessions(daemon) == 2
    until(lambda: daemon.sessions_open == 1)


def test_idle_end_of_many_leaves_none_behind(daemon, module):
    together = threading.Barrier(4)

    def waits(request, context):
        together.wait(20)
        return same(request, context)

    daemon.answers["same"] = waits
    threads = [threading.Thread(target=module.same, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert daemon.sessions_open == 4
    daemon.answers["same"] = first(over("idle"))
    assert module.same(1) == 1
    until(lambda: daemon.sessions_open == 1)
    assert daemon.sessions_canceled == 0


def test_input_that_may_have_reached_the_plugin_is_not_sent_again(daemon, module):
    def stream(requests, _):
        from tests.support.fake_batches import opened, session_ended

        yield opened()
        next(requests)
        yield session_ended(answered=1, why="idle")

    daemon.streams["same"] = stream
    with pytest.raises(SessionOver) as raised:
        module.same(1)
    assert (raised.value.retryable, sessions(daemon)) == (False, 1)


def test_daemon_that_ends_every_session_is_told(daemon, module):
    daemon.answers["same"] = lambda *_: over("changed")
    with pytest.raises(SessionOver):
        module.same(1)
    assert sessions(daemon) == 3


def test_errors_of_the_function_cost_no_session(daemon, module):
    daemon.answers["same"] = ended("failed", error=runtime_pb2.PluginError(**describe(ZeroDivisionError("float"))))
    for _ in range(3):
        with pytest.raises(ZeroDivisionError, match="float") as raised:
            module.same(1)
        assert isinstance(raised.value.__cause__, PluginFailed)
        assert raised.value.__cause__.audit_log == "log_7"
    daemon.answers["same"] = denied("INPUT_INVALID")
    with pytest.raises(Denied):
        module.same(1)
    daemon.answers["same"] = same
    assert module.same(2) == 2
    assert sessions(daemon) == 1


def test_bad_end_is_told_once_and_the_next_call_opens_another(daemon, module):
    daemon.answers["same"] = first(ended("timeout"))
    with pytest.raises(LimitExceeded):
        module.same(1)
    assert module.same(2) == 2
    assert sessions(daemon) == 2


def test_restarted_daemon_is_found_again(tmp_path):
    socket = str(tmp_path / "d.sock")
    with Client(socket) as client:
        with FakeDaemon(socket, runs_synthesized=True, answers={"same": same}):
            module = client.load_source(TEXT, name="same")
            assert module.same(1) == 1
        with FakeDaemon(socket, answers={"same": same}):
            end = time.monotonic() + 10
            while True:
                try:
                    assert module.same(2) == 2
                    break
                except (Unavailable, Canceled):
                    assert time.monotonic() < end
                    time.sleep(0.05)


def test_closing_the_client_ends_idle_sessions_well(daemon):
    with Client(daemon.socket) as client:
        module = client.load_source(TEXT, name="same")
        module.same(1)
        assert daemon.sessions_open == 1
    until(lambda: daemon.sessions_open == 0)
    assert daemon.sessions_canceled == 0


def test_module_that_nobody_has_any_more_lets_its_session_go(daemon, client):
    client.load_source(TEXT, name="same").same(1)
    gc.collect()
    until(lambda: daemon.sessions_open == 0)


def test_closing_waits_no_longer_than_it_must(daemon, monkeypatch):
    from plugind_client import pools
    from tests.support.fake_batches import opened

    def hangs(requests, context):
        yield opened()
        yield runtime_pb2.SessionResponse(answer=runtime_pb2.SessionAnswer(output_json=b"1" if next(requests) else b""))
        until(lambda: not context.is_active(), 60)

    daemon.streams["same"] = hangs
    monkeypatch.setattr(pools, "CLOSING_S", 0.1)
    client = Client(daemon.socket)
    assert client.load_source(TEXT, name="same").same is not None
    module = client.load_source(TEXT, name="same")
    assert module.same(1) == 1
    started = time.monotonic()
    client.close()
    assert 0.1 <= time.monotonic() - started < 20


# --- processes -----------------------------------------------------------------------------------------------------

FORKING = """
import os, sys
from plugind_client import Client

client = Client(sys.argv[1])
module = client.load_source("def same(x): return x\\n", name="same")

for number in range(10):
    assert module.same(number) == number
    pid = os.fork()
    if pid == 0:
        assert [module.same(n) for n in range(5)] == list(range(5))
        if number % 2:
            client.close()
        sys.exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
client.close()
print("done")
"""

EXITING = """
import sys
from plugind_client import Client
module = Client(sys.argv[1]).load_source("def same(x): return x\\n", name="same")
print(module.same(1))
"""

EXITING_ASYNC = """
import asyncio, sys
from plugind_client import AsyncClient
async def main():
    global module
    module = await AsyncClient(sys.argv[1]).load_source("def same(x): return x\\n", name="same")
    print(await module.same(1))
asyncio.run(main())
"""


@pytest.mark.slow
def test_forked_child_opens_its_own(daemon):
    done = subprocess.run(
        [sys.executable, "-c", FORKING, daemon.socket], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.stdout, done.returncode) == ("done\n", 0), done.stderr
    assert sessions(daemon) == 20  # before each fork the parent's idle one is closed
    until(lambda: daemon.sessions_open == 0)


@pytest.mark.parametrize("script", [EXITING, EXITING_ASYNC], ids=["sync", "async"])
def test_program_that_calls_and_ends_ends_at_once_and_quietly(daemon, script):
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-c", script, daemon.socket],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (done.stdout, done.stderr, done.returncode) == ("1\n", "", 0)
    assert time.monotonic() - started < 15
    until(lambda: daemon.sessions_open == 0)


# --- asyncio -------------------------------------------------------------------------------------------------------


async def test_async_module_shares_and_replaces_sessions(daemon):
    async with AsyncClient(daemon.socket) as client:
        module = await client.load_source(TEXT, name="same")
        assert [await module.same(number) for number in range(20)] == list(range(20))
        assert sessions(daemon) == 1
        daemon.answers["same"] = first(over("idle"))
        assert await module.same(1) == 1
        assert sessions(daemon) == 2
        daemon.answers["same"] = first(ended("timeout"))
        with pytest.raises(LimitExceeded):
            await module.same(1)
        assert sorted(await asyncio.gather(*map(module.same, range(8)))) == list(range(8))
        assert sessions(daemon) <= 10
        daemon.answers["same"] = lambda *_: over("changed")
        with pytest.raises(SessionOver):
            await module.same(1)
    while daemon.sessions_open:
        await asyncio.sleep(0.005)
    assert daemon.sessions_canceled == 0
