"""The fake clients' map, sessions and idempotency keys: the records and errors of the real ones, answered by a test."""

import asyncio
import gc
import hashlib
import math
import subprocess
import sys
import threading
from array import array

import pytest

from plugind_client import (
    Canceled,
    ColumnResult,
    Columns,
    Conflict,
    Denied,
    InvalidRequest,
    Killed,
    LimitExceeded,
    MapResult,
    OutputInvalid,
    PluginFailed,
    SessionOver,
    Unavailable,
)
from plugind_client.testing import AsyncFakeClient, FakeCall, FakeClient

GENERATED = "def half(x: float, by: float = 2.0) -> float:\n    raise AssertionError('a fake runs no code')\n"


def echo(payload):
    return payload


# --- map -----------------------------------------------------------------------------------------------------------


def test_each_payload_takes_an_answer_and_fails_alone():
    fake = FakeClient()
    fake.answers("x", 1, ValueError("bad"), {1, 2}, Denied("INPUT_INVALID"), echo)
    result = fake.map("x", (number for number in range(6)), stage="durations")
    assert type(result) is MapResult
    assert (result[0], result[4], result[5], len(result)) == (1, 4, 5, 6)
    assert {index: type(error) for index, error in result.errors.items()} == {
        1: PluginFailed,
        2: OutputInvalid,
        3: Denied,
    }
    assert (result.errors[1].type, result.errors[1].audit_log, result.outcome) == ("ValueError", "log_0", "ok")
    (call,) = fake.calls
    assert (call.method, call.arguments["payloads"], call.arguments["stage"]) == ("map", tuple(range(6)), "durations")
    assert [record.event for record in fake.audit.query().records] == ["OUTCOME", "INTENT"]
    assert fake.audit.get("log_0", "input").payload == b"[0,1,2,3,4,5]"


def test_columns_are_answered_row_by_row():
    fake = FakeClient({"x": lambda call: call["arguments"]["a"] / call["arguments"]["b"]})
    (result,) = fake.map("x", [Columns("divide", {"a": [1.0, 2.0, 3.0], "b": array("d", [2.0, 0.0, 4.0])})])
    assert type(result) is ColumnResult
    assert (result[0], result[2], type(result.values)) == (0.5, 0.75, array)
    assert math.isnan(result.values[1])
    assert result.errors[1].type == "ZeroDivisionError"
    fake.answers("x", lambda call: [call["function"], call["arguments"]])
    (result,) = fake.map("x", [Columns("f", {"a": [1, None], "b": "const"})])
    assert list(result) == [["f", {"a": 1, "b": "const"}], ["f", {"a": None, "b": "const"}]]


@pytest.mark.parametrize(
    "answers,kind",
    [
        ([Denied("BUSY")], Denied),
        ([1, LimitExceeded("timeout")], LimitExceeded),
        ([1, PluginFailed("failed", detail="exit 3")], PluginFailed),
        ([1, Unavailable("UNAVAILABLE")], Unavailable),
    ],
)
def test_whole_map_fails_as_a_run_does(answers, kind):
    fake = FakeClient()
    fake.answers("x", *answers, 7)
    with pytest.raises(kind) as raised:
        fake.map("x", [0, 1, 2])
    assert raised.value.code == answers[-1].code
    assert fake.map("x", [0]).outputs == [7]
    assert fake.status().runs_in_flight == 0


def test_map_of_which_nothing_reaches_the_plugin_is_denied():
    fake = FakeClient({"x": Denied("INPUT_INVALID")})
    with pytest.raises(Denied) as denied:
        fake.map("x", [1, 2])
    assert (denied.value.code, fake.why().audit_log) == ("INPUT_INVALID", denied.value.audit_log)


def test_map_refuses_what_the_real_one_refuses():
    fake = FakeClient({"x": 1})
    with pytest.raises(InvalidRequest):
        fake.map("x", [])
    with pytest.raises(Denied) as unknown:
        fake.map("nobody", [1])
    assert unknown.value.code == "PLUGIN_NOT_FOUND"


# --- sessions ------------------------------------------------------------------------------------------------------


