"""Map and Session of a plugind in memory: one execution whose inputs are answered one by one.

Source: SPEC.md, "The life of a run"; proto/plugind_proto/v1/runtime.proto.
"""

from __future__ import annotations

import hashlib
import json
import math
from array import array
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, Final

from plugind_client import wire
from plugind_client.columns import doubles, from_doubles
from plugind_client.errors import SessionOver
from plugind_client.memory.answers import Ending, item_error
from plugind_client.memory.runs import Flight, Runs
from plugind_proto.v1 import runtime_pb2


class _Ended(Exception):  # noqa: N818 - no error: how the whole ended
    def __init__(self, ending: Ending) -> None:
        super().__init__()
        self.ending = ending


# --- map -------------------------------------------------------------------------------------------------------------


def map_all(runs: Runs, request: runtime_pb2.MapRequest) -> runtime_pb2.MapResponse:
    """Answers all items in their order; a bad end of the whole leaves none."""
    calls = [list(_calls(item)) for item in request.items]
    flight = runs.start(request.run, b"[" + b",".join(text for texts in calls for text in texts) + b"]")
    if isinstance(flight, runtime_pb2.RunResponse):
        return runtime_pb2.MapResponse(run=flight)
    ending, results = Ending("unknown"), []  # unless all goes well: then the call failed, and nobody knows
    try:
        for item, texts in zip(request.items, calls, strict=True):
            answer = _columns if item.HasField("columns") else _single
            results.append(answer(runs, flight, texts))
        ending = Ending()
        if all(result.error.HasField("refused") for result in results):  # then nothing reached the plugin
            ending, results = Ending(reasons=wire.reasons(results[0].error.refused.reasons)), []
    except _Ended as ended:
        ending, results = ended.ending, []
    finally:
        run = runs.finish(flight, ending)
    return runtime_pb2.MapResponse(run=run, results=results)


def _calls(item: runtime_pb2.MapItem) -> Iterator[bytes]:
    """The inputs that an item makes, JSON text."""
    if not item.HasField("columns"):
        yield item.input_json
        return
    columns = {name: _values(column, item.columns.rows) for name, column in item.columns.arguments.items()}
    for row in range(item.columns.rows):
        arguments = {name: values[row] for name, values in columns.items()}
        yield json.dumps({"function": item.columns.function, "arguments": arguments}).encode()


def _values(column: runtime_pb2.Column, rows: int) -> Any:
    kind = column.WhichOneof("kind")
    if kind == "float64":
        return doubles(column.float64)
    return json.loads(column.values_json) if kind == "values_json" else [json.loads(column.constant_json)] * rows


def _single(runs: Runs, flight: Flight, texts: list[bytes]) -> runtime_pb2.MapResult:
    output, error = _answered(runs.step(flight, texts[0]))
    return runtime_pb2.MapResult(error=error) if error else runtime_pb2.MapResult(output_json=output)


def _columns(runs: Runs, flight: Flight, texts: list[bytes]) -> runtime_pb2.MapResult:
    values: list[Any] = []
    errors = []
    for row, text in enumerate(texts):
        output, error = _answered(runs.step(flight, text, "functions"))
        values.append(None if error else json.loads(output))
        if error:
            errors.append(runtime_pb2.RowError(row=row, error=error))
    if set(map(type, values)) - {type(None)} == {float}:
        filled = array("d", [math.nan if value is None else value for value in values])
        column = runtime_pb2.Column(float64=from_doubles(filled))
    else:
        column = runtime_pb2.Column(values_json=json.dumps(values).encode())
    return runtime_pb2.MapResult(columns=runtime_pb2.ColumnResults(values=column, errors=errors))


def _answered(ending: Ending) -> tuple[bytes, runtime_pb2.ItemError | None]:
    """Output or error of one input. Raises _Ended."""
    error = item_error(ending)
    if error is None and ending.outcome != "ok":
        raise _Ended(ending)
    return ending.output, error


# --- session ---------------------------------------------------------------------------------------------------------


