"""Speeds out of two looks: what counters have gained a second, and the share of a processor that a run has."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from plugind_client.cli.top.reading import Lack, Reading
from plugind_client.records import RunningRun

RUNS, DENIALS, VIOLATIONS = "plugind_runs_total", "plugind_denials_total", "plugind_violations_total"
WAITING, TAKEN, PLACES = "plugind_queue_waiting", "plugind_queue_taken", "plugind_queue_places"


@dataclass(frozen=True, slots=True)
class Rates:
    """A second, by outcome, by reason and by kind; those that are zero are left out."""

    runs: Mapping[str, float]
    denials: Mapping[str, float]
    violations: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Queue:
    """Of one tier."""

    tier: str
    waiting: int
    taken: int | None
    places: int | None


def rates(before: Reading | None, now: Reading) -> Rates | Lack:
    """What came between two looks, a second."""
    if isinstance(now.metrics, Lack):
        return now.metrics
    if before is None or isinstance(before.metrics, Lack) or now.at_s <= before.at_s:
        return Lack("known at the next look")
    old, new, took_s = before.metrics, now.metrics, now.at_s - before.at_s
    return Rates(
        *(
            gained(old.by(name, label), new.by(name, label), took_s)
            for name, label in ((RUNS, "outcome"), (DENIALS, "code"), (VIOLATIONS, "kind"))
        )
    )


def gained(old: Mapping[str, float], new: Mapping[str, float], took_s: float) -> dict[str, float]:
    """A second. A counter that is lower than before began again from zero, as the daemon did."""
    found = {}
    for label, value in new.items():
        more = value - old.get(label, 0.0)
        if (each := (value if more < 0 else more) / took_s) > 0:
            found[label] = each
    return found


def queues(now: Reading) -> list[Queue] | Lack:
    """Who waits, by tier."""
    if isinstance(now.metrics, Lack):
        return now.metrics
    waiting, taken, places = (now.metrics.by(name, "tier") for name in (WAITING, TAKEN, PLACES))
    if not waiting:
        return Lack("this daemon does not count who waits")
    return [Queue(tier, int(count), _int(taken, tier), _int(places, tier)) for tier, count in sorted(waiting.items())]


def _int(values: Mapping[str, float], tier: str) -> int | None:
    return int(values[tier]) if tier in values else None


@dataclass(slots=True)
class Shares:
    """Percent of one processor of each run, between its last two samples. The daemon's samples, and not our looks."""

    _last: dict[str, tuple[int, int, float | None]] = field(default_factory=dict)
    """By run: when it was sampled and its processor time then, milliseconds, and its share before that."""

    def note(self, runs: tuple[RunningRun, ...]) -> None:
        """One more look. Who is not in it is forgotten."""
        self._last = {run.run_id: self._next(run, run.cpu_ms) for run in runs if run.cpu_ms is not None}

    def _next(self, run: RunningRun, cpu_ms: int) -> tuple[int, int, float | None]:
        at_ms, before_ms, share = self._last.get(run.run_id, (0, 0, None))
        if run.sampled_unix_ms == at_ms:
            return at_ms, before_ms, share  # the same sample again
        if at_ms and run.sampled_unix_ms > at_ms and cpu_ms >= before_ms:
            share = 100 * (cpu_ms - before_ms) / (run.sampled_unix_ms - at_ms)
        return run.sampled_unix_ms, cpu_ms, share

    def of(self, run_id: str) -> float | None:
        """Percent; None: not known yet."""
        return self._last.get(run_id, (0, 0, None))[2]
