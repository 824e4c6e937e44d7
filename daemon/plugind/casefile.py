"""All that is known of a version: its history, what the ledger says of it, anomalies and incidents, in one timeline.

Everything here blocks, and reads the ledger from its end as far back as the version is there: call it from a thread.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from plugind.audit import reading
from plugind.audit.reading import Entry, Filter
from plugind.catalog import Catalog
from plugind.governance.incidents import NO_RECORD, About, Event, Incident, Incidents, anomaly_event
from plugind.governance.observations import Anomaly
from plugind.model import POLICY_UID
from plugind.registry.connection import Change

MOST_RUNS: Final = 200
MOST_CHANGES: Final = 200
MOST_ANOMALIES: Final = 100
MOST_RECORDS: Final = 200
MOST_NAMED: Final = 10
"""Reasons or refused calls that one entry names."""
_SLACK_MS: Final = 60_000
"""A record is written after what it is about; so much a clock may have been set back in between."""
_RUN_EVENTS: Final = frozenset({"OUTCOME", "DENIED"})
KINDS: Final = {
    "submit": "submitted",
    "attest": "attested",
    "approve": "approved",
    "vote": "approved by one",
    "reject": "rejected",
    "activate": "activated",
    "retire": "retired",
    "rollback": "rolled back to",
    "suspend": "suspended",
    "resume": "resumed",
    "kill": "killed",
    "kill_lift": "kill lifted",
    "quarantine": "quarantined",
    "release": "released",
    "require_revalidation": "to be revalidated",
    "revalidated": "revalidated",
}
"""What happened to a version, by the action that the history has; any other is told by its own name."""

FindAnomalies = Callable[[str, int], Sequence[Anomaly]]
"""Of a digest, newest first, at most so many."""


@dataclass(frozen=True, slots=True)
class Case:
    """An incident with what is known of its version."""

    incident: Incident
    timeline: tuple[Event, ...]
    """Oldest first."""
    anomalies: tuple[Anomaly, ...]
    """Newest first."""
    plans: tuple[str, ...]
    """Those of the incident, and of the runs in the timeline."""


class Casefile:
    """Reads what registry, ledger, monitor and incidents have."""

    def __init__(
        self,
        catalog: Catalog,
        directory: Path,
        size: Callable[[], int],
        incidents: Incidents,
        anomalies: FindAnomalies,
    ) -> None:
        """`directory`: the ledger's; `size` tells how many of its records are durable."""
        self._catalog = catalog
        self._directory = directory
        self._size = size
        self._incidents = incidents
        self._anomalies = anomalies

    def records(self, digest: str) -> list[Entry]:
        """The newest records of the ledger about a digest, newest first, at most MOST_RECORDS."""
        return reading.newest(self._directory, Filter(digest=digest), MOST_RECORDS, self._size())

    def case(self, incident_id: str) -> Case:
        """An incident with its timeline. Raises NotFoundError, StateError, OSError."""
        incident = self._incidents.get(incident_id)
        about = incident.about
        known = self._known(about)
        anomalies = tuple(self._anomalies(about.digest, MOST_ANOMALIES)) if about.digest else ()
        noted = self._incidents.events(incident_id)
        timeline = [*known, *map(anomaly_event, anomalies), *noted]
        # An anomaly is noted in its incident too. Within a millisecond the order above stays.
        merged = sorted(dict.fromkeys(timeline), key=lambda event: event.at_unix_ms)
        plans = {*incident.plans, *(event.plan_id for event in merged if event.plan_id)}
        return Case(incident, tuple(merged), anomalies, tuple(sorted(plans)))

    def _known(self, about: About) -> list[Event]:
        """Of the registry's history and of the ledger."""
        if not about.digest and not about.plugin:
            return []
        about = _named(about, self._catalog.history_about(about.plugin, about.digest))
        history = self._catalog.history_about(about.plugin, about.digest)
        changes = [each for each in history if _concerns(each, about)]
        since_ms = min((each.at_unix_ms for each in changes), default=0) - _SLACK_MS
        wanted = _About(about, max(since_ms, 0))
        found = reading.newest(self._directory, wanted, reading.ALL, self._size())
        runs = [each for each in found if each.fields["event"] in _RUN_EVENTS]
        changed = _changes(changes, [each for each in found if each.fields["event"] == "CHANGE"])
        told = [event for entry in reversed(runs[:MOST_RUNS]) for event in _run(entry)]
        return [*changed, *_more(runs, len(runs) - MOST_RUNS), *told]


