"""JSON Schema 2020-12, compiled once and used for many values, without ever leaving the document.

The engine is jsonschema-rs with linear-time regular expressions (no lookaround, no back-references). What would make
it fetch, or work for longer than the value deserves, is refused before it sees the schema. `format` is an annotation.
Source: https://json-schema.org/draft/2020-12/json-schema-core
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import jsonschema_rs

from plugind import jsontext, schemacost
from plugind.errors import InvalidJsonError, InvalidSchemaError
from plugind.jsontext import JsonValue

MAX_SCHEMA_BYTES: Final = 256 * 1024
DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
CHEAP: Final = 20
"""A schema with at most so many evaluations at one place is used without measuring the value."""
MAX_EVALUATIONS: Final = 50_000_000
"""Evaluations one value may need: one or two seconds."""
MAX_VALUES_FOR_ALL_ERRORS: Final = 20_000
"""A larger value gets its first error only."""
MAX_WORK_FOR_ALL_ERRORS: Final = 2_000_000
"""Values times values of the schema, for the same reason: each error carries its part of the schema (a long enum)."""
MAX_PATTERN_BYTES: Final = 2 * 1024 * 1024
"""Of one compiled regular expression. Above it linear time is too long: nested repetitions took minutes for 5 KB."""
_SHOWN: Final = 200
_MASK: Final = "\x00"
_REFERENCES: Final = ("$ref", "$dynamicRef", "$recursiveRef")


@dataclass(frozen=True, slots=True)
class Schema:
    """A compiled schema. `evaluations`: most subschemas met at one place of a value, by its depth."""

    where: str
    document: JsonValue
    evaluations: tuple[int, ...]
    _values: int
    _validator: jsonschema_rs.Draft202012Validator

    @classmethod
    def parse(cls, text: bytes, where: str) -> Schema:
        """Compile the schema in `text`; `where` names it in messages. Raises InvalidSchemaError."""
        try:
            document = jsontext.loads(text, max_bytes=MAX_SCHEMA_BYTES)
        except InvalidJsonError as error:
            raise InvalidSchemaError(f"{where}: {error}") from error
        if not isinstance(document, dict | bool):
            expected = "expected a JSON Schema (an object, true or false)"
            raise InvalidSchemaError(f"{where}: {expected}, got {kind(document)}")
        refused = list(_refused(document, ""))
        if refused:
            raise InvalidSchemaError(f"{where}: {'; '.join(refused[:10])}")
        validator = _compile(document, where)
        try:
            evaluations = schemacost.evaluations(document, jsontext.MAX_DEPTH)
        except InvalidSchemaError as error:
            raise InvalidSchemaError(f"{where}: {error}") from error
        return cls(where, document, evaluations, measure(document)[1], validator)

    def errors(self, value: JsonValue, limit: int = 10, *, non_finite: bool = False) -> list[str]:
        """Why `value` does not fit, at most `limit` sentences; empty when it does.

        `non_finite` takes NaN and infinities for numbers: infinities compare as the largest float, NaN as if it were
        above every maximum.
        """
        if non_finite:
            value = _without_non_finite(value)
        if problem := self._unaffordable(value):
            return [problem]
        try:
            if self._validator.is_valid(value):
                return []
            return [_sentence(error, value) for error in self._found(value)[:limit]]
        except (ValueError, OverflowError, RecursionError) as error:
            return [f"at /: cannot be checked: {_short(str(error))}"]

    def _unaffordable(self, value: JsonValue) -> str:
        if max(self.evaluations) <= CHEAP:
            return ""
        levels, count = measure(value)
        if levels >= len(self.evaluations):
            return f"at /: nested too deeply (expected at most {len(self.evaluations) - 1} levels)"
        if count * max(self.evaluations[: levels + 1]) > MAX_EVALUATIONS:
            return f"at /: {count} values on {levels} levels are too many for this schema (expected fewer alternatives)"
        return ""

    def _found(self, value: JsonValue) -> list[jsonschema_rs.ValidationError]:
        # iter_errors makes every error before the first is handed over: 500,000 took 5 s and 700 MB.
        count = measure(value)[1]
        if count <= MAX_VALUES_FOR_ALL_ERRORS and count * self._values <= MAX_WORK_FOR_ALL_ERRORS:
            return sorted(self._validator.iter_errors(value), key=_order)
        try:
            self._validator.validate(value)
        except jsonschema_rs.ValidationError as error:
            return [error]
        return []


def kind(value: JsonValue) -> str:
    """What a JSON value is, in JSON's words."""
    names = {type(None): "null", bool: "a boolean", str: "a string", list: "an array", dict: "an object"}
    return names.get(type(value), "a number")


def measure(value: JsonValue) -> tuple[int, int]:
    """Levels of arrays and objects in a value (a scalar has none), and how many values there are in all."""
    levels, count = 0, 1
    layer = [value]
    while layer := [item for item in layer if isinstance(item, list | dict)]:
        levels += 1
        layer = [child for item in layer for child in (item.values() if isinstance(item, dict) else item)]
        count += len(layer)
    return levels, count


