"""Sessions over real gRPC: answers in order, errors of one input and of all, ends that nobody asked for, no leftovers."""

import asyncio
import gc
import hashlib
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from plugind_client import (
    AsyncClient,
    Canceled,
    Client,
    Denied,
    Fault,
    InvalidRequest,
    Killed,
    LimitExceeded,
    OutputInvalid,
    PlugindError,
    PluginFailed,
    SessionOver,
    Unavailable,
    Violated,
)
from plugind_client.session import AHEAD
from plugind_proto.v1 import runtime_pb2
from tests.support.fake_batches import opened, over, session_ended
from tests.support.fake_daemon import FakeDaemon, allowed, denied, ended
from tests.unit.test_client_calls import Awaited

ZERO_DIVISION = runtime_pb2.PluginError(type="ZeroDivisionError", message="division by zero", traceback="tb")


@pytest.fixture
def daemon(tmp_path):
    with FakeDaemon(str(tmp_path / "d.sock")) as daemon:
        yield daemon


class Talking(Awaited):
    """AsyncClient and its sessions, each call awaited at once."""

    def session(self, *args, **kwargs):
        return TalkingSession(self._client.session(*args, **kwargs), self._runner)


class TalkingSession:
    def __init__(self, session, runner):
        self._session, self._runner = session, runner

    def __enter__(self):
        self._runner.run(self._session.__aenter__())
        return self

    def __exit__(self, *error):
        return self._runner.run(self._session.__aexit__(*error))

    def call(self, payload):
        return self._runner.run(self._session.call(payload))

    def call_many(self, payloads):
        return self._runner.run(self._session.call_many(payloads))

    def close(self):
        return self._runner.run(self._session.close())

    def __getattr__(self, name):
        return getattr(self._session, name)


@pytest.fixture(params=[Client, Talking], ids=["sync", "async"])
def client(daemon, request):
    with request.param(daemon.socket) as client:
        yield client


@pytest.fixture
def blocking(daemon):
    with Client(daemon.socket) as client:
        yield client


def by_input(answers):
    """Answers by the input's text; anything else comes back as it is."""
    return lambda request, _: answers.get(request.input_json, allowed(request.input_json))


def until(condition, longest_s=10):
    """Waits for what happens in another thread."""
    end = time.monotonic() + longest_s
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


def grpc_threads():
    """Threads of gRPC's client: one a channel in use, and one a stream that waits for what is to be sent."""
    return sum("(_run)" in thread.name for thread in threading.enumerate())


# --- what goes well ------------------------------------------------------------------------------------------------


def test_answers_come_in_order_and_the_end_tells_about_the_whole(daemon, client):
    with client.session("echo", stage="durations", timeout_ms=70, idle_ms=900, plan_id="p") as session:
        assert [session.call({"n": number}) for number in range(200)] == [{"n": number} for number in range(200)]
        assert (session.run_id, session.version, session.audit_log) == ("r1", "1.0.0", "log_7")
        assert session.governance.plugin_id == "plug_1"
        assert session.result is None
        assert session.usable
    result = session.result
    frames = b"".join(b'{"n":%d}' % number * 2 for number in range(200))
    assert (result.answered, result.why, result.frames_sha256) == (200, "closed", hashlib.sha256(frames).hexdigest())
    assert (result.outcome, result.audit_log, result.usage.wall_ms, result.version) == ("ok", "log_7", 12, "1.0.0")
    assert session.close() == result
    assert daemon.last("SessionOpen") == runtime_pb2.SessionOpen(
        run=runtime_pb2.RunRequest(plugin="echo", stage="durations", timeout_ms=70, plan_id="p"), idle_ms=900
    )
    with pytest.raises(InvalidRequest) as late:
        session.call(1)
    assert "closed" in late.value.detail
    assert not session.usable


def test_session_is_opened_at_the_first_call_where_nothing_else_opens_it(daemon, client):
    session = client.session("echo@1.2.0")
    assert daemon.requests == []
    with pytest.raises(InvalidRequest):
        _ = session.run_id
    assert session.call(1) == 1
    assert daemon.last("SessionOpen").run.version == "1.2.0"
    assert session.close().answered == 1


