"""When opening a breaker is not enough: it opens again and again, and the version is never as it was before. Pure.

Every version opens now and then, and a closing breaker is on trial, so a number of openings alone says little: of
10,000 versions that nobody should put into quarantine 4 % open three times without recovering in between. So what came
since the first opening has to be worse than what was before it: failures, or a level that rose with each of them.
"""

from __future__ import annotations

from typing import Final

from plugind.governance import sequential
from plugind.governance.observations import Anomaly
from plugind.governance.statistics import FAILURES, MOST_LATE, Statistics
from plugind.model import Monitoring, Outcome

CHANCE: Final = 0.001
"""So unlikely it has to be that a version as it was before fails so often."""
MOST_RUNS: Final = 400
"""At so many all of a streak count half as much from then on."""
GROWN: Final = 4.0
"""So much larger a median has become since the first opening. One that was accepted once is at one opening."""
LEAST: Final = {
    "wall_ms": 2.0,
    "memory_peak_bytes": 4.0 * 1024 * 1024,
    "output_bytes": 1024.0,
    "parked_wall_ms": 2.0,
}
"""A median counts as at least this: four times nothing is nothing."""


def trigger_of(measure: str) -> str:
    """How a measure that is out of the ordinary is called: a duration, whoever had imported ahead."""
    return measure.removeprefix("parked_")


def is_of_time(anomaly: Anomaly) -> bool:
    """Whether it would not be, had nothing taken too long: what a busy machine does to everybody."""
    numbers = {"timeouts": 0.0, **anomaly.numbers}  # what was found before these were counted excuses nobody
    match anomaly.trigger:
        case "wall_ms":
            return True
        case "failures":
            return 2 * numbers["timeouts"] > numbers["failures"]
        case "probes":
            return numbers["failed"] - numbers["timeouts"] < numbers["limit"]
    return False


def timeouts(statistics: Statistics, failed: int) -> int:
    """How many of the last so many failures were timeouts."""
    failures = [each for each in reversed(statistics.outcomes) if each in FAILURES]
    return failures[:failed].count(Outcome.TIMEOUT)


def ran(statistics: Statistics, failed: bool) -> None:
    """One more run that the breaker judged, or a probe."""
    streak = statistics.breaker.streak
    if streak.openings:
        streak.runs += 1
        streak.failures += failed
        if streak.runs >= MOST_RUNS:
            streak.runs, streak.failures = streak.runs // 2, streak.failures // 2


def opened(statistics: Statistics, thresholds: Monitoring, at_unix_ms: int, *, late: bool) -> None:
    """Once more; `late`: for time alone."""
    streak = statistics.breaker.streak
    streak.openings += 1
    if streak.openings == 1:
        known = {name: level.samples for name, level in statistics.levels.items()}
        streak.medians = {name: kept.median for name, kept in known.items() if len(kept) >= thresholds.warm_up}
    if late:
        streak.late_unix_ms = [*streak.late_unix_ms, at_unix_ms][-MOST_LATE:]


def is_due(statistics: Statistics, thresholds: Monitoring) -> bool:
    """Whether the version, which has just opened its breaker, is for quarantine."""
    return statistics.breaker.streak.openings >= thresholds.openings and (
        _fails_more(statistics, thresholds) or _has_grown(statistics)
    )


def _fails_more(statistics: Statistics, thresholds: Monitoring) -> bool:
    streak = statistics.breaker.streak
    # Two thirds: it is half of the window that opens a breaker, and probes that went well are among these.
    if not streak.failures or 300 * streak.failures < 2 * thresholds.failures_percent * streak.runs:
        return False
    return sequential.tail(streak.failures, streak.runs, statistics.failures.usual_at_most) <= CHANCE


def _has_grown(statistics: Statistics) -> bool:
    """By what was accepted since, and now it is beyond that too."""
    own = statistics.breaker
    return any(
        trigger_of(name) in own.why and statistics.levels[name].samples.median > GROWN * max(LEAST[name], before)
        for name, before in own.streak.medians.items()
    )
