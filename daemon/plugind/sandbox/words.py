"""What the launcher says and what it is told: a line of its log, a text that fits a message, a message of strangers."""

from __future__ import annotations

import contextlib
import json
import os
from typing import Any


def log(text: str) -> None:
    """One line on standard error, which systemd or the person at the terminal sees."""
    # The descriptor and not sys.stderr, whose own descriptor a test's capturing had and the launcher closed.
    with contextlib.suppress(OSError):  # whoever read it is gone, as a terminal can be: that is no reason to end
        os.write(2, f"plugind-launcher: {text}\n".encode(errors="replace"))


def short(text: object) -> str:
    """What fits into a field of a message to the front (protocol.py)."""
    return str(text).replace("\0", "?")[:1000]


def parse(data: bytes) -> dict[str, Any]:
    """A JSON object of a zygote or an instance; what is none is an empty one."""
    try:
        message = json.loads(data)
    except (ValueError, RecursionError):
        return {}
    return message if isinstance(message, dict) else {}


def is_exit_code(number: int) -> bool:
    """Whether a process can end with it. True is an int too, and no message may carry it."""
    return type(number) is int and -64 <= number <= 255
