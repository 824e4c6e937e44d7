"""A session: one instance for many inputs, as long as somebody talks to it. Without gRPC, which brings the stream.

Source: SPEC.md, "Client"; proto/plugind_proto/v1/runtime.proto, Session.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Any, Final, Protocol, Self

from plugind_client import wire_many
from plugind_client.errors import Canceled, Fault, InvalidRequest, PlugindError, SessionOver, error_of
from plugind_client.records import Governance, RunResult
from plugind_client.results import SessionResult
from plugind_client.text import output, payload_json
from plugind_proto.v1 import runtime_pb2

AHEAD: Final = 32
"""Inputs that `call_many` sends before their answers come: enough that neither side waits for the other."""


class Stream(Protocol):
    """The messages of one session, both ways. What fails in it raises the client's errors."""

    def send(self, request: runtime_pb2.SessionRequest) -> None:
        """Sends a message, or lets `receive` tell why it could not."""

    def receive(self) -> runtime_pb2.SessionResponse | None:
        """Waits for the next message. None: there is none after the last."""

    def finish(self) -> None:
        """Half-closes it: nothing more will be sent."""

    def cancel(self) -> None:
        """Ends it and the instance. Nothing where it has ended already."""

    def lost(self) -> bool:
        """Whether it is known, without waiting, that nothing would be answered any more."""


class Talk:
    """What both kinds of sessions know: how far it is, and what a message means."""

    def __init__(self, request: runtime_pb2.SessionRequest) -> None:
        """`request` opens it."""
        self._request = request
        self._pid = 0
        """The process that opened it; 0: nobody has yet."""
        self._known: RunResult | None = None
        self._answers = 0
        self._end: PlugindError | None = None
        """What every further call raises."""
        self.result: SessionResult | None = None
        """How it ended; None while it lasts, and where the daemon could not say."""

    @property
    def run_id(self) -> str:
        """The execution's id, for `cancel`. Raises InvalidRequest before it was opened, as the next three do."""
        return self._opened.run_id

    @property
    def version(self) -> str:
        """The version that runs."""
        return self._opened.version

    @property
    def governance(self) -> Governance:
        """The governance record."""
        return self._opened.governance

    @property
    def audit_log(self) -> str:
        """The id of the audit record, such as "log_4001"."""
        return self._opened.audit_log

    @property
    def _opened(self) -> RunResult:
        if self._known is None:
            raise InvalidRequest("INVALID_REQUEST", detail="expected a session that was opened, got one that was not")
        return self._known

    def _require_own_process(self) -> None:
        if self._pid not in {0, os.getpid()}:
            detail = f"the session belongs to the process {self._pid}: a forked child has to open one of its own"
            raise InvalidRequest("INVALID_REQUEST", detail=detail)

    def _require_open(self) -> None:
        if self._end is not None:
            raise self._end.with_traceback(None)

    # --- what a message means --------------------------------------------------------------------------------------

    def _taken_up(self, response: runtime_pb2.SessionResponse | None) -> None:
        """After the first message. Raises what keeps it from starting."""
        if response is None or not response.HasField("opened"):
            raise self._over(response)
        self._known = wire_many.session_opened(response.opened)

    def _value(self, response: runtime_pb2.SessionResponse | None) -> Any:
        """What an input gave, or its error raised, or that of the whole."""
        if response is None or not response.HasField("answer"):
            raise self._over(response)
        self._answers += 1
        answer = response.answer
        if answer.HasField("output_json"):
            return output(answer.output_json)
        raise wire_many.item_error(answer.error, self._opened)

    def _result(self, response: runtime_pb2.SessionResponse | None, before: list[Any]) -> Any:
        """What an input gave, or its error; raised is that of the whole, with the results `before`."""
        try:
            return self._value(response)
        except PlugindError as error:
            if self._end is None:
                return error
            if isinstance(error, SessionOver):
                error.results = before
            raise

    def _closed(self, response: runtime_pb2.SessionResponse | None) -> SessionResult:
        """After half-closing. Raises how it ended when that is not well."""
        error = self._over(response)
        if self.result is None or not self.result.run.ok:
            raise error
        self._end = InvalidRequest("INVALID_REQUEST", detail="this session is closed")
        return self.result

    def _over(self, response: runtime_pb2.SessionResponse | None) -> PlugindError:
        """The error that says how it ended, which every further call raises too."""
        if response is None or not response.HasField("ended"):
            got = response.WhichOneof("kind") if response else "nothing"
            self._end = Fault("BAD_ANSWER", detail=f"expected what an input gave or how the session ended, got {got}")
            return self._end
        self.result = wire_many.session_result(response.ended)
        self._end = error_of(self.result.run)
        if self._end is None:
            why, answered = self.result.why, self.result.answered
            detail = f"it ended ({why}) after {answered} answered inputs"
            self._end = over = SessionOver("SESSION_OVER", detail=detail, result=self.result.run)
            over.why, over.retryable = why, answered <= self._answers
        return self._end

    def _broken(self, error: BaseException) -> None:
        """Whatever came between leaves nothing to go on with: the answer to which input would the next message be?"""
        known = error if isinstance(error, PlugindError) else None
        self._end = self._end or known or Canceled("canceled", detail="the waiting for an answer was interrupted")

    def _canceled(self) -> bool:
        """Marks it as ended by the caller. Whether it is this process's to end."""
        if self._pid != os.getpid():
            return False
        self._end = self._end or Canceled("canceled", detail="the session was canceled in this process")
        return True


