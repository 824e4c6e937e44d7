"""Anomalies, incidents and steps of a drill, as frozen values.

Source of the fields and their meaning: proto/plugind_proto/v1/monitor.proto, SPEC.md "Incidents".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from plugind_client.records import Change, Hold


@dataclass(frozen=True, slots=True)
class Anomaly:
    """Something out of the ordinary that a version did, with the numbers that make it so."""

    trigger: str
    hard: bool
    severity: str
    """low, medium, high or critical."""
    digest: str
    plugin_id: str
    plugin: str
    version: str
    run_id: str
    audit_log: str
    """Its record, such as "log_12"; empty: it was no run."""
    plan_id: str
    at_unix_ms: int
    expected: str
    actual: str
    numbers: Mapping[str, float]
    observed: bool
    """Whether nothing came of it, because the profile only observes."""


@dataclass(frozen=True, slots=True)
class QuarantinedVersion:
    """A version in quarantine, or on probation after it."""

    hold: Hold | None
    """None: it is on probation."""
    plugin_id: str
    plugin: str
    version: str
    digest: str
    state: str
    """quarantined or probation."""
    incident: str
    """The open incident about it; empty: there is none."""
    released_by_uids: tuple[int, ...]
    """Who wants it released so far."""
    approvers_needed: int
    probation_stages: tuple[str, ...]
    probation_runs_left: int
    ended_runs: int
    """Runs that were ended when it was put there."""

    @property
    def label(self) -> str:
        """Name and version: "cost_breakdown@1.2.0"."""
        return f"{self.plugin}@{self.version}"


@dataclass(frozen=True, slots=True)
class QuarantineCase:
    """The same with its evidence: what was found, and the records about it, newest first; its history."""

    version: QuarantinedVersion
    anomalies: tuple[Anomaly, ...]
    statistics_json: str
    records_json: tuple[str, ...]
    history: tuple[Change, ...]


@dataclass(frozen=True, slots=True)
class Release:
    """What one approver's word came to."""

    version: QuarantinedVersion
    released: bool
    """Whether it is out; else another approver has to say the same."""


@dataclass(frozen=True, slots=True)
class Incident:
    """What happened, how bad it was, what it is about, and who closed it and why."""

    id: str
    state: str
    """open or closed."""
    severity: str
    title: str
    cause: str
    """The name of a trigger, kill, quarantine, breaker, drill, or hand."""
    plugin_id: str
    plugin: str
    version: str
    digest: str
    opened_by_uid: int
    opened_unix_ms: int
    closed_unix_ms: int
    closed_by_uid: int
    closing: str
    plans: tuple[str, ...]

    @property
    def is_open(self) -> bool:
        """Whether nobody has closed it."""
        return self.state == "open"

    @property
    def label(self) -> str:
        """What it is about: "cost_breakdown@1.2.0", a name, a digest, or nothing."""
        return f"{self.plugin}@{self.version}" if self.plugin and self.version else self.plugin or self.digest


@dataclass(frozen=True, slots=True)
class TimelineEntry:
    """One thing that happened."""

    at_unix_ms: int
    kind: str
    text: str
    audit_log: str
    """The record that says so; empty: it is in the history alone."""
    by_uid: int
    plan_id: str


@dataclass(frozen=True, slots=True)
class IncidentCase:
    """An incident with all that is known: what happened, oldest first, and what was found, newest first."""

    incident: Incident
    timeline: tuple[TimelineEntry, ...]
    anomalies: tuple[Anomaly, ...]


@dataclass(frozen=True, slots=True)
class DrillStep:
    """One step of a drill. `after_us`: since the hostile act began; 0: it is before that, or after all."""

    step: str
    ok: bool
    text: str
    after_us: int
