"""A busy machine makes everybody late: breakers of several plugins that open for time at once tell of it. Pure.

Plugins are counted and not versions: three versions of one have its mistakes in common. Who owns three plugins can let
them be late together on purpose; then none is quarantined for being late, and all are held for as long as they are.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Final

from plugind.governance.breaker import Judgement
from plugind.governance.escalation import is_of_time
from plugind.governance.observations import Anomaly
from plugind.model import Monitoring

MOST: Final = 1000
"""Openings that are remembered. Beyond them the oldest is forgotten, and excuses nobody."""


class Crowd:
    """Who has opened for time, and when."""

    def __init__(self, openings: Iterable[tuple[int, str]] = ()) -> None:
        """`openings`: milliseconds and the plugin's name."""
        self._openings = deque(openings, MOST)

    def add(self, at_unix_ms: int, plugin: str) -> None:
        """A breaker of this plugin has opened for time alone."""
        self._openings.append((at_unix_ms, plugin))

    def around(self, at_unix_ms: int, within_ms: int) -> int:
        """How many plugins have, at most so long before or after."""
        return len({plugin for at, plugin in self._openings if abs(at - at_unix_ms) <= within_ms})

    def hold_back(self, judged: Judgement, thresholds: Monitoring) -> Judgement:
        """The same; but where the machine is the likelier cause the verdict is "opened", and its anomaly says why."""
        if judged.verdict != "quarantine":
            return judged
        sizes = [self.around(at, thresholds.open_ms) for at in judged.excusable_unix_ms]
        excused = [size for size in sizes if size >= thresholds.together]
        if len(excused) <= judged.spare:
            return judged
        return replace(judged, verdict="opened", anomalies=(*judged.anomalies[:-1], _excused(judged, max(excused))))


def _excused(judged: Judgement, together: int) -> Anomaly:
    anomaly = judged.anomalies[-1]
    why = f"no quarantine: the machine is the likelier cause, breakers of {together} plugins opened for time together"
    numbers = {**anomaly.numbers, "together": float(together)}
    return replace(anomaly, severity="medium", actual=f"{anomaly.actual}; {why}", numbers=numbers)


def openings(anomalies: Sequence[Anomaly]) -> list[tuple[int, str]]:
    """Those that these tell of, in their order: what a Crowd goes on from after a restart."""
    late: dict[tuple[int, str], bool] = {}
    for each in anomalies:
        if not each.hard and each.trigger != "reopened":
            key = (each.seen.index, each.seen.digest)
            late[key] = late.get(key, True) and is_of_time(each)
    found = {(each.seen.index, each.seen.digest): (each.seen.at_unix_ms, each.seen.plugin) for each in anomalies}
    return [found[key] for key, is_late in late.items() if is_late]
