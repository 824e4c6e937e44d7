"""Many instances that were killed at one time: what is done when one has ended waits until the last one has.

To take an instance apart and to tell of it costs about as much CPU as dying does. While others are still about to die
it would come in their way, and it is they who are waited for. Decision 22.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from plugind.sandbox.supervisor import FOREVER_NS, Instance

FEW: Final = 8
"""So many are no crowd."""
WAIT_NS: Final = 200_000_000
"""So long what has ended waits for the rest: whoever has called it waits too."""


class Crowd:
    """Those of which it is waited for the end, and those that have ended meanwhile. Times are time.monotonic_ns()."""

    def __init__(self) -> None:
        self._dying: set[str] = set()
        self._ended: list[tuple[Instance, int]] = []
        self.next_check_ns = FOREVER_NS

    def begin(self, runs: Collection[str], now_ns: int) -> None:
        """These are killed now. While a crowd is dying others join it, and its time stays what it was."""
        if len(runs) > FEW or self._dying:
            self._dying.update(runs)
            self.next_check_ns = min(self.next_check_ns, now_ns + WAIT_NS)

    def takes(self, instance: Instance, exit_code: int) -> bool:
        """Whether it belongs to a crowd; then its end comes with that of the others."""
        if instance.run not in self._dying:
            return False
        self._dying.discard(instance.run)
        self._ended.append((instance, exit_code))
        return True

    def over(self, now_ns: int) -> list[tuple[Instance, int]]:
        """Those that have ended and their exit codes, when all have or the time is up; else none yet."""
        if self._dying and now_ns < self.next_check_ns:
            return []
        ended, self._ended = self._ended, []
        self._dying.clear()
        self.next_check_ns = FOREVER_NS
        return ended
