"""What front and launcher say to each other (protocol.py) as bytes: one JSON object for each message, size-checked.

The launcher trusts none of it: exactly the known fields, each of its type and form, or an error. What they ask for is
held against profiles later.
"""

from __future__ import annotations

import json
import re
from typing import Any, NoReturn, get_args, get_type_hints

from plugind.errors import InvalidRequestError
from plugind.model import Limits, NetworkUse, Protocol, Violation, Wanted
from plugind.sandbox.protocol import MAX_MESSAGE_BYTES, MOST_KILLED, InstanceUse, Message, ParkedUse, ProcessUse

_TOKEN = re.compile(r"[A-Za-z0-9_-]{1,64}")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_KINDS: dict[str, type[Message]] = {kind.op: kind for kind in get_args(Message)}


def encode(message: Message) -> bytes:
    """The bytes of a message. Raises InvalidRequestError where it would be longer than MAX_MESSAGE_BYTES."""
    data = _encoder.encode({"op": message.op, **_plain(message)}).encode()
    if len(data) > MAX_MESSAGE_BYTES:
        raise InvalidRequestError(f"{message.op}: expected at most {MAX_MESSAGE_BYTES} bytes, got {len(data)}")
    return data


def decode(data: bytes) -> Message:
    """Parse and check one message. Raises InvalidRequestError for anything but exactly the known fields and types."""
    if len(data) > MAX_MESSAGE_BYTES:
        raise InvalidRequestError(f"message: expected at most {MAX_MESSAGE_BYTES} bytes, got {len(data)}")
    try:
        fields = json.loads(data.decode())  # of bytes json.loads would guess the encoding: UTF-16 as well
    except (ValueError, RecursionError) as error:
        raise InvalidRequestError(f"message: expected a JSON object: {error}") from error
    op = fields.pop("op", None) if isinstance(fields, dict) else None
    if not isinstance(op, str) or op not in _KINDS:
        raise InvalidRequestError("message: expected a JSON object with a known op")
    message: Message = _build(_KINDS[op], fields)
    return message


def _fields(kind: type[Any]) -> dict[str, Any]:
    return {
        name: hint
        for name, hint in get_type_hints(kind).items()
        if name not in {"op", "descriptors", "own_descriptors"}
    }


_FIELDS: dict[type[Any], dict[str, Any]] = {
    kind: _fields(kind)
    for kind in (*_KINDS.values(), Limits, NetworkUse, Violation, Wanted, InstanceUse, ParkedUse, ProcessUse)
}
"""Name → type of what each kind carries. To find it out for a message takes longer than all the rest."""


_encoder = json.JSONEncoder(separators=(",", ":"))
_OBJECTS = (Limits, NetworkUse, ProcessUse)
_LISTS: dict[Any, type[Any]] = {
    tuple[Violation, ...]: Violation,
    tuple[Wanted, ...]: Wanted,
    tuple[InstanceUse, ...]: InstanceUse,
    tuple[ParkedUse, ...]: ParkedUse,
}
_TEXTS = dict[str, str]
_RUNS = tuple[str, ...]


def _plain(message: Any) -> dict[str, Any]:
    # Not dataclasses.asdict, which copies whatever it meets: what messages carry is flat but for these.
    fields = {name: getattr(message, name) for name in _FIELDS[type(message)]}
    for name, hint in _FIELDS[type(message)].items():
        if hint in _OBJECTS:
            fields[name] = _plain(fields[name])
        elif hint in _LISTS:
            fields[name] = [_plain(each) for each in fields[name]]
    return fields


def _build(kind: type[Any], fields: dict[str, Any]) -> Any:
    hints = _FIELDS[kind]
    if fields.keys() != hints.keys():
        raise InvalidRequestError(f"{kind.__name__}: expected the fields {sorted(hints)}, got {sorted(fields)}")
    return kind(**{name: _value(kind, name, hint, fields[name]) for name, hint in hints.items()})


def _value(kind: type[Any], name: str, hint: Any, value: Any) -> Any:
    if hint in _OBJECTS and isinstance(value, dict):
        return _build(hint, value)
    if hint in _LISTS and isinstance(value, list):
        item = _LISTS[hint]
        return tuple(_build(item, each) if isinstance(each, dict) else _wrong(kind, name, each) for each in value)
    if hint == _RUNS and isinstance(value, list) and len(value) <= MOST_KILLED:
        return tuple(each if _fits("run", str, each) else _wrong(kind, name, each) for each in value)
    return value if _fits(name, hint, value) else _wrong(kind, name, value)


def _fits(name: str, hint: Any, value: Any) -> bool:
    if hint is int:
        # 2**53 nanoseconds are 104 days, and machines run for longer; no other number is as large.
        return type(value) is int and -(2**31) <= value < (2**63 if name.endswith("_ns") else 2**53)
    if hint is str:
        return isinstance(value, str) and _text_fits(name, value)
    if hint == _TEXTS:
        return isinstance(value, dict) and all(isinstance(text, str) for text in value.values())
    return hint == Protocol and value in get_args(Protocol)


def _wrong(kind: type[Any], name: str, value: object) -> NoReturn:
    raise InvalidRequestError(f"{kind.__name__}.{name}: not a valid value: {value!r:.80}")


def _text_fits(name: str, value: str) -> bool:
    if name == "run":
        return _TOKEN.fullmatch(value) is not None
    if name == "digest" or (name == "environment" and value):
        return _DIGEST.fullmatch(value) is not None
    return len(value) <= 4096 and "\0" not in value
