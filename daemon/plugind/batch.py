"""The batch of a map: what goes into it, held against the plugin's schemas item by item, and what came out. Pure.

The text of a batch, which is what the plugin's process gets and what the ledger keeps: sandbox/inside/batches.py. An
item that is refused stands in it as {"refused":true}, without its content.
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from plugind import jsontext
from plugind.errors import InvalidJsonError
from plugind.jsontext import JsonValue
from plugind.model import PluginError, Reason
from plugind.payload import Contract, call_problem, check_input, invalid, output_problem

MOST_ITEMS: Final = 1_000_000
MOST_ROWS: Final = 2_000_000
"""In all items."""
MOST_TOLD: Final = 4096
"""Reasons why items are refused, and outputs that are none. Of more the whole fails: to find one takes longer than to
pass what is well, and all of them have to fit into one answer."""
_PROBLEM_CHARS: Final = 512
_CALL_BYTES: Final = 32
"""Of a call as JSON, without what it names."""
_FLOAT_BYTES: Final = 8
_ERROR_CHARS: Final = 4096

ColumnKind = Literal["float64", "values", "constant"]


@dataclass(frozen=True, slots=True)
class Column:
    """float64: IEEE 754 doubles, little-endian; values: a JSON array; constant: one JSON value for every row."""

    kind: ColumnKind
    content: bytes


@dataclass(frozen=True, slots=True)
class ColumnCalls:
    """Row i of every argument makes one call of the function."""

    function: str
    rows: int
    arguments: Mapping[str, Column]


Item = bytes | ColumnCalls
"""One input, JSON text; or many calls of one function."""


@dataclass(frozen=True, slots=True)
class ItemError:
    """Why an input has no output: one of the three."""

    raised: PluginError | None = None
    refused: tuple[Reason, ...] = ()
    output_invalid: str = ""


@dataclass(frozen=True, slots=True)
class ColumnAnswer:
    """A value for each row, and what is wrong with some of them."""

    values: Column
    errors: tuple[tuple[int, ItemError], ...] = ()


Answer = bytes | ColumnAnswer | ItemError
"""What came of an item: JSON text, a column, or an error."""


# --- what goes in ----------------------------------------------------------------------------------------------------


def encode(items: Sequence[Item], refused: Collection[int] = ()) -> bytes:
    """The text of a batch."""
    heads: list[dict[str, Any]] = []
    parts: list[bytes] = []
    for place, item in enumerate(items):
        if place in refused:
            heads.append({"refused": True})
        elif isinstance(item, bytes):
            heads.append({"json": len(item)})
            parts.append(item)
        else:
            columns = {name: {column.kind: len(column.content)} for name, column in item.arguments.items()}
            heads.append({"function": item.function, "rows": item.rows, "columns": columns})
            parts.extend(column.content for column in item.arguments.values())
    head = json.dumps({"items": heads}, ensure_ascii=True, separators=(",", ":")).encode()
    return b"".join([head, b"\n", *parts])


def check(contract: Contract, items: Sequence[Item], max_bytes: int, tier: int) -> dict[int, tuple[Reason, ...]]:
    """Why items are refused, by their places; of one that is not there all is well.

    Not all of them where there are more than MOST_TOLD reasons (`too_many`).
    """
    found: dict[int, tuple[Reason, ...]] = {}
    room = _Room(MOST_ROWS, max_bytes)
    told = 0
    for place, item in enumerate(items):
        reasons = (
            check_input(contract, item, max_bytes, tier).reasons
            if isinstance(item, bytes)
            else _columns_reasons(contract, item, max_bytes, room)
        )
        if reasons:
            found[place] = reasons
            told += len(reasons)
            if told > MOST_TOLD:
                break
    return found


def too_many(refused: Mapping[int, tuple[Reason, ...]]) -> bool:
    """Whether so much is refused that nothing is to run."""
    return sum(map(len, refused.values())) > MOST_TOLD


@dataclass(slots=True)
class _Room:
    """How much more there may be in the items of one batch."""

    rows: int
    single_bytes: int
    """Of calls that are held against the schema one by one, as the JSON that they would be."""


def _columns_reasons(contract: Contract, item: ColumnCalls, max_bytes: int, room: _Room) -> tuple[Reason, ...]:
    problem = _shape_problem(contract, item, room)
    if problem:
        return (invalid("input.columns", "columns of as many values as there are rows", problem),)
    columns: dict[str, list[JsonValue] | array[float]] = {}
    constants: dict[str, JsonValue] = {}
    for name, column in item.arguments.items():
        try:
            value = _value(column, max_bytes)
        except InvalidJsonError as error:
            return (invalid("input.columns", f"JSON in the column {name[:60]}", str(error)),)
        if column.kind == "constant":
            constants[name] = value
        elif not isinstance(value, list | array) or len(value) != item.rows:
            got = f"{len(value)} values" if isinstance(value, list | array) else "no array"
            expected = f"{item.rows} values in the column {name[:60]}"
            return (invalid("input.columns", expected, got),)
        else:
            columns[name] = value
    found = contract.columns.argument_problems(item.function, item.rows, columns, constants)
    return tuple(invalid("input.schema", "arguments that fit the schema", each) for each in found)


def _shape_problem(contract: Contract, item: ColumnCalls, room: _Room) -> str:
    if contract.interface != "functions":
        return "columns for a plugin that has no functions: its interface is json"
    if not 0 < item.rows <= room.rows:
        return f"{item.rows} rows: 1 to {MOST_ROWS} are possible, in all items of a map"
    room.rows -= item.rows
    if contract.columns.row_by_row:
        room.single_bytes -= _single_bytes(item)
        if room.single_bytes < 0:
            return "more, as single calls, than an input may have bytes: its schema can only be held against these"
    for name, column in item.arguments.items():
        if column.kind == "float64" and len(column.content) != item.rows * _FLOAT_BYTES:
            return f"{len(column.content)} bytes of {item.rows} doubles in the column {name[:60]}"
    return call_problem({"function": item.function, "arguments": {}}, "/")


def _single_bytes(item: ColumnCalls) -> int:
    """About as many as its calls would have as JSON, each with all its arguments."""
    total = item.rows * (_CALL_BYTES + len(item.function))
    for column in item.arguments.values():
        total += len(column.content) * (item.rows if column.kind == "constant" else 1)
    return total


def _value(column: Column, max_bytes: int) -> Any:
    if column.kind == "float64":
        return array("d", column.content)
    return jsontext.loads(column.content, max_bytes=max_bytes, non_finite=True)


# --- what comes out --------------------------------------------------------------------------------------------------


class InvalidBatchError(Exception):
    """What a plugin's process gave is not the results of its batch; the argument says why."""


