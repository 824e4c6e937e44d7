"""The last samples of a quantity, with their median and median absolute deviation. Pure.

Both of these stay where they are until half of the samples are something else, which mean and variance do not (Hampel
1974). They are kept sorted beside their order, so that a median is a look and not a search.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import deque
from collections.abc import Iterable
from typing import Final

MOST: Final = 100


class Samples:
    """At most MOST whole numbers; one more displaces the oldest."""

    __slots__ = ("_order", "_sorted")

    def __init__(self, values: Iterable[int] = ()) -> None:
        self._order = deque(values, MOST)
        self._sorted = sorted(self._order)

    def __len__(self) -> int:
        return len(self._order)

    @property
    def values(self) -> tuple[int, ...]:
        """The oldest first."""
        return tuple(self._order)

    def add(self, value: int) -> None:
        """One more."""
        if len(self._order) == MOST:
            del self._sorted[bisect_left(self._sorted, self._order[0])]
        self._order.append(value)
        insort(self._sorted, value)

    @property
    def median(self) -> float:
        """0 where there are none."""
        return _middle(self._sorted)

    @property
    def mad(self) -> float:
        """Median of the distances from the median, not scaled; 0 where there are none."""
        median = self.median
        return _middle(sorted(abs(value - median) for value in self._sorted))


def _middle(ordered: list[int] | list[float]) -> float:
    if not ordered:
        return 0.0
    half = len(ordered) // 2
    return float(ordered[half]) if len(ordered) % 2 else (ordered[half - 1] + ordered[half]) / 2
