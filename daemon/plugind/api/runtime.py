"""plugind.v1.Runtime: Run, Map, RunFiles, Session, Cancel, ListRuns, Why."""

from __future__ import annotations

import asyncio
import contextlib
import re
import traceback
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Final

import grpc

from plugind.admission import Streams
from plugind.answers import TOO_MANY_STREAMS, RunAnswer, RunRequest
from plugind.api import batches, files
from plugind.api.accept import Callers
from plugind.api.calls import RUN_ID, Refusals, admitted, call, call_until, deadline_of, matching
from plugind.api.errors import Context, abort
from plugind.api.messages import reason_message
from plugind.api.roles import Role
from plugind.api.runs import (
    answer_message,
    governance_message,
    map_request,
    run_request,
    running_message,
    session_request,
)
from plugind.config import log
from plugind.errors import InvalidRequestError, NotFoundError, PlugindError
from plugind.model import Caller
from plugind.planfiles import FileCeilings
from plugind.repeats import Repeats
from plugind.run import Runner
from plugind.sampling import Sampling
from plugind.session import Conversation
from plugind_proto.v1 import runtime_pb2, runtime_pb2_grpc

IDEMPOTENCY_KEY: Final = re.compile(r"[\x21-\x7e]{1,128}")
FIRST_S: Final = 5.0
_TOO_MANY: Final = runtime_pb2.SessionEnded(
    run=runtime_pb2.RunResponse(decision="deny", reasons=[reason_message(TOO_MANY_STREAMS)])
)
_TOO_MANY_FILES: Final = runtime_pb2.RunFilesResponse(run=_TOO_MANY.run)
_NO_ROOM: Final = runtime_pb2.RunFilesResponse(
    run=runtime_pb2.RunResponse(decision="deny", reasons=[reason_message(files.NO_ROOM)])
)
_Requests = AsyncIterator[runtime_pb2.SessionRequest]
_Responses = AsyncIterator[runtime_pb2.SessionResponse]


class RuntimeService(runtime_pb2_grpc.RuntimeServicer):
    """Open to every caller; what is somebody else's only to operators."""

    def __init__(
        self, callers: Callers, refusals: Refusals, runner: Runner, sampling: Sampling, most_files: FileCeilings
    ) -> None:
        """`most_files`: of the files that a caller sends, in the tier with most."""
        self.callers = callers
        self.refusals = refusals
        self._runner = runner
        self._sampling = sampling
        self._repeats = Repeats(runner)
        self._streams = Streams()
        self._most_files = most_files
        self._room = files.Room()

    @call_until(Role.CALLER)
    async def Run(  # noqa: N802
        self, request: runtime_pb2.RunRequest, caller: Caller, deadline: float | None
    ) -> runtime_pb2.RunResponse:
        """One input to one instance."""
        wanted = replace(run_request(request, caller), deadline=deadline)
        return answer_message(await self._once(wanted, request.idempotency_key))

    @call_until(Role.CALLER)
    async def Map(  # noqa: N802
        self, request: runtime_pb2.MapRequest, caller: Caller, deadline: float | None
    ) -> runtime_pb2.MapResponse:
        """Many inputs to one instance."""
        # In a thread: what it copies may be as large as an input may be.
        wanted = replace(await asyncio.to_thread(map_request, request, caller), deadline=deadline)
        answer = await self._once(wanted, request.run.idempotency_key)
        results = await asyncio.to_thread(batches.results, answer.items)
        return runtime_pb2.MapResponse(run=answer_message(answer), results=results)

    async def _once(self, request: RunRequest, key: str) -> RunAnswer:
        if not key:
            return await self._runner.run(request)
        matching("idempotency_key", key, IDEMPOTENCY_KEY, "1 to 128 printable characters of ASCII, no spaces")
        return await self._repeats.run(request, key)

    async def Session(self, requests: _Requests, context: Context) -> _Responses:  # noqa: N802
        """One instance, inputs as they come."""
        conversation: Conversation | None = None
        try:
            deadline = deadline_of(context)
            caller = await admitted(self, context, Role.CALLER, "Session")
            with self._streams.one_more(caller) as has_room:
                if not has_room:
                    yield runtime_pb2.SessionResponse(ended=_TOO_MANY)
                    return
                wanted, idle_ms = session_request(await _first(requests), caller)
                conversation = self._runner.open(replace(wanted, deadline=deadline), idle_ms)
                async for response in _talk(conversation, requests):
                    yield response
        except PlugindError as error:
            await abort(context, error)
        except Exception:  # noqa: BLE001 - as in calls.call, which is for calls with one answer
            log(f"fault in Session:\n{traceback.format_exc()}")
            await context.abort(grpc.StatusCode.INTERNAL, "a fault of plugind in Session; see its log")
        finally:
            if conversation is not None:
                conversation.cancel()  # when it has ended, there is nothing to cancel

    async def RunFiles(  # noqa: N802
        self, requests: files.Requests, context: Context
    ) -> AsyncIterator[runtime_pb2.RunFilesResponse]:
        """One input to one instance, and the files of its plan with it."""
        try:
            deadline = deadline_of(context)
            caller = await admitted(self, context, Role.CALLER, "RunFiles")
            with self._streams.one_more(caller) as has_room:
                if not has_room:
                    yield _TOO_MANY_FILES
                    return
                with self._room.one_more(caller) as taken:  # until the run ends, and not while its answer is read
                    answer = await self._with_files(requests, caller, deadline, taken)
                for response in files.responses(answer):
                    yield response
        except files.NoRoomError:
            yield _NO_ROOM
        except PlugindError as error:
            await abort(context, error)
        except Exception:  # noqa: BLE001 - as in calls.call, which is for calls with one answer
            log(f"fault in RunFiles:\n{traceback.format_exc()}")
            await context.abort(grpc.StatusCode.INTERNAL, "a fault of plugind in RunFiles; see its log")

    async def _with_files(
        self, requests: files.Requests, caller: Caller, deadline: float | None, taken: files.Taken
    ) -> RunAnswer:
        asked = await files.received_run(requests)
        wanted = replace(run_request(asked, caller), deadline=deadline)
        sent = await files.received_files(requests, self._most_files, taken)
        return await self._once(replace(wanted, files=sent), asked.idempotency_key)

    @call(Role.CALLER)
    async def Cancel(self, request: runtime_pb2.CancelRequest, caller: Caller) -> runtime_pb2.CancelResponse:  # noqa: N802
        """End one run."""
        run_id = matching("run_id", request.run_id, RUN_ID, "1 to 64 of [A-Za-z0-9_-]")
        found = self._runner.flights.end(run_id, "canceled", self._scope(caller))
        return runtime_pb2.CancelResponse(found=found)

    @call(Role.CALLER)
    async def ListRuns(  # noqa: N802
        self, request: runtime_pb2.ListRunsRequest, caller: Caller
    ) -> runtime_pb2.ListRunsResponse:
        """The runs in flight, and what they use."""
        del request
        uses = await self._sampling.fresh() if self._runner.flights.visible(self._scope(caller)) else {}
        runs = self._runner.flights.visible(self._scope(caller))
        return runtime_pb2.ListRunsResponse(runs=[running_message(run, uses.get(run.run_id)) for run in runs])

    @call(Role.CALLER)
    async def Why(self, request: runtime_pb2.WhyRequest, caller: Caller) -> runtime_pb2.WhyResponse:  # noqa: N802
        """The caller's last denial."""
        del request
        last = self._runner.denials.last(caller)
        if last is None:
            raise NotFoundError(f"uid {caller.uid}: expected a denial since the daemon started, got none")
        asked, answer, at_unix_ms = last
        return runtime_pb2.WhyResponse(
            plugin=asked.plugin,
            version=answer.version,
            stage=asked.stage,
            sensitivity=asked.sensitivity,
            reasons=[reason_message(reason) for reason in answer.reasons],
            audit_log=answer.governance.audit_log,
            at_unix_ms=at_unix_ms,
        )

    def _scope(self, caller: Caller) -> Caller | None:
        """Whose runs this caller may see and end: None is everybody's."""
        return None if Role.OPERATOR in caller.roles else caller


