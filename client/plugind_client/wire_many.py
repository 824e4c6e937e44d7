"""Map and Session between protocol buffers and records, beside wire.py."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from typing import Any

from plugind_client import wire
from plugind_client.columns import Columns, column, doubles, rows_of
from plugind_client.errors import Fault, OutputInvalid, PlugindError, PluginFailed, denied, error_of
from plugind_client.records import PluginException, RunResult
from plugind_client.results import ColumnResult, MapResult, SessionResult
from plugind_client.text import output, payload_json
from plugind_proto.v1 import runtime_pb2

# --- inputs ----------------------------------------------------------------------------------------------------------


def map_items(payloads: Iterable[object]) -> list[runtime_pb2.MapItem]:
    """Payloads as messages.

    Raises:
        InvalidRequest: one cannot be sent.
    """
    return [
        runtime_pb2.MapItem(columns=_column_calls(payload))
        if isinstance(payload, Columns)
        else runtime_pb2.MapItem(input_json=payload_json(payload))
        for payload in payloads
    ]


def _column_calls(calls: Columns) -> runtime_pb2.ColumnCalls:
    columns = calls.values()
    message = runtime_pb2.ColumnCalls(function=calls.function, rows=rows_of(columns))
    for name, value in calls.arguments.items():
        kind, content = column(name, columns[name]) if name in columns else ("constant_json", payload_json(value))
        setattr(message.arguments[name], kind, content)
    return message


# --- outputs ---------------------------------------------------------------------------------------------------------


def map_result(answer: runtime_pb2.MapResponse, sent: Sequence[runtime_pb2.MapItem]) -> MapResult:
    """The answer to a map.

    Raises:
        Denied: the whole never ran.
        PluginFailed, LimitExceeded, OutputInvalid, Violated, Killed, Canceled, Fault: the whole did not end well.
        Fault: the answer does not fit what was sent, or an output is no JSON.
    """
    run = wire.executed(answer.run)
    error = error_of(run)
    if error is not None:
        raise error
    if len(answer.results) != len(sent):
        raise Fault("BAD_ANSWER", detail=f"expected {len(sent)} results, got {len(answer.results)}", result=run)
    return MapResult(run, tuple(_result(item, each, run) for item, each in zip(sent, answer.results, strict=True)))


def _result(item: runtime_pb2.MapItem, result: runtime_pb2.MapResult, run: RunResult) -> object:
    kind = result.WhichOneof("kind")
    if kind == "error":
        return item_error(result.error, run)
    if not item.HasField("columns") and kind == "output_json":
        return output(result.output_json)
    made = _column_result(result.columns, run)
    if len(made) != item.columns.rows:
        raise Fault("BAD_ANSWER", detail=f"expected {item.columns.rows} rows, got {len(made)}", result=run)
    return made


def _column_result(columns: runtime_pb2.ColumnResults, run: RunResult) -> ColumnResult:
    errors = {each.row: item_error(each.error, run) for each in columns.errors}
    return ColumnResult(_column_values(columns.values, run), errors)


def _column_values(values: runtime_pb2.Column, run: RunResult) -> array[float] | list[Any]:
    try:
        made = doubles(values.float64) if values.HasField("float64") else output(values.values_json)
    except ValueError as error:
        raise Fault("BAD_ANSWER", detail=f"a column is no doubles: {error}", result=run) from None
    if isinstance(made, array | list):
        return made
    raise Fault("BAD_ANSWER", detail=f"expected a column of values, got {type(made).__name__}", result=run)


def item_error(error: runtime_pb2.ItemError, run: RunResult) -> PlugindError:
    """Why one input of many has no output; `run` is what is known of the whole."""
    kind = error.WhichOneof("kind")
    if kind == "raised":
        told = error.raised
        failed = PluginFailed("failed", detail=f"raised {told.type}: {told.message}", result=run)
        failed.exception = PluginException(told.type, told.message, told.traceback)
        return failed
    if kind == "refused":
        return denied(wire.reasons(error.refused.reasons), run)
    if kind == "output_invalid":
        return OutputInvalid("output_invalid", detail=error.output_invalid, result=run)
    return Fault("BAD_ANSWER", detail="expected an output or an error, got neither", result=run)


# --- sessions --------------------------------------------------------------------------------------------------------


def session_result(ended: runtime_pb2.SessionEnded) -> SessionResult:
    """How a session ended."""
    return SessionResult(wire.executed(ended.run), ended.answered, ended.frames_sha256, ended.why)


def session_opened(opened: runtime_pb2.SessionOpened) -> RunResult:
    """What is known of a session while it lasts: a RunResult that has no outcome yet."""
    return wire.executed(
        runtime_pb2.RunResponse(
            decision="allow", governance=opened.governance, run_id=opened.run_id, version=opened.version
        )
    )