@dataclass(slots=True)
class _About:
    """Changes of a version and the newest runs of it, one more than is told."""

    about: About
    since_unix_ms: int
    _runs: int = 0
    _changes: int = 0
    _marks: tuple[bytes, ...] = field(init=False)

    def __post_init__(self) -> None:
        self._marks = tuple(mark.encode() for mark in (self.about.digest, f'"{self.about.plugin}"') if mark.strip('"'))

    def may_take(self, text: bytes) -> bool:
        """See reading.Wanted."""
        return any(mark in text for mark in self._marks)

    def takes(self, fields: dict[str, Any]) -> bool:
        """See reading.Wanted."""
        if int(fields["time_unix_ms"]) < self.since_unix_ms:
            return False
        if fields["event"] in _RUN_EVENTS and self._runs <= MOST_RUNS and self._is_meant(fields):
            self._runs += 1
            return True
        if fields["event"] == "CHANGE" and self._changes < 2 * MOST_CHANGES:
            self._changes += 1
            return True
        return False

    def _is_meant(self, fields: dict[str, Any]) -> bool:
        if self.about.digest:
            return bool(fields["digest"] == self.about.digest)
        return self.about.plugin == fields["plugin"] and self.about.version in {"", fields["version"]}


def _named(about: About, history: Sequence[Change]) -> About:
    """With the name and version of its digest, where only that is known."""
    if about.plugin:
        return about
    for change in history:
        if change.digest == about.digest and change.plugin:
            return About(change.plugin_id, change.plugin, change.version, change.digest)
    return about


def _concerns(change: Change, about: About) -> bool:
    """Whether a change was made to this version, or to all versions of its plugin."""
    if about.digest and change.digest:
        return change.digest == about.digest
    if not about.plugin or change.plugin != about.plugin:
        return False
    return not about.version or change.version in {"", about.version}


def _changes(changes: Sequence[Change], records: Iterable[Entry]) -> list[Event]:
    """The history as events, each with the record that says the same; both have the same order.

    What the ledger could not record, as a kill while it was full, has none.
    """
    indexes: dict[tuple[object, ...], deque[int]] = {}
    for entry in records:  # newest first
        key = tuple(entry.fields[name] for name in ("action", "plugin", "version", "digest", "by_uid", "why"))
        indexes.setdefault(key, deque()).append(entry.index)
    events = []
    for change in reversed(changes[-MOST_CHANGES:]):
        key = (change.action, change.plugin, change.version, change.digest, change.by_uid, change.why)
        matching = indexes.get(key)
        index = matching.popleft() if matching else NO_RECORD
        kind = KINDS.get(change.action, change.action)
        events.append(Event(change.at_unix_ms, kind, _sentence(change), index, change.by_uid))
    return events[::-1]


def _sentence(change: Change) -> str:
    name = f"{change.plugin}@{change.version}" if change.version else change.plugin or change.digest[:16]
    return f"{name}: {change.why}" if change.why else name


def _run(entry: Entry) -> list[Event]:
    """A run, and what of it was refused."""
    fields = entry.fields
    at_ms, uid, plan_id = fields["time_unix_ms"], fields["caller_uid"], fields["plan_id"]
    index = fields["intent"] if fields["intent"] >= 0 else entry.index
    what = f"{fields['run']} of {fields['plugin']}@{fields['version']}"
    what += f" in stage {fields['stage']}" if fields["stage"] else ""
    if fields["event"] == "DENIED":
        reasons = [f"{each['code']} ({each['rule']})" for each in fields["reasons"]]
        return [Event(at_ms, "denied", f"{what}: {_some(reasons)}", index, uid, plan_id)]
    detail = f": {fields['detail']}" if fields["detail"] else ""
    ended = Event(at_ms, "run", f"{what} ended as {fields['outcome']}{detail}", index, uid, plan_id)
    refused = [f"{each['name'] or each['kind']} × {each['count']} ({each['detail']})" for each in fields["violations"]]
    if not refused:
        return [ended]
    return [Event(at_ms, "refused", f"{fields['run']}: {_some(refused)}", index, uid, plan_id), ended]


def _some(items: Sequence[str]) -> str:
    more = len(items) - MOST_NAMED
    return ", ".join(items[:MOST_NAMED]) + (f" and {more} more" if more > 0 else "")


def _more(runs: Sequence[Entry], left_out: int) -> list[Event]:
    """That there were more runs than are told, where they would stand."""
    if left_out <= 0:
        return []
    text = f"only the newest {MOST_RUNS} runs and denials are told here; there are earlier ones in the ledger"
    return [Event(runs[MOST_RUNS].fields["time_unix_ms"], "earlier", text, by_uid=POLICY_UID)]
