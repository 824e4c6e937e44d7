"""How the daemon is at this moment, as gauges. Pure: a Reading in, families out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from plugind.metrics.counts import NO_TIER
from plugind.model import Hold, Severity

Key = TypeVar("Key", bound=tuple[str, ...])
"""The values of a metric's labels."""


@dataclass(frozen=True, slots=True)
class Queue:
    """The places of one tier."""

    places: int
    taken: int
    waiting: int
    """Runs that wait for a place."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What there is to tell. None: nobody tells it, and then it is not shown."""

    version: str
    mode: str
    started_unix_ms: int
    queues: Mapping[int, Queue]
    """By tier."""
    in_flight: Mapping[tuple[int, str], int]
    """Runs by tier (-1: not known yet) and state: waiting, starting or running."""
    parked: Mapping[int, int]
    """Instances that have imported their plugin and wait, by tier."""
    holds: tuple[Hold, ...]
    ledger_records: int
    ledger_writable: bool
    journal_sent: int
    journal_lost: int
    launcher_up: bool
    tiers_unavailable: frozenset[int] = frozenset()
    open_incidents: Mapping[Severity, int] | None = None
    monitor_up: bool | None = None
    sandbox_memory_bytes: int | None = None
    """Of all running instances together."""
    tiers: tuple[int, ...] = field(default=(0, 1, 2))


_STATES = ("waiting", "starting", "running")
_KINDS = ("killed", "quarantined", "suspended", "revalidation_required")


def families(now: Reading) -> Iterator[Metric]:
    """Every gauge."""
    yield _one("plugind_build_info", "Always 1; the labels tell", 1, version=now.version, mode=now.mode)
    yield _one("plugind_start_time_seconds", "When the front started, since the epoch", now.started_unix_ms / 1000)
    yield from _load(now)
    yield from _holds(now.holds)
    yield from _parts(now)
    if now.open_incidents is not None:
        counts = {(severity,): float(count) for severity, count in now.open_incidents.items()}
        yield _many("plugind_incidents_open", "Incidents that nobody has closed yet", ("severity",), counts)
    if now.sandbox_memory_bytes is not None:
        text = "Memory of all running instances together, bytes"
        yield _one("plugind_sandbox_memory_bytes", text, now.sandbox_memory_bytes)


def _load(now: Reading) -> Iterator[Metric]:
    flights = {(str(tier), state): 0.0 for tier in now.tiers for state in _STATES}
    for (tier, state), count in now.in_flight.items():
        flights[str(tier) if tier >= 0 else NO_TIER, state] = count
    yield _many("plugind_runs_in_flight", "Runs that are not answered yet", ("tier", "state"), flights)
    for name, text in (
        ("places", "Instances that may run at one time"),
        ("taken", "Places that are taken"),
        ("waiting", "Runs that wait for a place"),
    ):
        counts = {(str(tier),): float(getattr(queue, name)) for tier, queue in now.queues.items()}
        yield _many(f"plugind_queue_{name}", text, ("tier",), counts)
    parked = {(str(tier),): float(now.parked.get(tier, 0)) for tier in now.tiers}
    yield _many("plugind_parked_instances", "Instances that have imported their plugin and wait", ("tier",), parked)


def _holds(holds: tuple[Hold, ...]) -> Iterator[Metric]:
    of_kind = {kind: [hold.at_unix_ms for hold in holds if hold.kind == kind] for kind in _KINDS}
    counts = {(kind,): float(len(times)) for kind, times in of_kind.items()}
    yield _many("plugind_holds", "Holds in force", ("kind",), counts)
    oldest = {(kind,): min(times) / 1000 for kind, times in of_kind.items() if times}
    text = "When the oldest hold in force was put there, since the epoch; no sample without one"
    yield _many("plugind_oldest_hold_timestamp_seconds", text, ("kind",), oldest)
    digests = {hold.target for hold in holds if hold.kind == "quarantined" and hold.target.startswith("sha256:")}
    yield _one("plugind_quarantined_versions", "Versions in quarantine, by digest", len(digests))


def _parts(now: Reading) -> Iterator[Metric]:
    yield _one("plugind_ledger_records", "Durable records in the ledger", now.ledger_records)
    yield _one("plugind_ledger_writable", "1: it can be written; 0: nothing runs any more", now.ledger_writable)
    yield _count("plugind_journal_sent", "Records that the systemd journal has got", now.journal_sent)
    text = "Records that it has not got, and the ledger alone has"
    yield _count("plugind_journal_lost", text, now.journal_lost)
    yield _one("plugind_launcher_up", "1: there is a launcher; 0: nothing can run", now.launcher_up)
    unavailable = {(str(tier),): float(tier in now.tiers_unavailable) for tier in now.tiers}
    text = "1: this machine cannot run the tier, as its launcher says"
    yield _many("plugind_tier_unavailable", text, ("tier",), unavailable)
    if now.monitor_up is not None:
        yield _one("plugind_monitor_up", "1: the monitor sees what runs; 0: it is lost", now.monitor_up)


def _one(name: str, text: str, value: float, **labels: str) -> Metric:
    return _many(name, text, tuple(labels), {tuple(labels.values()): float(value)})


def _many(name: str, text: str, labels: tuple[str, ...], values: Mapping[Key, float]) -> Metric:
    family = GaugeMetricFamily(name, text, labels=labels)
    for key, value in values.items():
        family.add_metric(key, value)
    return family


def _count(name: str, text: str, value: int) -> Metric:
    return CounterMetricFamily(name, text, value=value)
