"""Incidents: what happened to a version or to all, how bad it was, what was done about it, and who closed it and why.

One that a person opens or closes is in the ledger, or it is not done. One that a kill or a hard trigger opens is there
even when the ledger cannot be written: then it is in the database and the log alone.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final, Literal, Protocol, cast

from plugind.errors import AuditUnavailableError, ConflictError, InvalidRequestError, NotFoundError
from plugind.governance.database import Database
from plugind.governance.observations import Anomaly
from plugind.model import POLICY_UID, SEVERITIES, Hold, Severity

Action = Literal["incident_open", "incident_close"]
MOST_EVENTS: Final = 1000
"""Of one incident: beyond them anomalies add none; what people do is always kept."""
MOST_PLANS: Final = 1000
"""Of one incident: callers choose their names."""
MOST_LISTED: Final = 1000
NO_RECORD: Final = -1
"""In the place of an index in the ledger."""
_ID: Final = re.compile(r"incident_([1-9][0-9]{0,17})")
_KILL_SEVERITY: Final[Severity] = "high"


@dataclass(frozen=True, slots=True)
class About:
    """What an incident is about; empty: nothing in particular, as after a kill of everything."""

    plugin_id: str = ""
    plugin: str = ""
    version: str = ""
    digest: str = ""
    target: str = ""
    """What was killed, where that is no version: "plan:roof", "caller:1000", "tier:2", "key:…", "pkg:pypi/words"."""

    @property
    def label(self) -> str:
        """How messages name it: "cost_breakdown@1.2.0"."""
        return (
            f"{self.plugin}@{self.version}"
            if self.plugin and self.version
            else self.plugin or self.digest[:16] or self.target
        )


NOTHING: Final = About()


@dataclass(frozen=True, slots=True)
class Event:
    """An entry of an incident's own timeline."""

    at_unix_ms: int
    kind: str
    """opened, anomaly, killed, closed, or what whoever notes it calls it."""
    text: str
    log_index: int = NO_RECORD
    """The record that says so."""
    by_uid: int = POLICY_UID
    plan_id: str = ""


@dataclass(frozen=True, slots=True)
class Incident:
    """One incident as it is now."""

    number: int
    severity: Severity
    title: str
    cause: str
    """What opened it: the name of a trigger, "kill", "quarantine", "breaker", "drill" or "hand"."""
    about: About
    opened_by_uid: int
    opened_unix_ms: int
    closed_by_uid: int | None = None
    closed_unix_ms: int = 0
    """0: it is open."""
    closing: str = ""
    plans: tuple[str, ...] = ()
    """Plans it has touched, at most MOST_PLANS."""

    @property
    def id(self) -> str:
        """Its name, such as "incident_1"."""
        return f"incident_{self.number}"

    @property
    def is_open(self) -> bool:
        """Whether nobody has closed it."""
        return self.closed_by_uid is None


class Record(Protocol):
    """Where openings and closings are recorded durably (plugind.trail)."""

    def __call__(self, action: Action, incident: Incident, by_uid: int, why: str) -> int:
        """The record's index in the ledger. Called within the transaction. Raises AuditUnavailableError."""
        ...


