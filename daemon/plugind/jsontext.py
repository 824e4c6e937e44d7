"""Strict JSON: limits are checked before anything is parsed, and what RFC 8259 leaves open is refused.

Refused: bytes that are not UTF-8, a byte order mark, duplicate keys, lone surrogates, NaN and infinities, floats that
overflow, integers of more than 4300 digits. Integers stay exact. Source: RFC 8259, RFC 7493 (I-JSON).
"""

from __future__ import annotations

import itertools
import json
import math
import re
from collections.abc import Iterator
from typing import Final, TypeAlias

from plugind.errors import InvalidJsonError

JsonValue: TypeAlias = "bool | int | float | str | list[JsonValue] | dict[str, JsonValue] | None"

MAX_DEPTH: Final = 64
MAX_VALUES: Final = 2_000_000

_CHUNK_BYTES = 64 * 1024
_NOT_BRACKETS = bytes(byte for byte in range(256) if byte not in b"[]{}")
_DEPTH_CHANGE = [1 if byte in b"[{" else -1 for byte in range(256)]
_SURROGATE_ESCAPE = re.compile(rb"\\u[dD][89a-fA-F]")


def loads(
    data: bytes,
    *,
    max_bytes: int,
    max_depth: int = MAX_DEPTH,
    max_values: int = MAX_VALUES,
    non_finite: bool = False,
) -> JsonValue:
    """Parse one JSON text of at most `max_bytes` bytes, `max_depth` levels and about `max_values` values.

    `non_finite` allows the literals NaN, Infinity and -Infinity (the "functions" interface).
    Raises InvalidJsonError, with line and column where the parser knows them.
    """
    _check_limits(data, max_bytes, max_depth, max_values)
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InvalidJsonError(f"expected UTF-8, got byte 0x{data[error.start]:02x} at offset {error.start}") from error
    value = _parse(text, non_finite=non_finite)
    if _SURROGATE_ESCAPE.search(data):
        _refuse_lone_surrogates(value)
    return value


def dumps(value: JsonValue, *, non_finite: bool = False) -> bytes:
    """Compact UTF-8 JSON of a value. Raises InvalidJsonError for what `loads` would refuse, but for size and depth."""
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=non_finite, separators=(",", ":"))
        return text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InvalidJsonError("expected Unicode text, got a lone surrogate in a string") from error
    except RecursionError as error:
        raise InvalidJsonError("nested too deeply") from error
    except (TypeError, ValueError) as error:
        raise InvalidJsonError(f"not a JSON value: {error}") from error


def _check_limits(data: bytes, max_bytes: int, max_depth: int, max_values: int) -> None:
    if len(data) > max_bytes:
        raise InvalidJsonError(f"expected at most {max_bytes} bytes, got {len(data)}")
    if data.startswith(b"\xef\xbb\xbf"):
        raise InvalidJsonError("expected UTF-8 without a byte order mark")
    if data.count(b"[") + data.count(b"{") + data.count(b",") <= min(max_depth, max_values):
        return
    depth = deepest = values = 0
    for part in _structure(data):
        brackets = part.translate(None, _NOT_BRACKETS)
        levels = list(itertools.accumulate(map(_DEPTH_CHANGE.__getitem__, brackets), initial=depth))
        depth = levels[-1]
        deepest = max(deepest, *levels)
        values += part.count(b",") + part.count(b"[") + part.count(b"{")
    if deepest > max_depth:
        raise InvalidJsonError(f"expected at most {max_depth} levels of nesting, got {deepest}")
    if values > max_values:
        raise InvalidJsonError(f"expected at most {max_values} values, got about {values}")


def _structure(data: bytes, chunk_bytes: int = _CHUNK_BYTES) -> Iterator[bytes]:
    """What is not in strings, where brackets and commas are text.

    In pieces, because cutting all of it up at once would take thirty times the memory of the text. If a string does not
    end, all the rest goes, which the parser does not reach either; nor does it get beyond a backslash out of a string.
    """
    unescaped = data.replace(b"\\\\", b"").replace(b'\\"', b"")  # from here on each quote begins or ends a string
    inside = 0
    for start in range(0, len(unescaped), chunk_bytes):
        parts = unescaped[start : start + chunk_bytes].split(b'"')
        yield b"".join(parts[inside::2])
        inside ^= len(parts) - 1 & 1


def _parse(text: str, *, non_finite: bool) -> JsonValue:
    try:
        value: JsonValue = json.loads(
            text,
            object_pairs_hook=_object,
            parse_float=_finite,
            parse_constant=float if non_finite else _refuse_constant,
        )
    except json.JSONDecodeError as error:
        raise InvalidJsonError(f"line {error.lineno} column {error.colno}: {_lower(error.msg)}") from error
    except RecursionError as error:
        raise InvalidJsonError("nested too deeply") from error
    except ValueError as error:
        # int() of a text with more than sys.get_int_max_str_digits() digits.
        raise InvalidJsonError("expected an integer of at most 4300 digits, got a longer one") from error
    return value


def _lower(message: str) -> str:
    return message[:1].lower() + message[1:]


def _object(pairs: list[tuple[str, JsonValue]]) -> JsonValue:
    result = dict(pairs)
    if len(result) != len(pairs):
        seen: set[str] = set()
        double = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise InvalidJsonError(f"duplicate key {_shown(double)}")
    return result


def _finite(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise InvalidJsonError(f"number {_shown(text)} does not fit into a 64-bit float")
    return number


def _refuse_constant(text: str) -> float:
    raise InvalidJsonError(f"{text} is not JSON")


def _shown(text: str, limit: int = 60) -> str:
    shown = ascii(text)
    return shown if len(shown) <= limit else f"{shown[:limit]}…"


def _refuse_lone_surrogates(value: JsonValue) -> None:
    try:
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError as error:
        raise InvalidJsonError("a string holds a lone surrogate (\\ud800 to \\udfff without its pair)") from error
