"""Whether columns of arguments, and of results, fit the schemas of a plugin of functions. Pure.

A column at a time where the schema has the shape that generated bundles have, row by row with any other.
"""

from __future__ import annotations

import json
import math
from array import array
from collections.abc import Container, Iterator, Mapping, Sequence
from typing import Any, Final, TypeAlias

from plugind.errors import InvalidSchemaError
from plugind.jsontext import JsonValue
from plugind.schema import Schema

Values: TypeAlias = "Sequence[JsonValue] | array[float]"
_MOST: Final = 3
"""Problems that are told of one column, or of all rows."""
_ANNOTATIONS: Final = frozenset({"$schema", "$comment", "title", "description", "default", "examples"})
_ANY_CALL: Final = {"$ref": "#/$defs/*"}


class ColumnChecks:
    """What the schemas of one version say of columns. Compiles a parameter's schema when it first meets it."""

    def __init__(self, input_schema: Schema | None, output_schema: Schema | None) -> None:
        self._input = None if input_schema is None or _says_nothing(input_schema.document) else input_schema
        self._output = None if output_schema is None or _says_nothing(output_schema.document) else output_schema
        self._calls = None if self._input is None else _calls(self._input.document)
        self._compiled: dict[tuple[str, str], Schema | None] = {}

    def argument_problems(
        self, function: str, rows: int, columns: Mapping[str, Values], constants: Mapping[str, JsonValue]
    ) -> list[str]:
        """Why these arguments do not fit; empty when every row does."""
        if self._input is None:
            return []
        if self._calls is None:
            return list(_row_by_row(self._input, function, rows, columns, constants))
        call = self._calls.get(function)
        if call is None:
            known = ", ".join(sorted(self._calls))
            return [f"there is no function {function[:60]}: expected one of {known[:400]}"]
        given = {**columns, **{name: [value] for name, value in constants.items()}}
        missing = sorted(set(call.get("required", ())) - set(given))
        found = [f"the parameter {missing[0]} has no column"] if missing else []
        for name, values in given.items():
            found.extend(f"in the column {name[:60]}: {each}" for each in self._column(function, call, name, values))
        return found[: 2 * _MOST]

    def _column(self, function: str, call: Mapping[str, Any], name: str, values: Values) -> list[str]:
        key = (function, name if name in call.get("properties", ()) else "")
        if key not in self._compiled:
            self._compiled[key] = _compiled(self._input, call, name)
        schema = self._compiled[key]
        if schema is None or (isinstance(values, array) and _takes_numbers(schema.document)):
            return []
        finite = isinstance(values, array) and math.isfinite(sum(values))
        return schema.errors(list(values), _MOST, non_finite=not finite)

    @property
    def row_by_row(self) -> bool:
        """Whether arguments have to be put together as calls, one after the other, to be checked."""
        return self._input is not None and self._calls is None

    def result_problems(self, values: Values, without: Container[int] = ()) -> Iterator[tuple[int, str]]:
        """Rows whose result breaks the output schema, each with why. `without`: rows that have none."""
        if self._output is None:
            return
        for row, value in enumerate(values):
            if row not in without and (found := self._output.errors(value, non_finite=True)):
                yield row, "output: " + "; ".join(found)


def _row_by_row(
    schema: Schema, function: str, rows: int, columns: Mapping[str, Values], constants: Mapping[str, JsonValue]
) -> Iterator[str]:
    told = 0
    for row in range(rows):
        arguments = {**{name: values[row] for name, values in columns.items()}, **constants}
        for problem in schema.errors({"function": function, "arguments": arguments}, 1, non_finite=True):
            yield f"in row {row}: {problem}"
            told += 1
        if told >= _MOST:
            return


def _compiled(whole: Schema | None, call: Mapping[str, Any], name: str) -> Schema | None:
    """The schema of a column of one parameter; None: every value fits."""
    others = call.get("additionalProperties", True)
    one = call.get("properties", {}).get(name, others)
    if one is True or one == {}:
        return None
    document: dict[str, Any] = {"type": "array", "items": one}
    if one is False:
        document = {"type": "array", "maxItems": 0, "description": "no parameter of this name"}
    if "$ref" in json.dumps(one) and whole is not None and isinstance(whole.document, dict):
        document["$defs"] = whole.document.get("$defs", {})
    try:
        return Schema.parse(json.dumps(document).encode(), f"schema of {name}")
    except InvalidSchemaError:
        return Schema.parse(b"false", f"schema of {name}")  # what cannot be checked is not let through


def _takes_numbers(document: JsonValue) -> bool:
    """Whether the schema of a column says no more than that there are numbers."""
    one = document.get("items") if isinstance(document, dict) else None
    if not isinstance(one, dict) or set(one) - _ANNOTATIONS != {"type"}:
        return False
    return one["type"] == "number" or (isinstance(one["type"], list) and "number" in one["type"])


def _says_nothing(document: JsonValue) -> bool:
    return document is True or (isinstance(document, dict) and not set(document) - _ANNOTATIONS - {"$defs"})


def _calls(document: Any) -> dict[str, dict[str, Any]] | None:
    """Function → schema of its arguments, where the schema says exactly: one of these calls, or a list of them.

    None for a schema of any other shape, whatever it means.
    """
    match document:
        case {
            "anyOf": [one, {"type": "array", "items": many, **nothing}],
            "$defs": {"*": any_call, **calls},
            **rest,
        } if one == many == _ANY_CALL and not nothing and not set(rest) - _ANNOTATIONS:
            listed = any_call.get("anyOf", [any_call]) if isinstance(any_call, dict) else []
            if sorted(map(str, listed)) != sorted(str({"$ref": f"#/$defs/{name}"}) for name in calls):
                return None
            found: dict[str, dict[str, Any]] = {}
            for name, call in calls.items():
                arguments = _arguments(str(name), call)
                if arguments is None:
                    return None
                found[str(name)] = arguments
            return found
    return None


def _arguments(name: str, call: Any) -> dict[str, Any] | None:
    match call:
        case {
            "type": "object",
            "properties": {
                "function": {"const": const, **no_more},
                "arguments": {"type": "object"} as arguments,
                **others,
            },
            "required": [*_],
            "additionalProperties": False,
            **rest,
        } if const == name and not (no_more or others or set(rest) - _ANNOTATIONS):
            said = set(arguments) - _ANNOTATIONS
            return arguments if said <= {"type", "properties", "required", "additionalProperties"} else None
    return None