class Incidents:
    """The incidents of a database. Everything blocks: call it from a thread. Times are milliseconds since the epoch.

    `warn` is told what the ledger could not record. Raises StateError when the database is damaged.
    """

    def __init__(self, database: Database, record: Record, warn: Callable[[str], None]) -> None:
        self._database = database
        self._record = record
        self._warn = warn

    # -- what there is

    def get(self, incident_id: str) -> Incident:
        """One incident. Raises NotFoundError."""
        with self._database.reading() as connection:
            return _get(connection, number_of(incident_id))

    def list(self, *, closed: bool = False) -> list[Incident]:
        """Those that are open, or with `closed` all; newest first, at most MOST_LISTED."""
        which = "" if closed else "WHERE closed_by_uid IS NULL "
        with self._database.reading() as connection:
            query = f"SELECT * FROM incidents {which}ORDER BY id DESC LIMIT ?"  # noqa: S608 - one of two texts of ours
            return [_incident(connection, row) for row in connection.execute(query, (MOST_LISTED,)).fetchall()]

    def open_for(self, digest: str) -> Incident | None:
        """The open incident about the version with this digest."""
        with self._database.reading() as connection:
            return _open_like(connection, About(digest=digest), "")

    def events(self, incident_id: str) -> tuple[Event, ...]:
        """What was noted of it, oldest first. Raises NotFoundError."""
        number = number_of(incident_id)
        query = (
            "SELECT at_unix_ms, kind, text, log_index, by_uid, plan_id FROM incident_events WHERE incident = ?"
            " ORDER BY at_unix_ms, rowid"
        )
        with self._database.reading() as connection:
            _get(connection, number)
            return tuple(Event(*row) for row in connection.execute(query, (number,)))

    # -- its life

    def open(
        self,
        title: str,
        severity: Severity,
        *,
        by_uid: int,
        now: int,
        cause: str = "hand",
        about: About = NOTHING,
        unrecorded: bool = False,
    ) -> Incident:
        """A new one. Raises InvalidRequestError, and AuditUnavailableError unless it may be `unrecorded`."""
        if not title.strip():
            raise InvalidRequestError("title: expected a sentence, got nothing")
        if severity not in SEVERITIES:
            raise InvalidRequestError(f"severity: expected {', '.join(SEVERITIES)}, got {severity[:80]!r}")
        with self._database.changing() as connection:
            return self._open(connection, Incident(0, severity, title, cause, about, by_uid, now), unrecorded)

    def note(self, incident_id: str, event: Event, severity: Severity | None = None) -> Incident:
        """Add an event, and raise the severity if this is a worse one. Closed ones take events too.

        Raises NotFoundError.
        """
        with self._database.changing() as connection:
            number = number_of(incident_id)
            _get(connection, number)
            _add(connection, number, event, severity)
            return _get(connection, number)

    def close(self, incident_id: str, by_uid: int, why: str, now: int) -> Incident:
        """Close it. Raises NotFoundError, InvalidRequestError (no reason), ConflictError, AuditUnavailableError."""
        if not why.strip():
            raise InvalidRequestError("reason: expected why it can be closed, got nothing")
        with self._database.changing() as connection:
            number = number_of(incident_id)
            before = _get(connection, number)
            if not before.is_open:
                raise ConflictError(
                    f"{before.id}: expected an open one, got one that uid {before.closed_by_uid} closed"
                )
            connection.execute(
                "UPDATE incidents SET closed_by_uid = ?, closed_unix_ms = ?, closing = ? WHERE id = ?",
                (by_uid, now, why, number),
            )
            closed = _get(connection, number)
            index = self._record("incident_close", closed, by_uid, why)
            _insert(connection, number, Event(now, "closed", why, index, by_uid))
            return closed

    # -- what opens one by itself

    def about_anomaly(self, anomaly: Anomaly, now: int) -> Incident | None:
        """Add it to the open incident of its digest; without one a hard trigger opens one.

        None: there is none, and it opens none, being a soft one, or only observed.
        """
        seen = anomaly.seen
        about = About(seen.plugin_id, seen.plugin, seen.version, seen.digest)
        with self._database.changing() as connection:
            there = _open_like(connection, about, anomaly.trigger)
            if there is None:
                if not anomaly.hard or anomaly.observed:
                    return None
                title = f"{about.label or 'a run'}: {anomaly.trigger}"
                new = Incident(0, anomaly.severity, title, anomaly.trigger, about, POLICY_UID, now)
                there = self._open(connection, new, unrecorded=True)
            _add(connection, there.number, anomaly_event(anomaly), None if anomaly.observed else anomaly.severity)
            return _get(connection, there.number)

    def about_quarantine(self, anomaly: Anomaly, now: int) -> Incident:
        """The same for what a version is in quarantine for: one that failed its breaker's probes opens one too."""
        there = self.about_anomaly(anomaly, now)
        if there is not None:
            return there
        seen = anomaly.seen
        about = About(seen.plugin_id, seen.plugin, seen.version, seen.digest)
        title = f"{about.label or 'a run'}: {anomaly.trigger}"
        severity, uid = anomaly.severity, POLICY_UID
        self.open(title, severity, by_uid=uid, now=now, cause="breaker", about=about, unrecorded=True)
        return self.about_anomaly(anomaly, now) or self.list()[0]

    def about_kill(self, hold: Hold, ended_runs: int, now: int, about: About | None = None) -> Incident:
        """Add a kill to the open incident about what it means; without one it opens one.

        `about`: the version that the target stands for, where the caller knows it; else what the target itself tells.
        """
        about = about or about_target(hold.target)
        runs = f"{ended_runs} run{'' if ended_runs == 1 else 's'} ended"
        event = Event(now, "killed", f"{hold.target}: {hold.reason} ({runs})", by_uid=hold.by_uid)
        with self._database.changing() as connection:
            there = _open_like(connection, about, "kill")
            if there is None:
                title = f"{about.label or 'everything'}: killed by uid {hold.by_uid}"[:500]
                new = Incident(0, _KILL_SEVERITY, title, "kill", about, hold.by_uid, now)
                there = self._open(connection, new, unrecorded=True)
            _add(connection, there.number, event, _KILL_SEVERITY)
            return _get(connection, there.number)

    def _open(self, connection: sqlite3.Connection, new: Incident, unrecorded: bool) -> Incident:
        about = new.about
        number = connection.execute(
            "INSERT INTO incidents (severity, title, cause, plugin_id, plugin, version, digest, target, opened_by_uid,"
            " opened_unix_ms, closing) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, '')",
            (
                *(new.severity, new.title, new.cause, about.plugin_id, about.plugin, about.version, about.digest),
                *(about.target, new.opened_by_uid, new.opened_unix_ms),
            ),
        ).lastrowid
        opened = _get(connection, cast("int", number))
        index = NO_RECORD
        try:
            index = self._record("incident_open", opened, new.opened_by_uid, new.title)
        except AuditUnavailableError as error:
            if not unrecorded:
                raise
            self._warn(f"{opened.id} ({new.title}) is open, but the ledger could not record it: {error}")
        event = Event(new.opened_unix_ms, "opened", f"{new.severity}: {new.title}", index, new.opened_by_uid)
        _insert(connection, opened.number, event)
        return opened


