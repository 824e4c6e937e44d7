"""Anomalies, incidents and steps of a drill, taken out of their messages."""

from __future__ import annotations

from plugind_client.findings import Anomaly, DrillStep, Incident, IncidentCase, TimelineEntry
from plugind_client.wire import record_of
from plugind_proto.v1 import monitor_pb2


def anomaly(answer: monitor_pb2.Anomaly) -> Anomaly:
    """An anomaly."""
    return record_of(Anomaly, answer, numbers=dict(sorted(answer.numbers.items())))


def incident(answer: monitor_pb2.Incident) -> Incident:
    """An incident."""
    return record_of(Incident, answer, plans=tuple(answer.plans))


def incidents(answer: monitor_pb2.ListIncidentsResponse) -> list[Incident]:
    """Incidents, newest first."""
    return [incident(each) for each in answer.incidents]


def incident_case(answer: monitor_pb2.IncidentCase) -> IncidentCase:
    """An incident with its timeline."""
    return IncidentCase(
        incident=incident(answer.incident),
        timeline=tuple(record_of(TimelineEntry, each) for each in answer.timeline),
        anomalies=tuple(anomaly(each) for each in answer.anomalies),
    )


def drill_step(answer: monitor_pb2.DrillStep) -> DrillStep:
    """A step."""
    return record_of(DrillStep, answer)
