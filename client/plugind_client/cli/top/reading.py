"""What one look at the daemon has found, as values; nothing here asks anybody."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field

from plugind_client.errors import PlugindError
from plugind_client.records import RunningRun, Status


@dataclass(frozen=True, slots=True)
class Lack:
    """Something that the daemon does not tell, or not us, and why."""

    why: str


@dataclass(frozen=True, slots=True)
class Figure:
    """One sample of a metric."""

    labels: Mapping[str, str]
    value: float


@dataclass(frozen=True, slots=True)
class Metrics:
    """Samples by their names."""

    figures: Mapping[str, tuple[Figure, ...]]

    def by(self, name: str, label: str) -> dict[str, float]:
        """The sums of a metric for each value of a label; empty where there is no such metric."""
        sums: dict[str, float] = defaultdict(float)
        for figure in self.figures.get(name, ()):
            sums[figure.labels.get(label, "")] += figure.value
        return dict(sums)


@dataclass(frozen=True, slots=True)
class Anomaly:
    """What the monitor found out of the ordinary. Source of the fields: proto/plugind_proto/v1/monitor.proto."""

    at_unix_ms: int
    severity: str
    hard: bool
    observed: bool
    trigger: str
    plugin: str
    version: str
    run_id: str
    expected: str
    actual: str


@dataclass(frozen=True, slots=True)
class Reading:
    """One look."""

    at_s: float
    """By a clock that never jumps."""
    unix_ms: int
    status: Status | Lack = Lack("not asked yet")
    runs: tuple[RunningRun, ...] = ()
    metrics: Metrics | Lack = Lack("not asked yet")
    anomalies: tuple[Anomaly, ...] | Lack = Lack("not asked yet")
    error: PlugindError | None = field(default=None, compare=False)
    """Why the daemon could not be looked at."""