async def _first(requests: _Requests) -> runtime_pb2.SessionRequest:
    """The message that opens a session. Raises InvalidRequestError."""
    got = f"nothing for {FIRST_S:.0f} s"
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(FIRST_S):
            first = await anext(aiter(requests), None)
            if first is not None:
                return first
            got = "the end of the stream"
    raise InvalidRequestError(f"session: expected a message that opens it, got {got}")


async def _talk(conversation: Conversation, requests: _Requests) -> _Responses:
    """The answers to a stream of inputs, from the opening to the end."""
    if await conversation.opened():
        yield runtime_pb2.SessionResponse(opened=_opened(conversation))
        async for answer in _answers(conversation, requests):
            yield runtime_pb2.SessionResponse(answer=answer)
    end = await conversation.close()
    ended = runtime_pb2.SessionEnded(
        run=answer_message(end),
        answered=conversation.answered,
        frames_sha256=end.frames_sha256,
        why=conversation.why,
    )
    yield runtime_pb2.SessionResponse(ended=ended)


def _opened(conversation: Conversation) -> runtime_pb2.SessionOpened:
    return runtime_pb2.SessionOpened(
        governance=governance_message(conversation.governance),
        run_id=conversation.run_id,
        version=conversation.version,
    )


async def _answers(conversation: Conversation, requests: _Requests) -> AsyncIterator[runtime_pb2.SessionAnswer]:
    """Until the caller or the session has had enough. Its end interrupts the waiting for the caller's next input."""
    waiting = asyncio.current_task()
    assert waiting is not None  # noqa: S101 - gRPC runs each call in a task
    reading = interrupted = False

    def interrupt() -> None:
        nonlocal interrupted
        if reading:  # and not within gRPC, which would take it for the end of the call
            interrupted = True
            waiting.cancel()

    conversation.on_end = interrupt
    inputs = aiter(requests)
    try:
        while not conversation.over:
            reading = True
            request = await anext(inputs, None)
            reading = False
            if request is None:
                return
            if request.WhichOneof("kind") != "input_json" or not request.input_json:
                raise InvalidRequestError("session: expected an input, JSON text, got something else or nothing")
            answer = await conversation.ask(request.input_json)
            if answer is None:
                return
            yield batches.answer(answer)
    except asyncio.CancelledError:
        if not interrupted:
            raise  # the caller is gone
        waiting.uncancel()
    finally:
        conversation.on_end = lambda: None