class Session(Talk):
    """One instance of a plugin that gets input after input: `with client.session(…) as session: session.call(…)`.

    Module globals of the plugin live as long as it does. It is opened on entering the block, or at the first call.
    Leaving the block by an exception kills the instance, otherwise it is closed; a forgotten session is killed too.
    Threads that share one take turns; a forked child cannot use its parent's.
    """

    def __init__(
        self, open_stream: Callable[[runtime_pb2.SessionRequest], Stream], request: runtime_pb2.SessionRequest
    ) -> None:
        """Made by `Client.session`."""
        super().__init__(request)
        self._open_stream = open_stream
        self._turn = threading.Lock()
        self._stream: Stream | None = None

    def __enter__(self) -> Self:
        self._require_own_process()
        with self._turn:
            self._ready()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._pid != os.getpid():
            return  # a forked child leaves its parent's block
        if kind is None and self._end is None:
            self.close()
        else:
            self.cancel()

    def call(self, payload: object) -> Any:
        """Gives the plugin one input, any JSON value, and gives back its output.

        Raises:
            PluginFailed, OutputInvalid, Denied: this input has none; the session goes on.
            LimitExceeded, Violated, Killed, Canceled, Fault, PluginFailed: the execution has ended so.
            SessionOver: the daemon ended it well; the input can go to another session if `retryable`.
            Denied: at the first call, when it was not open yet: it may not run.
            InvalidRequest, Unavailable: the call itself failed.
        """
        request = runtime_pb2.SessionRequest(input_json=payload_json(payload))
        self._require_own_process()
        with self._turn:
            stream = self._ready()
            try:
                stream.send(request)
                response = stream.receive()
            except BaseException as error:
                self._broken(error)
                stream.cancel()
                raise
            try:
                return self._value(response)
            finally:
                if self._end is not None:
                    stream.finish()

    def call_many(self, payloads: Iterable[object]) -> list[Any]:
        """Gives the plugin inputs without waiting for the answer to each: about twice as many in the same time.

        Gives back, in their order, the output of each, or the PluginFailed, OutputInvalid or Denied why it has none.

        Raises:
            SessionOver: the daemon ended it well; its `results` are those of the inputs that were answered.
            What `call` raises when the execution has ended otherwise, or the call itself failed.
        """
        requests = [runtime_pb2.SessionRequest(input_json=payload_json(payload)) for payload in payloads]
        self._require_own_process()
        with self._turn:
            stream = self._ready()
            results: list[Any] = []
            try:
                for request in requests[:AHEAD]:
                    stream.send(request)
                for place in range(len(requests)):
                    response = stream.receive()
                    for request in requests[place + AHEAD : place + AHEAD + 1]:
                        stream.send(request)
                    results.append(self._result(response, results))
            except BaseException as error:
                self._broken(error)
                stream.cancel()
                raise
            return results

    def close(self) -> SessionResult:
        """Ends it well, and gives how it ended. Where it has ended already: that.

        Raises:
            LimitExceeded, Violated, Killed, Canceled, Fault, PluginFailed: it did not end well, and no call said so.
            InvalidRequest, Unavailable: the call itself failed.
        """
        self._require_own_process()
        with self._turn:
            if self.result is not None:
                return self.result
            stream = self._ready()
            try:
                stream.finish()
                response = stream.receive()
            except BaseException as error:
                self._broken(error)
                stream.cancel()
                raise
            result = self._closed(response)
            with contextlib.suppress(PlugindError):
                stream.receive()  # until the daemon has let go: what is closed then interrupts nothing there
            return result

    def cancel(self) -> None:
        """Kills the instance, also while another thread waits for an answer. Nothing when it is over."""
        if self._canceled() and self._stream is not None:
            self._stream.cancel()

    @property
    def usable(self) -> bool:
        """Whether it is open and nothing is known that would keep the next input from being answered."""
        return self._end is None and self._stream is not None and not self._stream.lost()

    def _ready(self) -> Stream:
        self._require_open()
        if self._stream is None:
            self._pid = os.getpid()
            stream = self._stream = self._open_stream(self._request)
            try:
                self._taken_up(stream.receive())
            except BaseException as error:
                self._broken(error)
                stream.cancel()
                raise
        return self._stream