@dataclass(slots=True)
class _Results:
    """The parts of a batch of results, one after the other."""

    content: bytes
    at: int = field(default=0)
    told: int = field(default=0)

    def take(self, length: object) -> bytes:
        if type(length) is not int or not 0 <= length <= len(self.content) - self.at:
            raise InvalidBatchError("the results of the batch are cut off")
        self.at += length
        return self.content[self.at - length : self.at]

    def invalid(self, problem: str) -> ItemError:
        self.told += 1
        if self.told > MOST_TOLD:
            raise InvalidBatchError(f"more than {MOST_TOLD} of its results are no outputs; one of them: {problem}")
        return ItemError(output_invalid=problem[:_PROBLEM_CHARS])


def decode(
    contract: Contract, items: Sequence[Item], refused: Mapping[int, tuple[Reason, ...]], text: bytes
) -> list[Answer]:
    """What came of each item. Raises InvalidBatchError for what are not exactly the results of these items."""
    head, newline, content = text.partition(b"\n")
    try:
        # An entry for each item, and for each row that failed, of a few values each.
        entries = 1 + sum(1 if isinstance(item, bytes) else 1 + item.rows for item in items)
        value = jsontext.loads(head, max_bytes=max(len(head), 1), max_values=8 * entries)
    except InvalidJsonError as error:
        raise InvalidBatchError(f"the results of the batch: {error}") from error
    heads = value.get("items") if isinstance(value, dict) else None
    if not newline or not isinstance(heads, list) or len(heads) != len(items):
        raise InvalidBatchError(f"expected the results of {len(items)} items")
    results = _Results(content)
    answers = [
        ItemError(refused=refused[place]) if place in refused else _answer(contract, item, results, heads[place])
        for place, item in enumerate(items)
    ]
    if results.at != len(content):
        raise InvalidBatchError("there is something behind the results of the batch")
    return answers


def _answer(contract: Contract, item: Item, results: _Results, head: Any) -> Answer:
    match head:
        case {"error": error}:
            return _error(error, results)
        case {"json": length} if isinstance(item, bytes):
            text = results.take(length)
            problem = output_problem(contract, text, max(len(text), 1), _calls(contract, item))
            return results.invalid(problem) if problem else text
        case {"rows": rows, "values": dict(values), "errors": list(errors)} if (
            isinstance(item, ColumnCalls) and rows == item.rows and len(values) == 1
        ):
            return _column_answer(contract, item.rows, results, values, errors)
    raise InvalidBatchError("a result of the batch is malformed")


def _calls(contract: Contract, item: bytes) -> int | None:
    """Of how many function calls an input is a list; None: it is none. It was let through, so it is JSON."""
    listed = contract.interface == "functions" and item.lstrip().startswith(b"[")
    return len(json.loads(item)) if listed else None


def _column_answer(
    contract: Contract, rows: int, results: _Results, values: dict[str, Any], errors: list[Any]
) -> Answer:
    ((kind, length),) = values.items()
    column = Column("float64" if kind == "float64" else "values", results.take(length))
    found: dict[int, ItemError] = {}
    for entry in errors:
        match entry:
            case [row, error] if type(row) is int and 0 <= row < rows and row not in found:
                found[row] = _error(error, results)
            case _:
                raise InvalidBatchError("an error of a row is malformed")
    try:
        value = _results_of(column, kind, rows)
    except InvalidJsonError as error:
        return results.invalid(f"a column of results: {error}")
    for row, problem in contract.columns.result_problems(value, found):
        found[row] = results.invalid(problem)
    return ColumnAnswer(column, tuple(sorted(found.items(), key=lambda each: each[0])))


def _results_of(column: Column, kind: str, rows: int) -> list[JsonValue] | array[float]:
    """Raises InvalidJsonError for what a function can give that is no strict JSON, such as half a surrogate pair."""
    if kind == "float64" and len(column.content) == rows * _FLOAT_BYTES:
        return array("d", column.content)
    if kind == "values":
        value = jsontext.loads(column.content, max_bytes=max(len(column.content), 1), non_finite=True)
        if isinstance(value, list) and len(value) == rows:
            return value
    raise InvalidBatchError(f"expected a column of {rows} results")


def _error(error: Any, results: _Results) -> ItemError:
    match error:
        case {"kind": "E", "type": str(kind), "message": str(message)}:
            return ItemError(raised=PluginError(_text(kind), _text(message), ""))
        case {"kind": "I", "type": str(kind), "message": str(message)}:
            return results.invalid(f"the plugin returned something that is no JSON: {_text(f'{kind}: {message}')}")
    raise InvalidBatchError("an error of the batch is malformed")


def _text(text: str) -> str:
    """What can go on, into UTF-8 too: half a surrogate pair cannot."""
    return text[:_ERROR_CHARS].encode("utf-8", "replace").decode()