def number_of(incident_id: str) -> int:
    """The row of "incident_1". Raises NotFoundError: nothing else is one."""
    found = _ID.fullmatch(incident_id)
    if found is None:
        raise NotFoundError(f"incident: expected an id like incident_1, got {incident_id[:80]!r}")
    return int(found[1])


def about_target(target: str) -> About:
    """What a hold's target means, without a look into the registry."""
    if target == "all":
        return NOTHING
    if target.startswith("sha256:"):
        return About(digest=target.removeprefix("sha256:"))
    if ":" in target:  # a key, a package, a plan, a caller or a tier: no version in particular
        return About(target=target)
    name, _, version = target.partition("@")
    return About(plugin=name, version=version)


def anomaly_event(anomaly: Anomaly) -> Event:
    """An anomaly in one sentence, as timelines tell it."""
    seen = anomaly.seen
    observed = " (only observed)" if anomaly.observed else ""
    return Event(
        seen.at_unix_ms,
        "anomaly",
        f"{anomaly.trigger}{observed}: expected {anomaly.expected}, got {anomaly.actual}",
        seen.intent if seen.intent >= 0 else seen.index,
        seen.caller_uid,
        seen.plan_id,
    )


def worst(severities: Iterable[Severity]) -> Severity:
    """The most severe one of at least one."""
    return max(severities, key=SEVERITIES.index)


def _open_like(connection: sqlite3.Connection, about: About, cause: str) -> Incident | None:
    """The open incident about the same version; where no digest is known, of the same cause and name or target."""
    query = "digest = '' AND cause = ? AND plugin = ? AND version = ? AND target = ?"
    values = [cause, about.plugin, about.version, about.target]
    if about.digest:
        query, values = "digest = ?", [about.digest]
    row = connection.execute(
        f"SELECT * FROM incidents WHERE closed_by_uid IS NULL AND {query} ORDER BY id DESC LIMIT 1",  # noqa: S608 - ours
        values,
    ).fetchone()
    return _incident(connection, row) if row else None


def _get(connection: sqlite3.Connection, number: int) -> Incident:
    row = connection.execute("SELECT * FROM incidents WHERE id = ?", (number,)).fetchone()
    if row is None:
        raise NotFoundError(f"incident_{number}: expected the id of an incident, got one that there is not")
    return _incident(connection, row)


def _incident(connection: sqlite3.Connection, row: sqlite3.Row) -> Incident:
    plans = connection.execute("SELECT plan_id FROM incident_plans WHERE incident = ? ORDER BY plan_id", (row["id"],))
    return Incident(
        number=row["id"],
        severity=row["severity"],
        title=row["title"],
        cause=row["cause"],
        about=About(row["plugin_id"], row["plugin"], row["version"], row["digest"], row["target"]),
        opened_by_uid=row["opened_by_uid"],
        opened_unix_ms=row["opened_unix_ms"],
        closed_by_uid=row["closed_by_uid"],
        closed_unix_ms=row["closed_unix_ms"] or 0,
        closing=row["closing"],
        plans=tuple(plan["plan_id"] for plan in plans.fetchall()),
    )


def _add(connection: sqlite3.Connection, number: int, event: Event, severity: Severity | None) -> None:
    """Keep an event and its plan, as far as there is room, and the worst severity."""
    (kept,) = connection.execute("SELECT count(*) FROM incident_events WHERE incident = ?", (number,)).fetchone()
    if kept < MOST_EVENTS or event.kind != "anomaly":
        _insert(connection, number, event)
    (plans,) = connection.execute("SELECT count(*) FROM incident_plans WHERE incident = ?", (number,)).fetchone()
    if event.plan_id and plans < MOST_PLANS:
        connection.execute("INSERT OR IGNORE INTO incident_plans VALUES (?, ?)", (number, event.plan_id))
    if severity is not None:
        now = worst((_get(connection, number).severity, severity))
        connection.execute("UPDATE incidents SET severity = ? WHERE id = ?", (now, number))


def _insert(connection: sqlite3.Connection, number: int, event: Event) -> None:
    connection.execute(
        "INSERT INTO incident_events VALUES (?, ?, ?, ?, ?, ?, ?)",
        (number, event.at_unix_ms, event.kind, event.text, event.log_index, event.by_uid, event.plan_id),
    )