def _refused(node: JsonValue, place: str) -> Iterator[str]:
    """What a schema may not say, anywhere in it, even where it would be data."""
    if isinstance(node, list):
        for index, child in enumerate(node):
            yield from _refused(child, f"{place}/{index}")
    if not isinstance(node, dict):
        return
    for key, child in node.items():
        here = f"{place}/{_escape(key)}"
        if isinstance(child, str):
            if key in _REFERENCES and not child.startswith("#"):
                yield f"at {here}: expected a reference within this document (#…), got {_short(repr(child))}"
            if key == "$id":
                yield f"at {here}: $id is not allowed, references stay within this document"
            if key == "$schema" and child.rstrip("#") != DIALECT:
                yield f"at {here}: expected {DIALECT}, got {_short(repr(child))}"
        yield from _refused(child, here)


def _fetch_nothing(uri: str) -> Any:
    raise ValueError(f"reference outside this document: {uri}")


def _compile(document: dict[str, JsonValue] | bool, where: str) -> jsonschema_rs.Draft202012Validator:
    try:
        return jsonschema_rs.Draft202012Validator(
            document,
            retriever=_fetch_nothing,
            pattern_options=jsonschema_rs.RegexOptions(size_limit=MAX_PATTERN_BYTES),
            mask=_MASK,
        )
    except jsonschema_rs.ValidationError as error:
        hint = ""
        if error.kind.name == "format":
            hint = " (a small, linear-time regular expression: no lookaround, no back-references)"
        text = f"at {_pointer(error.instance_path)}: {_message(error, document)}{hint}"
        raise InvalidSchemaError(f"{where}: not a JSON Schema 2020-12: {text}") from error
    except (ValueError, OverflowError, jsonschema_rs.ReferencingError) as error:
        raise InvalidSchemaError(f"{where}: not a JSON Schema 2020-12: {_short(str(error))}") from error


def _without_non_finite(value: JsonValue) -> JsonValue:
    # jsonschema-rs takes non-finite floats for null.
    if isinstance(value, float) and not math.isfinite(value):
        return -sys.float_info.max if value < 0 else sys.float_info.max
    if isinstance(value, list):
        return [_without_non_finite(item) for item in value]
    if isinstance(value, dict):
        return {key: _without_non_finite(item) for key, item in value.items()}
    return value


def _order(error: jsonschema_rs.ValidationError) -> list[tuple[bool, int, str]]:
    return [(isinstance(part, str), 0 if isinstance(part, str) else part, str(part)) for part in error.instance_path]


def _sentence(error: jsonschema_rs.ValidationError, value: JsonValue) -> str:
    text = f"at {_pointer(error.instance_path)}: {_message(error, value)}{_expected(error)}"
    nearest = _nearest(error)
    return f"{text}; nearest: {_sentence(nearest, value)}" if nearest else text


def _message(error: jsonschema_rs.ValidationError, value: JsonValue) -> str:
    """The validator's words with the value cut short: the engine was told to write a mask instead of it."""
    return _short(error.message).replace(_MASK, _quoted(_at(value, error.instance_path)))


def _at(value: JsonValue, path: list[str | int]) -> JsonValue:
    for part in path:
        if isinstance(value, dict) and isinstance(part, str):
            value = value.get(part)
        elif isinstance(value, list) and isinstance(part, int):
            value = value[part]
    return value


def _quoted(value: JsonValue) -> str:
    if isinstance(value, list | dict):
        return f"{kind(value)} of {len(value)}"
    return _short(jsontext.dumps(value, non_finite=True).decode())


def _expected(error: jsonschema_rs.ValidationError) -> str:
    name, value = error.kind.name, error.kind.value
    if name == "falseSchema":
        # An object that may have no member at all is told like this, too, and under its own path.
        return (
            " (expected no members)"
            if error.schema_path[-1:] == ["additionalProperties"]
            else " (expected nothing here)"
        )
    if name in ("oneOf", "anyOf", "not") or isinstance(value, BaseException) or value is None:
        return f" (expected {name})"
    if name in ("additionalProperties", "unevaluatedProperties", "unevaluatedItems"):
        return " (expected no such member)"
    return f" (expected {name} {_short(_shown(value))})"


def _shown(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(str(item) for item in value)
    return str(value)


def _nearest(error: jsonschema_rs.ValidationError) -> jsonschema_rs.ValidationError | None:
    """The alternative that got furthest into the value says more than "none of them"."""
    branches: list[list[jsonschema_rs.ValidationError]] | None = getattr(error.kind, "context", None)
    if error.kind.name not in ("oneOf", "anyOf") or not branches:
        return None
    candidates = [branch for branch in branches if branch]
    if not candidates:
        return None
    best = max(candidates, key=lambda branch: (max(len(e.instance_path) for e in branch), -len(branch)))
    return max(best, key=lambda e: len(e.instance_path))


def _pointer(path: list[str | int]) -> str:
    return "/" + "/".join(_escape(str(part)) for part in path)


def _escape(part: str) -> str:
    return part.replace("~", "~0").replace("/", "~1")


def _short(text: str) -> str:
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