def test_wrong_arguments_are_told_at_once(daemon, client):
    for wrong in ({"timeout_ms": -1}, {"idle_ms": "soon"}, {"version": "2", "plugin": "p@1"}):
        with pytest.raises(InvalidRequest):
            client.session(**({"plugin": "p"} | wrong))
    assert daemon.requests == []


def test_module_gives_its_version_and_what_it_was_loaded_for(daemon, blocking):
    daemon.runs_synthesized = True
    daemon.answers["ones"] = by_input({})
    module = blocking.load_source("def one(): return 1\n", name="ones", stage="premortem", sensitivity="public")
    with blocking.session(module, sensitivity="restricted") as session:
        assert session.call(7) == 7
    sent = daemon.last("SessionOpen").run
    assert (sent.plugin, sent.version, sent.stage) == ("ones", module.__version__, "premortem")
    assert sent.sensitivity == "restricted"


def test_threads_take_turns(blocking):
    with blocking.session("echo") as session:
        wrong = []

        def ask(number):
            wrong.extend(n for n in range(number, number + 50) if session.call(n) != n)

        threads = [threading.Thread(target=ask, args=(1000 * number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert wrong == []
    assert session.result.answered == 400


async def test_tasks_take_turns(daemon):
    async with AsyncClient(daemon.socket) as client, client.session("echo") as session:
        assert await asyncio.gather(*map(session.call, range(100))) == list(range(100))


# --- errors of one input -------------------------------------------------------------------------------------------


def test_session_goes_on_after_the_error_of_one_input(daemon, client):
    daemon.answers["p"] = by_input(
        {
            b"1": ended("failed", error=ZERO_DIVISION),
            b"2": ended("output_invalid", "no number"),
            b"3": denied("INPUT_INVALID"),
        }
    )
    with client.session("p") as session:
        with pytest.raises(PluginFailed) as failed:
            session.call(1)
        assert (failed.value.type, failed.value.traceback) == ("ZeroDivisionError", "tb")
        assert (failed.value.audit_log, failed.value.result.run_id) == ("log_7", "r1")
        with pytest.raises(OutputInvalid) as invalid:
            session.call(2)
        assert invalid.value.detail == "no number"
        with pytest.raises(Denied) as refused:
            session.call(3)
        assert refused.value.code == "INPUT_INVALID"
        with pytest.raises(InvalidRequest):
            session.call({4})
        assert session.call(5) == 5
    assert session.result.answered == 3


@pytest.mark.parametrize("count", [0, 1, AHEAD - 1, AHEAD, AHEAD + 1, 5 * AHEAD])
def test_many_inputs_are_answered_in_their_order(daemon, client, count):
    with client.session("echo") as session:
        assert session.call_many({"n": number} for number in range(count)) == [{"n": number} for number in range(count)]
        assert session.call("after") == "after"
    assert session.result.answered == count + 1


def test_of_many_inputs_those_that_have_no_output_have_their_error(daemon, client):
    daemon.answers["p"] = by_input({b"1": ended("failed", error=ZERO_DIVISION), b"3": denied("INPUT_INVALID")})
    with client.session("p") as session:
        zero, failed, two, refused, four = session.call_many(range(5))
        assert (zero, two, four) == (0, 2, 4)
        assert (type(failed), failed.type) == (PluginFailed, "ZeroDivisionError")
        assert (type(refused), refused.code) == (Denied, "INPUT_INVALID")
        assert session.call(5) == 5


def test_an_end_amid_many_inputs_gives_what_was_answered(daemon, client):
    daemon.answers["p"] = by_input({b"2": over("full")})
    with client.session("p") as session:
        with pytest.raises(SessionOver) as raised:
            session.call_many(range(5))
        assert raised.value.results == [0, 1]
        assert (raised.value.why, raised.value.retryable) == ("full", True)
    daemon.answers["q"] = by_input({b"2": ended("timeout", "70 ms")})
    with client.session("q") as session, pytest.raises(LimitExceeded):
        session.call_many(range(5))


def test_nothing_is_sent_when_one_of_many_is_no_json(daemon, client):
    with client.session("echo") as session:
        with pytest.raises(InvalidRequest):
            session.call_many([1, {2}])
        assert session.call(3) == 3
    assert session.result.answered == 1


# --- ends ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "answer,kind",
    [
        (ended("timeout", "70 ms"), LimitExceeded),
        (ended("killed"), Killed),
        (ended("violation"), Violated),
        (ended("canceled"), Canceled),
        (ended("fault"), Fault),
        (ended("failed", "exit 3"), PluginFailed),
    ],
    ids=lambda value: getattr(value, "outcome", None),
)
def test_bad_end_is_raised_by_the_call_that_met_it_and_by_all_after_it(daemon, client, answer, kind):
    daemon.answers["p"] = by_input({b"1": answer})
    with client.session("p") as session:
        session.call(0)
        for _ in range(2):
            with pytest.raises(kind) as raised:
                session.call(1)
            assert (raised.value.code, raised.value.audit_log) == (answer.outcome, "log_7")
        assert not session.usable
    assert (session.close().outcome, session.result.answered, session.result.why) == (answer.outcome, 1, "")


def test_bad_end_that_no_call_met_is_raised_by_closing(daemon, client):
    def stream(requests, _):
        yield opened()
        assert list(requests) == []
        yield session_ended(ended("killed"))

    daemon.streams["p"] = stream
    with pytest.raises(Killed), client.session("p"):
        pass
    session = client.session("p")
    with pytest.raises(Killed):
        session.close()
    assert session.close().outcome == "killed"


@pytest.mark.parametrize("enter", [True, False])
def test_denial_is_raised_when_it_is_opened(daemon, client, enter):
    daemon.answers["p"] = denied("NOT_APPROVED", "STAGE_NOT_ALLOWED")
    session = client.session("p")
    for _ in range(2):
        with pytest.raises(Denied) as raised:
            session.__enter__() if enter else session.call(1)
        assert [reason.code for reason in raised.value.reasons] == ["NOT_APPROVED", "STAGE_NOT_ALLOWED"]


@pytest.mark.parametrize("why", ["idle", "changed", "full"])
def test_end_that_the_daemon_chose_is_told_and_the_input_may_go_to_another_session(daemon, client, why):
    daemon.answers["p"] = by_input({b"1": over(why)})
    with client.session("p") as session:
        session.call(0)
        with pytest.raises(SessionOver) as raised:
            session.call(1)
        assert (raised.value.code, raised.value.why, raised.value.retryable) == ("SESSION_OVER", why, True)
        assert raised.value.audit_log == "log_7"
        with pytest.raises(SessionOver):
            session.call(2)
    assert (session.result.why, session.result.answered) == (why, 1)


def ends_by_itself(answered=0):
    def stream(requests, _):
        yield opened()
        yield session_ended(answered=answered, why="idle")

    return stream


def test_end_that_came_while_nobody_asked_is_met_by_the_next_call(daemon, client):
    daemon.streams["p"] = ends_by_itself()
    for close in (False, True):
        session = client.session("p")
        session.__enter__()
        time.sleep(0.2)  # the server has ended the stream
        if close:
            assert session.close().why == "idle"
        else:
            with pytest.raises(SessionOver) as raised:
                session.call(1)
            assert (raised.value.why, raised.value.retryable) == ("idle", True)


def test_input_that_the_daemon_says_was_answered_is_not_to_be_sent_again(daemon, client):
    daemon.streams["p"] = ends_by_itself(answered=1)
    with client.session("p") as session, pytest.raises(SessionOver) as raised:
        session.call(1)
    assert raised.value.retryable is False


@pytest.mark.parametrize(
    "messages",
    [[], [opened()], [opened(), opened()], [opened(), runtime_pb2.SessionResponse()]],
    ids=["nothing", "no answer", "opened twice", "empty"],
)
def test_what_is_no_answer_is_a_fault(daemon, client, messages):
    daemon.streams["p"] = lambda *_: iter(messages)
    session = client.session("p")
    for _ in range(2):
        with pytest.raises(Fault) as raised:
            session.call(1)
        assert raised.value.code in {"BAD_ANSWER", "FAULT"}  # FAULT: gRPC already says that nothing can be sent


def test_output_that_is_no_json_is_a_fault_and_the_session_goes_on(daemon, client):
    daemon.answers["p"] = by_input({b"1": allowed(b"{")})
    with client.session("p") as session:
        with pytest.raises(Fault):
            session.call(1)
        assert session.call(2) == 2


# --- ends by the caller --------------------------------------------------------------------------------------------


def test_leaving_the_block_by_an_exception_cancels(daemon, client):
    with pytest.raises(KeyError), client.session("echo") as session:
        session.call(1)
        raise KeyError
    assert daemon.call_ended.wait(5)
    assert session.result is None
    with pytest.raises(Canceled):
        session.call(2)


def test_ctrl_c_comes_through_at_once_and_kills_the_instance(daemon, blocking):
    daemon.answers["slow"] = daemon.slow
    signal.signal(signal.SIGALRM, signal.default_int_handler)
    session, interrupted = blocking.session("slow"), []

    def interrupt():
        until(lambda: any(request.DESCRIPTOR.name == "RunRequest" for request in daemon.requests))
        interrupted.append(time.monotonic())
        os.kill(os.getpid(), signal.SIGALRM)

    with session:
        threading.Thread(target=interrupt).start()
        with pytest.raises(KeyboardInterrupt):
            session.call(1)
        assert time.monotonic() - interrupted[0] < 1
        assert daemon.call_ended.wait(2)
        with pytest.raises(Canceled):
            session.call(2)
    assert blocking.run("echo", 1).output == 1


async def test_canceling_the_task_kills_the_instance(daemon):
    daemon.answers["slow"] = daemon.slow
    async with AsyncClient(daemon.socket) as client:
        session = client.session("slow")
        with pytest.raises(TimeoutError):
            async with session:
                call = asyncio.create_task(session.call(1))
                while not any(request.DESCRIPTOR.name == "RunRequest" for request in daemon.requests):
                    await asyncio.sleep(0.005)
                await asyncio.wait_for(call, 0.1)
        assert await asyncio.to_thread(daemon.call_ended.wait, 2)
        with pytest.raises(Canceled):
            await session.call(2)


@pytest.mark.parametrize("end", [lambda client, session: session.cancel(), lambda client, session: client.close()])
def test_another_thread_can_end_a_wait(daemon, blocking, end):
    daemon.answers["slow"] = daemon.slow
    session, caught = blocking.session("slow"), []

    def wait():
        try:
            session.call(1)
        except PlugindError as error:
            caught.append(error)

    thread = threading.Thread(target=wait)
    thread.start()
    until(lambda: any(request.DESCRIPTOR.name == "RunRequest" for request in daemon.requests))
    end(blocking, session)
    thread.join(5)
    assert [type(error) for error in caught] == [Canceled]
    assert daemon.call_ended.wait(2)


async def test_another_task_can_end_a_wait(daemon):
    daemon.answers["slow"] = daemon.slow
    async with AsyncClient(daemon.socket) as client:
        session = client.session("slow")
        task = asyncio.create_task(session.call(1))
        while not any(request.DESCRIPTOR.name == "RunRequest" for request in daemon.requests):
            await asyncio.sleep(0.005)
        session.cancel()
        with pytest.raises(Canceled):
            await task


def test_forgotten_session_is_canceled_and_leaves_no_thread(daemon, blocking):
    with blocking.session("echo"):
        assert grpc_threads() == 2
        for number in range(5):
            assert blocking.session("echo").call(number) == number
        gc.collect()
        until(lambda: daemon.sessions_canceled == 5)
        until(lambda: grpc_threads() == 2)


async def test_forgotten_async_session_is_canceled(daemon):
    async with AsyncClient(daemon.socket) as client:
        assert await client.session("echo").call(1) == 1
        gc.collect()
        while daemon.sessions_canceled != 1:
            await asyncio.sleep(0.005)


def test_ended_sessions_leave_no_thread(daemon, blocking):
    daemon.answers["p"] = by_input({b"1": over("idle"), b"2": ended("timeout")})
    sessions = []
    for payload in (1, 2, 1, 2):
        sessions.append(blocking.session("p"))
        with pytest.raises(PlugindError):
            sessions[-1].call(payload)
    until(lambda: grpc_threads() == 0)


# --- the daemon, processes -----------------------------------------------------------------------------------------


def test_no_daemon(tmp_path):
    with Client(tmp_path / "missing.sock") as client:
        session = client.session("echo")
        for _ in range(2):
            with pytest.raises(Unavailable):
                session.call(1)


async def test_no_daemon_async(tmp_path):
    async with AsyncClient(tmp_path / "missing.sock") as client:
        with pytest.raises(Unavailable):
            await client.session("echo").call(1)


def test_daemon_that_dies_in_between(tmp_path):
    with FakeDaemon(str(tmp_path / "d.sock")) as daemon, Client(daemon.socket) as client:
        session = client.session("echo")
        session.call(1)
        daemon.server.stop(0).wait()
        until(lambda: not session.usable)
        with pytest.raises((Unavailable, Canceled)):
            session.call(2)


FORKING = """
import os, sys
from plugind_client import Client, InvalidRequest

client = Client(sys.argv[1])
session = client.session("echo")
assert session.call("parent") == "parent"

def child(how):
    if how == "calls":
        for use in (lambda: session.call(1), session.close, session.__enter__):
            try:
                use()
            except InvalidRequest as error:
                assert str(os.getppid()) in error.detail
            else:
                raise AssertionError
        try:
            client.status()
        except InvalidRequest as error:
            assert "was forked while" in error.detail
        else:
            raise AssertionError
    elif how == "cancels":
        session.cancel()
    elif how == "forgets":
        global_names = globals()
        del global_names["session"]
        import gc; gc.collect()

for how in ["calls", "cancels", "forgets", "ends"] * 5:
    pid = os.fork()
    if pid == 0:
        child(how)
        sys.exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0, how
    assert session.call(how) == how

with session:
    pid = os.fork()
    if pid == 0:
        pass
    else:
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        assert session.call("last") == "last"
if pid == 0:
    sys.exit(0)
pid = os.fork()
if pid == 0:  # now no session is open any more
    with client.session("echo") as own:
        assert own.call("own") == "own"
    sys.exit(0)
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
print(session.result.answered, session.result.why)
"""


@pytest.mark.slow
def test_forked_child_cannot_use_its_parents_session_nor_harm_it(daemon):
    done = subprocess.run(
        [sys.executable, "-c", FORKING, daemon.socket], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.stdout, done.returncode) == ("22 closed\n", 0), done.stderr


EXITING = """
import sys
from plugind_client import Client
sessions = [Client(sys.argv[1]).session("echo") for _ in range(3)]
print([session.call(1) for session in sessions])
"""

EXITING_ASYNC = """
import asyncio, sys
from plugind_client import AsyncClient
async def main():
    sessions.extend(AsyncClient(sys.argv[1]).session("echo") for _ in range(3))
    print([await session.call(1) for session in sessions])
sessions = []
asyncio.run(main())
"""


@pytest.mark.parametrize("script", [EXITING, EXITING_ASYNC], ids=["sync", "async"])
def test_interpreter_ends_at_once_and_quietly_with_sessions_open(daemon, script):
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-c", script, daemon.socket],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (done.stdout, done.stderr, done.returncode) == ("[1, 1, 1]\n", "", 0)
    until(lambda: daemon.sessions_open == 0)


def test_values_come_back_exactly(client):
    values = [None, True, 0, "", [], {}, 2**53 + 1, -0.1, 1e308, "𝄞\u0000", float("inf"), "x" * 5_000_000]
    with client.session("echo") as session:
        for value in values:
            given = session.call(value)
            assert (given, type(given)) == (value, type(value))