def test_each_input_of_a_session_takes_an_answer():
    fake = FakeClient()
    fake.answers("x", echo, ValueError("bad"), Denied("INPUT_INVALID"), echo)
    with fake.session("x", stage="durations", idle_ms=500) as session:
        assert session.call((1, 2)) == [1, 2]
        with pytest.raises(PluginFailed) as failed:
            session.call(1)
        assert (failed.value.type, failed.value.audit_log) == ("ValueError", "log_0")
        with pytest.raises(Denied):
            session.call(2)
        assert session.call(3) == 3
        assert [(run.run_id, run.plugin) for run in fake.runs()] == [(session.run_id, "x")]
    assert (session.result.answered, session.result.why, len(session.result.frames_sha256)) == (3, "closed", 64)
    assert fake.runs() == []
    assert fake.calls[0] == FakeCall(
        "session",
        {
            "plugin": "x",
            "version": None,
            "stage": "durations",
            "plan_id": None,
            "plan_dir": None,
            "sensitivity": None,
            "timeout_ms": None,
            "idle_ms": 500,
        },
    )
    assert fake.calls[1] == FakeCall("session.call", {"plugin": "x", "payload": [1, 2]})
    assert [record.fields["outcome"] for record in fake.audit.query(events=["OUTCOME"]).records] == ["ok"]


def test_digest_of_a_session_is_that_of_its_transcript():
    fake = FakeClient({"x": echo})
    with fake.session("x") as session:
        session.call({"ü": 1})
    frames = '< 8\n{"ü":1}\nV 9\n{"ü": 1}\n'.encode()
    assert session.result.frames_sha256 == hashlib.sha256(frames).hexdigest()


@pytest.mark.parametrize(
    "end,kind",
    [(lambda fake, run_id: fake.cancel(run_id), Canceled), (lambda fake, _: fake.kill("x", "now"), Killed)],
)
@pytest.mark.parametrize("how", ["call", "close"])
def test_session_that_was_ended_says_so(end, kind, how):
    fake = FakeClient({"x": 1})
    session = fake.session("x")
    session.call(0)
    end(fake, session.run_id)
    with pytest.raises(kind):
        session.call(1) if how == "call" else session.close()
    assert session.close().outcome == kind("x").__class__.__name__.lower()


def test_session_ends_with_what_ends_a_run_and_is_denied_as_a_run_is():
    fake = FakeClient()
    fake.answers("x", 1, LimitExceeded("timeout"), 2)
    session = fake.session("x")
    assert session.call(0) == 1
    for _ in range(2):
        with pytest.raises(LimitExceeded):
            session.call(0)
    fake.denies("y", "NOT_APPROVED", "BUSY")
    with pytest.raises(Denied) as denied, fake.session("y"):
        pass
    assert [reason.code for reason in denied.value.reasons] == ["NOT_APPROVED", "BUSY"]


def test_session_over_is_what_a_test_says_or_what_follows_from_a_hold():
    fake = FakeClient()
    idle = SessionOver("SESSION_OVER")
    fake.answers("x", 1, idle, 2)
    session = fake.session("x")
    assert session.call(0) == 1
    with pytest.raises(SessionOver) as over:
        session.call(0)
    assert (over.value.why, over.value.retryable, session.result.answered) == ("idle", True, 1)
    session = fake.session("x")
    assert session.call(0) == 2
    fake.suspend("x", "wait")
    with pytest.raises(SessionOver) as over:
        session.call(0)
    assert over.value.why == "changed"
    with pytest.raises(Denied):
        fake.session("x").call(0)


def test_session_of_a_daemon_that_went_away_is_lost():
    fake = FakeClient({"x": 1})
    session = fake.session("x")
    session.call(0)
    fake.goes_away()
    for _ in range(2):
        with pytest.raises(Unavailable):
            session.call(0)
    fake.comes_back()
    assert fake.session("x").call(0) == 1
    gc.collect()
    assert fake.runs() == []


async def test_async_sessions_and_map_are_awaited():
    async with AsyncFakeClient({"x": echo}) as fake:
        assert (await fake.map("x", [1, 2])).outputs == [1, 2]
        async with fake.session("x") as session:
            assert await asyncio.gather(*map(session.call, range(5))) == list(range(5))
        assert session.result.answered == 5
        fake.answers("x", ValueError("bad"))
        with pytest.raises(PluginFailed):
            await fake.session("x").call(1)


# --- modules -------------------------------------------------------------------------------------------------------


