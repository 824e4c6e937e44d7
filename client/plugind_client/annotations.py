"""Annotations of generated code as JSON Schema: what is known to be JSON is checked, all else may be anything."""

from __future__ import annotations

import ast
import json
from collections.abc import Callable, Mapping
from typing import Any, Final

from plugind_client.parsing import parse

MAX_LEVELS: Final = 6
"""Deeper parts of an annotation are not checked: a schema has an end, and so has what one may cost."""
MAX_CHOICES: Final = 20
"""Of a union or Literal; more are not checked."""

_TYPES: Final[Mapping[str, str]] = {
    "float": "number",  # of interface "functions", and there only, NaN and infinities are numbers too
    "int": "integer",
    "bool": "boolean",
    "str": "string",
    "None": "null",
    **dict.fromkeys(("list", "List", "tuple", "Tuple", "Sequence", "Iterable", "Collection"), "array"),
    **dict.fromkeys(("dict", "Dict", "Mapping", "MutableMapping"), "object"),
}


def schema_of(annotation: ast.expr | None, default: ast.expr | None) -> Any:
    """JSON Schema of a parameter. `x: float = None` takes null as well, although its annotation does not say so."""
    schema = True if annotation is None else _schema(annotation, MAX_LEVELS)
    if isinstance(default, ast.Constant) and default.value is None:
        return _any_of([schema, {"type": "null"}])
    return schema


def _schema(node: ast.expr, levels: int) -> Any:
    match node if levels else None:
        case ast.Constant(value=None):
            return {"type": "null"}
        case ast.Constant(value=str() as text):
            return _quoted(text, levels)
        case ast.Name() | ast.Attribute():
            kind = _TYPES.get(_name(node))
            return {"type": kind} if kind else True
        case ast.BinOp(left=left, op=ast.BitOr(), right=right):
            return _any_of([_schema(left, levels - 1), _schema(right, levels - 1)])
        case ast.Subscript(value=outer, slice=inner):
            return _subscript(_name(outer), inner.elts if isinstance(inner, ast.Tuple) else [inner], levels - 1)
        case _:
            return True


def _quoted(text: str, levels: int) -> Any:
    """An annotation that is written as a string."""
    try:
        return _schema(parse(text.strip(), mode="eval").body, levels - 1)
    except (SyntaxError, ValueError, RecursionError, MemoryError, SystemError):
        return True


def _subscript(outer: str, inner: list[ast.expr], levels: int) -> Any:
    special: Callable[[list[ast.expr], int], Any] | None = {
        "Optional": lambda parts, left: _any_of([*(_schema(part, left) for part in parts), {"type": "null"}]),
        "Union": lambda parts, left: _any_of([_schema(part, left) for part in parts]),
        "Annotated": lambda parts, left: _schema(parts[0], left) if parts else True,
        "Literal": lambda parts, _: _literal(parts),
    }.get(outer)
    if special:
        return special(inner, levels)
    kind = _TYPES.get(outer)
    if kind == "array" and len(inner) == 1 and outer not in ("tuple", "Tuple"):
        return {"type": kind, "items": _schema(inner[0], levels)}
    if kind == "object" and len(inner) == 2:
        return {"type": kind, "additionalProperties": _schema(inner[1], levels)}
    return {"type": kind} if kind else True


def _literal(parts: list[ast.expr]) -> Any:
    values = [part.value for part in parts if isinstance(part, ast.Constant)]
    plain = all(map(_is_plain, values))
    return {"enum": values} if values and plain and len(values) == len(parts) <= MAX_CHOICES else True


def _is_plain(value: object) -> bool:
    """Whether JSON can say it, and all its parsers agree about it."""
    if isinstance(value, str):
        return not any("\ud800" <= character <= "\udfff" for character in value)
    return value is None or (isinstance(value, int) and abs(value) < 2**53)


def _any_of(schemas: list[Any]) -> Any:
    """One of these; anything where one of them is anything."""
    flat = [part for each in schemas for part in (each["anyOf"] if _is_choice(each) else [each])]
    # By their text: there are as many as a stranger likes, and to Python 1 and true are the same.
    different = list({json.dumps(part): part for part in flat}.values())
    if True in different or len(different) > MAX_CHOICES:
        return True
    return different[0] if len(different) == 1 else {"anyOf": different}


def _is_choice(schema: Any) -> bool:
    return isinstance(schema, dict) and "anyOf" in schema


def _name(node: ast.expr) -> str:
    """`float`, or the last part of `typing.Optional`."""
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""
