"""Counters and histograms that cost a dictionary's entry to count, and become families when somebody looks.

Their labels are bounded: what was not named when one was made is counted as "other". Used by one thread.
"""

from __future__ import annotations

import itertools
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from typing import Final

from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily
from prometheus_client.utils import floatToGoString

OTHER: Final = "other"


class Tally:
    """A counter: how often, by the values of its labels."""

    def __init__(self, name: str, text: str, **labels: Iterable[str]) -> None:
        """`labels`: every value that each can have."""
        self.name = name
        self._text = text
        self._labels = tuple(labels)
        self._other = (OTHER,) * len(labels)
        # All of them, at zero: a rate is known only of what was there before its first event.
        self.counts = dict.fromkeys(itertools.product(*labels.values()), 0)

    def add(self, *values: str, by: int = 1) -> None:
        """It has happened."""
        key = values if values in self.counts else self._other
        self.counts[key] = self.counts.get(key, 0) + by

    def family(self) -> CounterMetricFamily:
        """As Prometheus wants it; the name in the text ends in _total."""
        family = CounterMetricFamily(self.name, self._text, labels=self._labels)
        for values, count in self.counts.items():
            family.add_metric(values, count)
        return family


class Spread:
    """A histogram: how many were at most so large, by the value of at most one label. Values have the name's unit."""

    def __init__(self, name: str, text: str, bounds: Sequence[float], **labels: Iterable[str]) -> None:
        self.name = name
        self._text = text
        self._bounds = tuple(bounds)
        self._labels = tuple(labels)
        self._other = (OTHER,) * len(labels)
        self._counts = {values: [0] * (len(bounds) + 1) for values in itertools.product(*labels.values())}
        self._sums = dict.fromkeys(self._counts, 0.0)

    def add(self, value: float, *values: str) -> None:
        """One more was measured."""
        key = values if values in self._counts else self._other
        if key not in self._counts:
            self._counts[key], self._sums[key] = [0] * (len(self._bounds) + 1), 0.0
        self._counts[key][bisect_left(self._bounds, value)] += 1
        self._sums[key] += value

    def family(self) -> HistogramMetricFamily:
        """As Prometheus wants it: each bucket with all that are smaller."""
        family = HistogramMetricFamily(self.name, self._text, labels=self._labels)
        bounds = [floatToGoString(bound) for bound in (*self._bounds, float("inf"))]  # type: ignore[no-untyped-call]
        for values, counts in self._counts.items():
            buckets = list(zip(bounds, map(float, itertools.accumulate(counts)), strict=True))
            family.add_metric(values, buckets, self._sums[values])
        return family