def test_module_of_a_fake_has_sessions_too():
    with FakeClient() as fake:
        module = fake.load_source(GENERATED, name="halves", stage="s")
        fake.answers(f"halves@{module.__version__}", lambda call: call["arguments"]["x"] / 2)
        assert [module.half(number) for number in (1, 2, 3)] == [0.5, 1.0, 1.5]
        told = [call.method for call in fake.calls]
        assert told[told.index("session") :] == ["session", "session.call", "session.call", "session.call"]
        assert len(fake.runs()) == 1
        assert fake.map(module, [{"function": "half", "arguments": {"x": 5}}]).outputs == [2.5]
        assert fake.calls[-1].arguments["plugin"] is module
        fake.answers(f"halves@{module.__version__}", SessionOver("SESSION_OVER"), 1, ZeroDivisionError("zero"))
        assert module.half(1) == 1
        with pytest.raises(ZeroDivisionError, match="zero"):
            module.half(1)
        with fake.session(module) as session, pytest.raises(PluginFailed):
            session.call({"function": "half", "arguments": {"x": 1}})
        assert len(fake.runs()) == 1
        audit = fake.audit
        fake._close_pools()
        assert {record.fields["outcome"] for record in audit.query(events=["OUTCOME"]).records} == {"ok"}
        assert fake.runs() == []


def test_fakes_still_load_no_grpc_and_no_asyncio():
    script = (
        "import sys\nfrom plugind_client.testing import FakeClient\nfrom plugind_client import Columns\n"
        "fake = FakeClient({'a': 1})\nfake.map('a', [1, Columns('f', {'x': [1.0]})])\n"
        "with fake.session('a') as session: session.call(1)\n"
        "print(sorted({name.partition('.')[0] for name in sys.modules} & {'grpc', 'plugind', 'asyncio'}))"
    )
    assert subprocess.check_output([sys.executable, "-c", script], text=True) == "[]\n"


# --- idempotency keys ----------------------------------------------------------------------------------------------


def test_key_gives_the_first_answer_again():
    fake = FakeClient()
    fake.answers("x", 1, ValueError("bad"), 3, 4)
    first = fake.run("x", {}, idempotency_key="k1")
    assert fake.run("x", {}, idempotency_key="k1") == first
    assert first.output == 1
    failed = [fake.execute("x", {}, idempotency_key="k2") for _ in range(2)]
    assert failed[0] == failed[1]
    assert failed[0].error.type == "ValueError"
    maps = [fake.map("x", [{}], idempotency_key="k3") for _ in range(2)]
    assert [each.outputs for each in maps] == [[3], [3]]
    assert maps[0].run == maps[1].run
    assert [fake.run("x", {}).output for _ in range(2)] == [4, 4]
    assert [call.arguments["idempotency_key"] for call in fake.calls[:2]] == ["k1", "k1"]


def test_key_belongs_to_one_request_and_keeps_no_denial():
    fake = FakeClient()
    fake.answers("x", Denied("BUSY"), Unavailable("UNAVAILABLE"), 1)
    for kind in (Denied, Unavailable):
        with pytest.raises(kind):
            fake.run("x", {}, idempotency_key="k")
    assert fake.run("x", {}, idempotency_key="k").output == 1
    assert fake.execute("x", {}, idempotency_key="k").output == 1
    for other in (lambda: fake.run("x", 1, idempotency_key="k"), lambda: fake.map("x", [{}], idempotency_key="k")):
        with pytest.raises(Conflict):
            other()


@pytest.mark.parametrize("key", ["k" * 129, "ü", "a\nb", "\x7f", "a b"])
def test_key_that_is_none_is_refused(key):
    with pytest.raises(InvalidRequest):
        FakeClient({"x": 1}).run("x", {}, idempotency_key=key)


def test_same_key_at_the_same_time_runs_once():
    started, go_on, made = threading.Event(), threading.Event(), []

    def slow(payload):
        started.set()
        assert go_on.wait(20)
        made.append(payload)
        return len(made)

    fake, seen = FakeClient({"x": slow}), []
    threads = [
        threading.Thread(target=lambda: seen.append(fake.run("x", 0, idempotency_key="k").output)) for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    assert started.wait(20)
    go_on.set()
    for thread in threads:
        thread.join(20)
    assert (seen, made) == ([1, 1, 1], [0])
