"""Map and Session of the fake daemon: each input is answered as a run of its own would be, in one execution.

What a run would be denied for beside its input, or how it would end but for the plugin's exception and a bad output, is
how the whole ends.
"""

# ruff: noqa: N802 - the methods are named by the protocol

import array
import hashlib
import json
import time

from plugind_proto.v1 import runtime_pb2

OF_AN_INPUT = {"INPUT_INVALID", "INPUT_TOO_LARGE"}


def over(why):
    """An answer that ends a session well before the input reaches the plugin."""
    return runtime_pb2.SessionEnded(why=why)


def opened(**fields):
    """The first message of a session."""
    return runtime_pb2.SessionResponse(
        opened=runtime_pb2.SessionOpened(governance=_whole().governance, run_id="r1", version="1.0.0", **fields)
    )


def session_ended(run=None, **fields):
    """The last message of a session."""
    return runtime_pb2.SessionResponse(ended=runtime_pb2.SessionEnded(run=run or _whole(), **fields))


class Batches:
    """What FakeDaemon answers to many inputs."""

    sessions_open = 0
    sessions_canceled = 0

    def Map(self, request, context):
        self._admit(request, context)
        if request.run.plugin in self.maps:
            return self.maps[request.run.plugin](request, context)
        results = []
        for item in request.items:
            result = self._item(request.run, item, context)
            if isinstance(result, runtime_pb2.RunResponse):
                return runtime_pb2.MapResponse(run=result)
            results.append(result)
        return runtime_pb2.MapResponse(run=_whole(), results=results)

    def _item(self, run, item, context):
        if not item.HasField("columns"):
            output, error, whole = self._one(run, item.input_json, context)
            return whole or runtime_pb2.MapResult(error=error, output_json=None if error else output)
        values, errors = [], []
        for row, call in enumerate(rows(item.columns)):
            output, error, whole = self._one(run, json.dumps(call).encode(), context)
            if whole:
                return whole
            values.append(None if error else json.loads(output))
            if error:
                errors.append(runtime_pb2.RowError(row=row, error=error))
        if values and {type(value) for value in values} <= {float, type(None)}:
            doubles = array.array("d", [float("nan") if value is None else value for value in values])
            column = runtime_pb2.Column(float64=doubles.tobytes())
        else:
            column = runtime_pb2.Column(values_json=json.dumps(values).encode())
        return runtime_pb2.MapResult(columns=runtime_pb2.ColumnResults(values=column, errors=errors))

    def _one(self, run, text, context):
        """(output, ItemError, how the whole ends): one of them."""
        request = runtime_pb2.RunRequest()
        request.CopyFrom(run)
        request.input_json = text
        self.requests.append(request)
        answer = self._answered(request, context)
        if isinstance(answer, runtime_pb2.SessionEnded):
            return None, None, answer
        if answer.decision == "deny" and {reason.code for reason in answer.reasons} <= OF_AN_INPUT:
            return None, runtime_pb2.ItemError(refused=runtime_pb2.Refusal(reasons=answer.reasons)), None
        if answer.outcome == "failed" and answer.HasField("error"):
            return None, runtime_pb2.ItemError(raised=answer.error), None
        if answer.outcome == "output_invalid":
            return None, runtime_pb2.ItemError(output_invalid=answer.outcome_detail), None
        return (answer.output_json, None, None) if answer.outcome == "ok" else (None, None, answer)

    # --- sessions ------------------------------------------------------------------------------------------------

    def Session(self, requests, context):
        opening = next(requests).open
        self._admit(opening, context)
        if opening.run.plugin in self.streams:
            yield from self.streams[opening.run.plugin](requests, context)
            return
        answer = self.answers.get(opening.run.plugin)
        if answer is None or (not callable(answer) and answer.decision == "deny"):
            denial = self._answered(opening.run, context)
            if not {reason.code for reason in denial.reasons} <= OF_AN_INPUT:
                yield session_ended(denial)
                return
        self.sessions_open += 1
        told = None
        try:
            yield opened()
            for told in self._frames(opening.run, requests, context):
                yield told
        finally:
            self.sessions_open -= 1
            if told is None or not told.HasField("ended"):
                self.sessions_canceled += 1
                self.call_ended.set()

    def _frames(self, run, requests, context):
        digest, answered, why = hashlib.sha256(), 0, "closed"
        for request in requests:
            output, error, whole = self._one(run, request.input_json, context)
            if isinstance(whole, runtime_pb2.RunResponse):
                yield session_ended(whole, answered=answered)
                return
            if whole:
                why = whole.why
                break
            if error is None or not error.HasField("refused"):
                answered += 1
                digest.update(request.input_json + (output or b""))
            yield runtime_pb2.SessionResponse(
                answer=runtime_pb2.SessionAnswer(error=error, output_json=None if error else output)
            )
        # gRPC ends the requests of a canceled call as if it had been half-closed, and tells the difference a bit later.
        if why == "closed" and context.is_active():
            time.sleep(0.05)
        if not context.is_active():
            return
        yield session_ended(answered=answered, frames_sha256=digest.hexdigest(), why=why)


def rows(columns):
    """The calls that columns make."""
    read = {}
    for name, column in columns.arguments.items():
        kind = column.WhichOneof("kind")
        if kind == "float64":
            read[name] = array.array("d", column.float64).tolist()
        elif kind == "values_json":
            read[name] = json.loads(column.values_json)
        else:
            read[name] = [json.loads(column.constant_json)] * columns.rows
    for row in range(columns.rows):
        yield {"function": columns.function, "arguments": {name: values[row] for name, values in read.items()}}


def _whole():
    from tests.support.fake_daemon import allowed

    return allowed(b"")
