"""Anomalies, incidents and steps of a drill as messages: every field of them is named here and nowhere else."""

from __future__ import annotations

from plugind.api.messages import printable
from plugind.casefile import Case
from plugind.drill import Step
from plugind.governance.incidents import Event, Incident
from plugind.governance.observations import Anomaly
from plugind_proto.v1 import monitor_pb2


def anomaly_message(anomaly: Anomaly) -> monitor_pb2.Anomaly:
    """Something out of the ordinary."""
    seen = anomaly.seen
    record = seen.intent if seen.intent >= 0 else seen.index
    return monitor_pb2.Anomaly(
        trigger=anomaly.trigger,
        hard=anomaly.hard,
        severity=anomaly.severity,
        digest=seen.digest,
        plugin_id=seen.plugin_id,
        plugin=printable(seen.plugin),
        version=printable(seen.version),
        run_id=seen.run,
        audit_log=_log_id(record),
        plan_id=printable(seen.plan_id),
        at_unix_ms=seen.at_unix_ms,
        expected=printable(anomaly.expected),
        actual=printable(anomaly.actual),
        numbers=anomaly.numbers,
        observed=anomaly.observed,
    )


def incident_message(incident: Incident, plans: tuple[str, ...] | None = None) -> monitor_pb2.Incident:
    """An incident; `plans`: more than it has itself."""
    about = incident.about
    return monitor_pb2.Incident(
        id=incident.id,
        state="open" if incident.is_open else "closed",
        severity=incident.severity,
        title=printable(incident.title),
        cause=incident.cause,
        plugin_id=about.plugin_id,
        plugin=printable(about.plugin),
        version=printable(about.version),
        digest=about.digest,
        opened_by_uid=incident.opened_by_uid,
        opened_unix_ms=incident.opened_unix_ms,
        closed_unix_ms=incident.closed_unix_ms,
        closed_by_uid=incident.closed_by_uid or 0,
        closing=printable(incident.closing),
        plans=map(printable, incident.plans if plans is None else plans),
    )


def case_message(case: Case) -> monitor_pb2.IncidentCase:
    """An incident with all that is known."""
    return monitor_pb2.IncidentCase(
        incident=incident_message(case.incident, case.plans),
        timeline=map(_entry, case.timeline),
        anomalies=map(anomaly_message, case.anomalies),
    )


def step_message(step: Step) -> monitor_pb2.DrillStep:
    """A step of a drill."""
    return monitor_pb2.DrillStep(step=step.name, ok=step.ok, text=printable(step.text), after_us=step.after_us)


def _entry(event: Event) -> monitor_pb2.TimelineEntry:
    return monitor_pb2.TimelineEntry(
        at_unix_ms=event.at_unix_ms,
        kind=event.kind,
        text=printable(event.text),
        audit_log=_log_id(event.log_index),
        by_uid=event.by_uid,
        plan_id=printable(event.plan_id),
    )


def _log_id(index: int) -> str:
    return f"log_{index}" if index >= 0 else ""