class MemoryStream:
    """The stream of one session. An input is answered while it is sent, in the caller's own thread."""

    def __init__(self, runs: Runs, request: runtime_pb2.SessionOpen, seen: Callable[[bytes], None]) -> None:
        """`seen` is told each input before it is looked at, and may refuse it."""
        self._runs, self._seen = runs, seen
        self._answers: Final[deque[runtime_pb2.SessionResponse]] = deque()
        self._transcript = hashlib.sha256()
        self._answered = 0
        self._flight: Flight | None = None
        started = runs.start(request.run)
        if isinstance(started, runtime_pb2.RunResponse):
            self._tell(ended=runtime_pb2.SessionEnded(run=started))
        else:
            self._flight = started
            governance = runs.governance(started)
            opened = runtime_pb2.SessionOpened(
                governance=governance, run_id=started.run_id, version=started.version.version
            )
            self._tell(opened=opened)

    def __del__(self) -> None:
        self.cancel()

    def send(self, request: runtime_pb2.SessionRequest) -> None:
        """Answers an input."""
        flight = self._flight
        if flight is None:
            return
        self._seen(request.input_json)
        if not flight.cause and self._runs.changed(flight):
            self._end(Ending(), "changed")
            return
        try:
            ending = self._runs.step(flight, request.input_json)
            output, error = _answered(ending)
        except _Ended as ended:
            self._end(ended.ending)
        except SessionOver as over:
            self._end(Ending(), over.why or "idle")
        else:
            if not ending.reasons:
                self._answered += 1
                self._note(b"<", request.input_json)
                self._note(*_frame(ending))
            answer = runtime_pb2.SessionAnswer(error=error) if error else runtime_pb2.SessionAnswer(output_json=output)
            self._tell(answer=answer)

    def receive(self) -> runtime_pb2.SessionResponse | None:
        """The next message. There is nothing to wait for."""
        return self._answers.popleft() if self._answers else None

    def finish(self) -> None:
        """Ends it well, unless something else was to end it."""
        if self._flight is not None:
            cause = self._flight.cause
            self._end(Ending(cause, f"{cause} while it ran") if cause else Ending(), "" if cause else "closed")

    def cancel(self) -> None:
        """Ends it. What an answer gives that is just being made is too late."""
        if self._flight is not None:
            self._flight.cause = self._flight.cause or "canceled"
            self._end(Ending(self._flight.cause))

    def lost(self) -> bool:
        """Whether it has ended."""
        return self._flight is None

    def _end(self, ending: Ending, why: str = "") -> None:
        flight, self._flight = self._flight, None
        if flight is not None:
            run = self._runs.finish(flight, ending)
            digest = self._transcript.hexdigest()
            self._tell(ended=runtime_pb2.SessionEnded(run=run, answered=self._answered, frames_sha256=digest, why=why))

    def _note(self, kind: bytes, content: bytes) -> None:
        self._transcript.update(b"%s %d\n%s\n" % (kind, len(content), content))

    def _tell(self, **kind: Any) -> None:
        self._answers.append(runtime_pb2.SessionResponse(**kind))


def _frame(ending: Ending) -> tuple[bytes, bytes]:
    """Kind and text of an answer in a transcript."""
    if ending.error is None:
        return (b"V", ending.output) if ending.outcome == "ok" else (b"I", json.dumps(ending.detail).encode())
    told = {name: getattr(ending.error, name) for name in ("type", "message", "traceback")}
    return b"E", json.dumps(told).encode()


class AsyncMemoryStream:
    """The same to be awaited."""

    def __init__(self, stream: MemoryStream) -> None:
        self._stream: Final = stream
        self.cancel: Final = stream.cancel
        self.lost: Final = stream.lost

    async def send(self, request: runtime_pb2.SessionRequest) -> None:
        """As of MemoryStream."""
        self._stream.send(request)

    async def receive(self) -> runtime_pb2.SessionResponse | None:
        """As of MemoryStream."""
        return self._stream.receive()

    async def finish(self) -> None:
        """As of MemoryStream."""
        self._stream.finish()
