"""RunFiles: what is taken of the files that a caller sends, and how they come back."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses

import grpc
import pytest

from plugind.admission import MOST_STREAMS_OF_ONE
from plugind.answers import Governance, Opening, RunAnswer
from plugind.api import files
from plugind.api.accept import PEER_PREFIX, Callers
from plugind.api.files import CHUNK_BYTES, NoRoomError, Room, ceilings_of, received_files, received_run, responses
from plugind.api.roles import Role
from plugind.api.runs import answer_message, run_request
from plugind.api.runtime import RuntimeService
from plugind.errors import InvalidRequestError
from plugind.model import Code, Outcome, Reason
from plugind.planfiles import Entry, FileCeilings, Written
from plugind.repeats import Repeats
from plugind_proto.v1 import runtime_pb2
from tests.support.plugins import CALLER

MOST = FileCeilings(read_files=3, read_bytes=3 * CHUNK_BYTES)
RUN = runtime_pb2.RunFilesRequest(run=runtime_pb2.RunRequest(plugin="echo", input_json=b"1"))


def chunk(path, data=b"", last=True):
    return runtime_pb2.RunFilesRequest(file=runtime_pb2.FileChunk(path=path, data=data, last=last))


async def stream(*messages):
    for message in messages:
        await asyncio.sleep(0)
        yield message


async def taken(*messages, most=MOST):
    with Room().one_more(CALLER) as room:
        return await received_files(stream(*messages), most, room)


async def test_files_come_in_parts():
    got = await taken(chunk("a.json", b"1", last=False), chunk("a.json", b"2"), chunk("empty"), chunk("d/b", b"3"))
    assert got == (Entry("a.json", b"12"), Entry("empty", b""), Entry("d/b", b"3"))
    assert await taken() == ()


WRONG = {
    "another run": (RUN,),
    "nothing": (runtime_pb2.RunFilesRequest(),),
    "relative": (chunk("../a"),),
    "absolute": (chunk("/a"),),
    "ours": (chunk(".plugind-x"),),
    "twice": (chunk("a"), chunk("a")),
    "mixed": (chunk("a", b"1", last=False), chunk("b")),
    "a file and a folder": (chunk("a/b"), chunk("a")),
    "no end": (chunk("a", b"1", last=False),),
    "a large part": (chunk("a", b"x" * (CHUNK_BYTES + 1)),),
    "too many": tuple(chunk(f"{n}") for n in range(4)),
    "too large": tuple(chunk("a", b"x" * CHUNK_BYTES, last=n == 3) for n in range(4)),
}


@pytest.mark.parametrize("name", WRONG)
async def test_what_is_not_as_it_should_be_is_refused(name):
    with pytest.raises(InvalidRequestError, match=r"expected .*, got "):
        await taken(*WRONG[name])


async def test_files_that_do_not_end_are_not_waited_for(monkeypatch):
    monkeypatch.setattr(files, "FILES_S", 0.02)
    monkeypatch.setattr(files, "FIRST_S", 0.02)

    async def never():
        yield chunk("a")
        await asyncio.sleep(10)

    async def nothing():
        await asyncio.sleep(10)
        yield RUN

    with Room().one_more(CALLER) as room, pytest.raises(InvalidRequestError, match="within 0 s"):
        await received_files(never(), MOST, room)
    with pytest.raises(InvalidRequestError, match="nothing for 0 s"):
        await received_run(nothing())


@pytest.mark.parametrize("first", [(), (chunk("a"),), (runtime_pb2.RunFilesRequest(),)])
async def test_the_run_comes_first(first):
    with pytest.raises(InvalidRequestError, match="first message: expected the run"):
        await received_run(stream(*first))
    assert (await received_run(stream(RUN, chunk("a")))).plugin == "echo"
    named = runtime_pb2.RunFilesRequest(run=runtime_pb2.RunRequest(plan_dir="/plans/a"))
    with pytest.raises(InvalidRequestError, match="plan_dir"):
        await received_run(stream(named))


def test_no_caller_and_not_all_together_fill_the_memory():
    room = Room(100)
    with room.one_more(CALLER) as first, room.one_more(dataclasses.replace(CALLER, uid=7)) as other:
        first.more(50)
        with pytest.raises(NoRoomError):
            first.more(1)
        other.more(40)
        with room.one_more(dataclasses.replace(CALLER, uid=8)) as third, pytest.raises(NoRoomError):
            third.more(11)
        assert room.used == 90
    assert room.used == 0
    assert ceilings_of([MOST, FileCeilings(read_files=9)]) == FileCeilings(read_files=9, read_bytes=3 * CHUNK_BYTES)


def ended(sent=(), written=()):
    return RunAnswer("r", "1", Governance(), outcome=Outcome.OK, output_json=b"1", sent=sent, files=written)


def test_what_was_written_goes_back_in_parts_and_the_answer_last():
    sent = (Entry("a", b"x" * (2 * CHUNK_BYTES + 1)), Entry("empty", b""), Entry("one", b"y" * CHUNK_BYTES))
    *chunks, last = responses(ended(sent, (Written("a", "ab", 3, "cd", 2),)))
    assert [(each.file.path, len(each.file.data), each.file.last) for each in chunks] == [
        ("a", CHUNK_BYTES, False),
        ("a", CHUNK_BYTES, False),
        ("a", 1, True),
        ("empty", 0, True),
        ("one", CHUNK_BYTES, True),
    ]
    (file,) = last.run.files
    assert (file.path, file.sha256, file.bytes, file.replaced_sha256, file.replaced_bytes) == ("a", "ab", 3, "cd", 2)
    denied = RunAnswer("r", "1", Governance(), reasons=(Reason(Code.BUSY, "x"),))
    (only,) = responses(denied)
    assert only.run.decision == "deny"


def test_the_fields_of_a_request_and_of_an_answer():
    asked = runtime_pb2.RunRequest(plugin="echo", input_json=b"1", plan_dir="/plans/a", learn=True)
    wanted = run_request(asked, CALLER)
    assert (wanted.plan_dir, wanted.learn, wanted.files) == ("/plans/a", True, None)
    for wrong in ("plans/a", "/plans//a", "/plans/../a", "/", "/plans/a/", "/" + "x" * 4096):
        with pytest.raises(InvalidRequestError, match="plan_dir: expected an absolute path"):
            run_request(runtime_pb2.RunRequest(plugin="echo", input_json=b"1", plan_dir=wrong), CALLER)
    answer = dataclasses.replace(ended(), opened=(Opening("a\udc80", "read", "plan", found=True),))
    (opened,) = answer_message(answer).opened
    assert (opened.path, opened.mode, opened.place, opened.found) == ("a\\udc80", "read", "plan", True)


# --- the call ---------------------------------------------------------------------------------------------------------


class Runner:
    def __init__(self):
        self.asked = []

    async def run(self, request):
        self.asked.append(request)
        return ended(request.files)


class Context:
    def peer(self):
        return f"{PEER_PREFIX}plugind-x"

    def time_remaining(self):
        return 5.0

    async def abort(self, code, details="", trailing_metadata=()):
        raise grpc.RpcError(code, details)


def service(runner):
    callers = Callers()
    callers.enter("plugind-x", dataclasses.replace(CALLER, roles=frozenset({Role.CALLER})))
    made = RuntimeService(callers, None, runner, None, MOST)
    made._repeats = Repeats(runner)
    return made


async def called(made, *messages):
    return [each async for each in made.RunFiles(stream(*messages), Context())]


async def test_a_call_runs_once_with_all_its_files():
    runner = Runner()
    *back, last = await called(made := service(runner), RUN, chunk("a", b"1"), chunk("b"))
    assert [each.file.path for each in back] == ["a", "b"]
    assert last.run.outcome == "ok"
    (asked,) = runner.asked
    assert (asked.files, asked.plan_dir) == ((Entry("a", b"1"), Entry("b", b"")), "")
    assert asked.deadline is not None
    assert (made._room.used, made._streams._of.total()) == (0, 0)


async def test_mistakes_and_a_full_house_run_nothing():
    runner = Runner()
    made = service(runner)
    with pytest.raises(grpc.RpcError) as caught:
        await called(made, RUN, chunk("../a"))
    assert caught.value.args[0] is grpc.StatusCode.INVALID_ARGUMENT
    made._room = Room(10)
    (busy,) = await called(made, RUN, chunk("a", b"x" * 6))
    assert [reason.rule for reason in busy.run.reasons] == ["api.files"]
    assert (made._room.used, made._streams._of.total(), runner.asked) == (0, 0, [])


async def test_as_many_streams_as_there_may_be_is_said_to_be_that():
    made = service(runner := Runner())
    with contextlib.ExitStack() as stack:
        for _ in range(MOST_STREAMS_OF_ONE):
            assert stack.enter_context(made._streams.one_more(CALLER))
        (busy,) = await called(made, RUN)
    assert [(reason.code, "runs with files" in reason.expected) for reason in busy.run.reasons] == [("BUSY", True)]
    assert runner.asked == []


async def test_who_does_not_read_his_answer_keeps_no_room():
    made = service(Runner())
    answers = made.RunFiles(stream(RUN, chunk("a", b"1"), chunk("b", b"2")), Context())
    await anext(answers)
    assert made._room.used == 0
    await answers.aclose()


async def test_a_key_means_its_files_too():
    runner = Runner()
    made = service(runner)
    keyed = runtime_pb2.RunFilesRequest(run=runtime_pb2.RunRequest(plugin="echo", input_json=b"1", idempotency_key="k"))
    first = await called(made, keyed, chunk("a", b"1"), chunk("b", b"2"))
    assert await called(made, keyed, chunk("b", b"2"), chunk("a", b"1")) == first
    assert len(runner.asked) == 1
    for other in ((chunk("a", b"2"), chunk("b", b"2")), (chunk("a", b"1"),), ()):
        with pytest.raises(grpc.RpcError) as caught:
            await called(made, keyed, *other)
        assert caught.value.args[0] is grpc.StatusCode.FAILED_PRECONDITION
    plain = dataclasses.replace(runner.asked[0], files=None, plan_dir="/plans/a")
    again = Repeats(runner)
    await again.run(plain, "p")
    with pytest.raises(Exception, match="belongs to another request"):
        await again.run(dataclasses.replace(plain, plan_dir="/plans/b"), "p")
