"""A batch: many inputs, or their results, in one text that begins with a line of JSON which says what follows it.

    {"items":[{"json":17},{"function":"cost","rows":2,"columns":{"a":{"float64":16},"b":{"constant":3}}}]}

`json` is one input, `float64`, `values` and `constant` are a column: IEEE 754 doubles (little-endian), a JSON array,
one JSON value for every row; `{"refused":true}` stands for an item that was not let through. A number is the length of
its part in bytes; parts follow each other in the order of the line. A result is `{"json":N}`, `{"error":ERROR}` or
`{"rows":N,"values":{…},"errors":[[ROW,ERROR],…]}`, where ERROR is `{"kind","type","message"}`, kind "E": it raised,
"I": what it returned is no JSON.
"""

from __future__ import annotations

import itertools
import json
import math
from array import array
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from plugind.sandbox.inside.functions import Plugin, describe, encode


def answer(plugin: Plugin, batch: bytes) -> bytes:
    """The results of a batch. Raises what ends a whole run: a BaseException that is no Exception."""
    head, _, parts = batch.partition(b"\n")
    reader = _Reader(parts)
    results, texts = [], []
    for item in json.loads(head)["items"]:
        if "refused" in item:
            result, text = item, b""
        elif "columns" in item:
            result, text = _columns(plugin, item, reader)
        else:
            result, text = _input(plugin, reader.take(item["json"]))
        results.append(result)
        texts.append(text)
    return b"".join([encode({"items": results}), b"\n", *texts])


class _Reader:
    """The parts of a batch, one after the other."""

    def __init__(self, parts: bytes) -> None:
        self._parts = memoryview(parts)

    def take(self, length: int) -> memoryview:
        part, self._parts = self._parts[:length], self._parts[length:]
        return part


def _input(plugin: Plugin, text: memoryview) -> tuple[dict[str, Any], bytes]:
    try:
        value = plugin.answer(plugin.load(bytes(text)))
    except Exception as error:
        return {"error": _raised(error)}, b""
    try:
        shown = plugin.encode(value)
    except Exception as error:
        return {"error": _no_json(error)}, b""
    return {"json": len(shown)}, shown


def _columns(plugin: Plugin, item: dict[str, Any], reader: _Reader) -> tuple[dict[str, Any], bytes]:
    rows = item["rows"]
    columns = {
        name: _values(kind, bytes(reader.take(length)), rows)
        for name, column in item["columns"].items()
        for kind, length in column.items()
    }
    try:
        function = plugin.function(item["function"])
    except AttributeError as error:
        return {"error": _raised(error)}, b""
    values: list[Any] = []
    errors: dict[int, dict[str, str]] = {}
    for value in _each(_by_position(function, columns, rows), rows, values):
        errors[len(values)] = _raised(value)
        values.append(None)
    kind, text = _encoded(plugin, values, errors)
    found = [[row, errors[row]] for row in sorted(errors)]
    return {"rows": rows, "values": {kind: len(text)}, "errors": found}, text


def _values(kind: str, text: bytes, rows: int) -> Iterable[Any]:
    if kind == "float64":
        return array("d", text)
    value = json.loads(text)
    if kind == "values":
        return list(value)
    if isinstance(value, list | dict):
        # A row of its own: what one call does to its argument no other one is to see.
        return (json.loads(text) for _ in range(rows))
    return itertools.repeat(value, rows)


def _by_position(function: Callable[..., object], columns: dict[str, Iterable[object]], rows: int) -> Iterator[object]:
    """Calls of the function, row by row. An exception ends one call, and the next one may be asked for."""
    if not columns:
        return map(lambda _: function(), range(rows))  # noqa: C417 - an exception would be the end of a generator
    code = function.__code__
    names = code.co_varnames[: code.co_argcount]
    if code.co_posonlyargcount == 0 and set(names[: len(columns)]) == set(columns):
        return map(function, *(columns[name] for name in names[: len(columns)]))
    given = tuple(columns)

    def call(*row: object) -> object:
        return function(**dict(zip(given, row, strict=True)))

    return map(call, *columns.values())


def _each(calls: Iterator[object], rows: int, values: list[Any]) -> Iterator[Exception]:
    """Fill `values`; yields what a call raised, whose place whoever asked for it fills."""
    while len(values) < rows:
        try:
            values.extend(calls)  # in C; what came before an exception stays
            if len(values) < rows:
                # To raise StopIteration is to say that there is no further row.
                yield StopIteration()
        except Exception as error:
            yield error


def _encoded(plugin: Plugin, values: list[Any], errors: dict[int, dict[str, str]]) -> tuple[str, bytes]:
    """Kind and text of a column of results."""
    kinds = (
        set(map(type, values)) if not errors else {type(value) for row, value in enumerate(values) if row not in errors}
    )
    if kinds == {float}:
        for row in errors:
            values[row] = math.nan
        return "float64", array("d", values).tobytes()
    try:
        return "values", plugin.encode(values)
    except Exception:
        shown = []
        for row, value in enumerate(values):
            try:
                shown.append(plugin.encode(value))
            except Exception as error:
                errors[row] = _no_json(error)
                shown.append(b"null")
        return "values", b"[" + b",".join(shown) + b"]"


def _raised(error: Exception) -> dict[str, str]:
    shown = describe(error)
    return {"kind": "E", "type": shown["type"], "message": shown["message"]}


def _no_json(error: Exception) -> dict[str, str]:
    return {**_raised(error), "kind": "I"}
