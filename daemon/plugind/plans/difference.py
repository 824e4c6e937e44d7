"""How one text became another: a unified diff, bounded in size and in the time that it takes. Pure."""

from __future__ import annotations

import difflib
from typing import Final

MOST_TEXT_BYTES: Final = 256 * 1024
MOST_LINES: Final = 4000
"""Of each of both texts. Two made to be slow to compare take half a second then; a plugin may have written them."""
MOST_DIFFERENCE_BYTES: Final = 64 * 1024
_NO_NEWLINE: Final = "\\ No newline at end of file\n"


def difference(before: bytes, after: bytes, name_before: str, name_after: str) -> str:
    """What to change in one to have the other, at most MOST_DIFFERENCE_BYTES.

    Empty: nothing, or one of both is no text (UTF-8), or has more bytes or lines than are compared.
    """
    texts = [_lines(before), _lines(after)]
    if texts[0] is None or texts[1] is None or before == after:
        return ""
    found = difflib.unified_diff(texts[0], texts[1], name_before, name_after)
    lines = [line if line.endswith("\n") else f"{line}\n{_NO_NEWLINE}" for line in found]
    return _cut(lines)


def _lines(data: bytes) -> list[str] | None:
    if len(data) > MOST_TEXT_BYTES or b"\0" in data:
        return None
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return None
    lines = [f"{line}\n" for line in text.split("\n")]  # not splitlines(), for which a form feed ends a line too
    last = lines.pop().removesuffix("\n")
    return None if len(lines) >= MOST_LINES else [*lines, *([last] if last else [])]


def _cut(lines: list[str]) -> str:
    kept, size = 0, 0
    while kept < len(lines) and size + len(lines[kept].encode()) <= MOST_DIFFERENCE_BYTES - 64:
        size += len(lines[kept].encode())
        kept += 1
    left = len(lines) - kept
    return "".join(lines[:kept]) + (f"… and {left} more lines\n" if left else "")
