"""What the launcher refuses, in its log: each one, but not ten thousand a second, which would be a way to fill it."""

from __future__ import annotations

import time
from collections.abc import Callable

MOST_A_SECOND = 200
_SHOWN = 1000


class Complaints:
    """Writes up to MOST_A_SECOND lines a second, and then how many more there were."""

    def __init__(self, write: Callable[[str], None], now_ns: Callable[[], int] = time.monotonic_ns) -> None:
        self._write = write
        self._now_ns = now_ns
        self._since_ns = now_ns()
        self._written = 0
        self._left_out = 0

    def note(self, text: str) -> None:
        """One refusal: what, and why."""
        now_ns = self._now_ns()
        if now_ns - self._since_ns >= 10**9:
            if self._left_out:
                self._write(f"refused {self._left_out} more before this")
            self._since_ns, self._written, self._left_out = now_ns, 0, 0
        if self._written < MOST_A_SECOND:
            self._written += 1
            # One line, whatever a stranger has put into it.
            shown = "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text[:_SHOWN])
            self._write(f"refused {shown[:_SHOWN]}")
        else:
            self._left_out += 1
