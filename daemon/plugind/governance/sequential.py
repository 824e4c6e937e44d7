"""A sequential test for things that either happen in a run or do not, against how often they happened before. Pure.

A CUSUM of log likelihood ratios: each run adds log(p1/p0) when it happens and log((1-p1)/(1-p0)) when it does not,
never below 0; at a limit the rate has risen from p0 to about p1. Of all tests with as few false alarms it is the one
that needs the fewest runs (Page 1954, Moustakides 1986; for proportions Reynolds and Stoumbos 1999). A window of a
fixed size has to be filled first.

p0 is the version's own: what was counted before the runs of the window (`recent`), so that what is being judged does
not make itself the rule. It begins with what would be usual for a version of which nothing is known.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

PRIOR_HITS: Final = 1.0
PRIOR_RUNS: Final = 20.0
LEAST: Final = 0.02
"""A version that has never failed may fail: a lower p0 would make two failures an alarm."""
MOST: Final = 0.3
"""As usual as that failing can become."""
MEMORY: Final = 400.0
"""Runs; at so many all of them count half as much from then on, and what is new counts more."""
MOST_RECENT: Final = 100


@dataclass(slots=True)
class Sequential:
    """`runs` and `hits` are what was before, `recent` the runs that are judged (the oldest first)."""

    runs: float = 0.0
    hits: float = 0.0
    score: float = 0.0
    recent: deque[bool] = field(default_factory=deque)

    @property
    def usual(self) -> float:
        """p0: how often it happens, 0.02 to 0.3."""
        return min(MOST, max(LEAST, (self.hits + PRIOR_HITS) / (self.runs + PRIOR_RUNS)))

    @property
    def usual_at_most(self) -> float:
        """The same, where it has been underestimated: so few runs as there are say no more (95 %, normal)."""
        usual = self.usual
        return min(MOST, usual + 1.64 * math.sqrt(usual * (1 - usual) / (self.runs + PRIOR_RUNS)))

    def add(self, hit: bool, window: int, risen: float) -> float:
        """One more run; the score. `risen` is p1; the last `window` runs are not what was before."""
        usual = self.usual
        change = math.log(risen / usual) if hit else math.log((1 - risen) / (1 - usual))
        self.score = max(0.0, self.score + change)
        self.recent.append(hit)
        while len(self.recent) > window:
            self._learn(self.recent.popleft())
        return self.score

    def _learn(self, hit: bool) -> None:
        self.runs += 1
        self.hits += hit
        if self.runs >= MEMORY:
            self.runs /= 2
            self.hits /= 2

    def accept(self, more: Iterable[bool]) -> None:
        """What was judged, and what came since, is what is usual from now on."""
        for hit in (*self.recent, *more):
            self._learn(hit)
        self.restart()

    def restart(self, recent: Iterable[bool] = ()) -> None:
        """Judge anew. What was being judged is dropped: it was out of the ordinary, or beside what was."""
        self.score = 0.0
        self.recent = deque(recent)


def tail(least: int, tries: int, rate: float) -> float:
    """How likely it is that of so many tries at least `least` hit."""
    return sum(math.comb(tries, hits) * rate**hits * (1 - rate) ** (tries - hits) for hits in range(least, tries + 1))
