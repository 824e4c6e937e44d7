"""The parts of the daemon that are read when somebody looks: attributes in memory, no file, no lock held for long."""

from __future__ import annotations

import functools
import importlib.metadata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from plugind.admission import InFlight
from plugind.metrics.reading import Queue, Reading, families
from plugind.model import Hold, Severity
from plugind.sandbox.protocol import Ready


class Flights(Protocol):
    """Of plugind.admission.Flights."""

    def visible(self, caller: None) -> list[InFlight]:
        """All runs in flight."""
        ...


class Lines(Protocol):
    """Of plugind.admission.Places."""

    def load(self) -> Mapping[int, tuple[int, int, int]]:
        """By tier: places, how many are taken, and how many runs wait for one."""
        ...


class Parking(Protocol):
    """Of plugind.parking.Parking."""

    def waiting(self) -> Mapping[int, int]:
        """How many instances wait, by tier."""
        ...


class Ledger(Protocol):
    """Of plugind.audit.ledger.Ledger."""

    @property
    def size(self) -> int:
        """Durable records."""
        ...

    @property
    def failure(self) -> str:
        """Why it cannot be written; empty: it can."""
        ...


class Journal(Protocol):
    """Of plugind.audit.journal.Journal."""

    sent: int
    lost: int


class Link(Protocol):
    """Of plugind.sandbox.link.Link."""

    problem: str
    ready: Ready | None


@dataclass(frozen=True, slots=True)
class Parts:
    """Where each value comes from. A hook that is None leaves its metric out."""

    mode: str
    started_unix_ms: int
    flights: Flights
    places: Lines
    parking: Parking
    holds: Callable[[], Iterable[Hold]]
    ledger: Ledger
    journal: Journal
    link: Link
    open_incidents: Callable[[], Mapping[Severity, int]] | None = None
    """How many incidents are open, by severity, every severity in it. It must not block."""
    monitor_up: Callable[[], bool] | None = None
    sandbox_memory_bytes: Callable[[], int] | None = None
    """Memory of the running instances, as it was sampled last."""

    def read(self) -> Reading:
        """How it is now."""
        return Reading(
            version=_version(),
            mode=self.mode,
            started_unix_ms=self.started_unix_ms,
            queues={tier: Queue(*load) for tier, load in self.places.load().items()},
            in_flight=Counter((run.tier, _state(run)) for run in self.flights.visible(None)),
            parked=self.parking.waiting(),
            holds=tuple(self.holds()),
            ledger_records=self.ledger.size,
            ledger_writable=not self.ledger.failure,
            journal_sent=self.journal.sent,
            journal_lost=self.journal.lost,
            launcher_up=not self.link.problem,
            tiers_unavailable=frozenset(map(int, self.link.ready.unavailable)) if self.link.ready else frozenset(),
            open_incidents=self.open_incidents() if self.open_incidents else None,
            monitor_up=self.monitor_up() if self.monitor_up else None,
            sandbox_memory_bytes=self.sandbox_memory_bytes() if self.sandbox_memory_bytes else None,
        )


class Gauges(Collector):
    """Reads the parts at each scrape."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def collect(self) -> Iterator[Metric]:
        """Every gauge."""
        return families(self._parts.read())


def _state(run: InFlight) -> str:
    if run.running:
        return "running"
    return "starting" if run.in_sandbox else "waiting"


@functools.cache
def _version() -> str:
    return importlib.metadata.version("plugind")
