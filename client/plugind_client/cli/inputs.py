"""Reading what a plugin gets: a file, standard input, or one of its own cases."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from plugind_client.cli.problems import CommandError, Exit


def read_input(name: str | None) -> bytes:
    """The JSON text of --input: a file, `-` for standard input, and `{}` without it. It is checked, not changed.

    Raises:
        CommandError: it cannot be read, or is no JSON; the message tells where.
    """
    if name is None:
        return b"{}"
    where = "standard input" if name == "-" else name
    try:
        text = sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()
    except OSError as error:
        raise CommandError(Exit.USAGE, f"{where}: cannot be read: {error.strerror}") from None
    check_json(text, where)
    return text


def check_json(text: bytes, where: str) -> None:
    """Whether it is JSON at all; what is allowed beyond that is the daemon's decision.

    Raises:
        CommandError: it is not; with line and column.
    """
    if not text.strip():
        raise CommandError(Exit.USAGE, f"{where}: expected JSON, got nothing", code="PAYLOAD_NOT_JSON")
    try:
        json.loads(text.decode())
    except json.JSONDecodeError as error:
        message = f"{where}: line {error.lineno}, column {error.colno}: expected JSON: {error.msg}"
        raise CommandError(Exit.USAGE, message, code="PAYLOAD_NOT_JSON") from None
    except UnicodeDecodeError as error:
        message = f"{where}: expected UTF-8, got byte 0x{text[error.start]:02x} at offset {error.start}"
        raise CommandError(Exit.USAGE, message, code="PAYLOAD_NOT_JSON") from None
    except (ValueError, RecursionError) as error:
        raise CommandError(Exit.USAGE, f"{where}: {error}", code="PAYLOAD_NOT_JSON") from None


def same_json(one: object, other: object) -> bool:
    """Whether two JSON values are the same: true is not 1, but 1.0 is 1; NaN is itself."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same_json(value, other[key]) for key, value in one.items())
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same_json, one, other))
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, float) and one != one:  # noqa: PLR0124 - the definition of NaN
        return isinstance(other, float) and other != other  # noqa: PLR0124
    return one == other
