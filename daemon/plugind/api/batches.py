"""Items of a map, inputs of a session, and what came of them, as messages."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from plugind.api.messages import printable, reason_message
from plugind.batch import MOST_ITEMS, Answer, Column, ColumnAnswer, ColumnCalls, Item, ItemError
from plugind.errors import InvalidRequestError
from plugind_proto.v1 import runtime_pb2


def items(messages: Sequence[runtime_pb2.MapItem]) -> tuple[Item, ...]:
    """The items of a map. Raises InvalidRequestError; what a plugin makes of them is not asked here."""
    if not 0 < len(messages) <= MOST_ITEMS:
        raise InvalidRequestError(f"items: expected 1 to {MOST_ITEMS}, got {len(messages)}")
    return tuple(_item(message, place) for place, message in enumerate(messages))


def _item(message: runtime_pb2.MapItem, place: int) -> Item:
    match message.WhichOneof("kind"):
        case "input_json" if message.input_json:
            return message.input_json
        case "columns":
            calls = message.columns
            columns = {name: _column(column, f"items/{place}/{name:.60}") for name, column in calls.arguments.items()}
            return ColumnCalls(calls.function, calls.rows, columns)
    raise InvalidRequestError(f"items/{place}: expected a JSON text or columns, got neither")


def _column(message: runtime_pb2.Column, where: str) -> Column:
    match message.WhichOneof("kind"):
        case "float64":
            return Column("float64", message.float64)
        case "values_json":
            return Column("values", message.values_json)
        case "constant_json":
            return Column("constant", message.constant_json)
    raise InvalidRequestError(f"{where}: expected values or a constant, got neither")


def results(answers: Iterable[Answer]) -> list[runtime_pb2.MapResult]:
    """What came of the items of a map."""
    return [_result(answer) for answer in answers]


def _result(answer: Answer) -> runtime_pb2.MapResult:
    if isinstance(answer, bytes):
        return runtime_pb2.MapResult(output_json=answer)
    if isinstance(answer, ItemError):
        return runtime_pb2.MapResult(error=_error(answer))
    return runtime_pb2.MapResult(columns=_columns(answer))


def _columns(answer: ColumnAnswer) -> runtime_pb2.ColumnResults:
    values = answer.values
    column = (
        runtime_pb2.Column(float64=values.content)
        if values.kind == "float64"
        else runtime_pb2.Column(values_json=values.content)
    )
    errors = [runtime_pb2.RowError(row=row, error=_error(error)) for row, error in answer.errors]
    return runtime_pb2.ColumnResults(values=column, errors=errors)


def answer(given: Answer) -> runtime_pb2.SessionAnswer:
    """What came of one input of a session."""
    if isinstance(given, ItemError):
        return runtime_pb2.SessionAnswer(error=_error(given))
    assert isinstance(given, bytes)  # noqa: S101 - a session has no columns
    return runtime_pb2.SessionAnswer(output_json=given)


def _error(error: ItemError) -> runtime_pb2.ItemError:
    if error.raised is not None:
        raised = runtime_pb2.PluginError(
            type=printable(error.raised.type),
            message=printable(error.raised.message),
            traceback=printable(error.raised.traceback),
        )
        return runtime_pb2.ItemError(raised=raised)
    if error.refused:
        reasons = [reason_message(reason) for reason in error.refused]
        return runtime_pb2.ItemError(refused=runtime_pb2.Refusal(reasons=reasons))
    return runtime_pb2.ItemError(output_invalid=printable(error.output_invalid))
