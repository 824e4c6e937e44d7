"""Anomalies, incidents and steps of a drill, taken out of their messages."""

from __future__ import annotations

from plugind_client.findings import (
    Anomaly,
    DrillStep,
    Incident,
    IncidentCase,
    QuarantineCase,
    QuarantinedVersion,
    Release,
    TimelineEntry,
)
from plugind_client.records import Change, Hold
from plugind_client.wire import record_of
from plugind_proto.v1 import monitor_pb2


def anomaly(answer: monitor_pb2.Anomaly) -> Anomaly:
    """An anomaly."""
    return record_of(Anomaly, answer, numbers=dict(sorted(answer.numbers.items())))


def quarantined(answer: monitor_pb2.QuarantinedVersion) -> QuarantinedVersion:
    """A version in quarantine or on probation."""
    return record_of(
        QuarantinedVersion,
        answer,
        hold=record_of(Hold, answer.hold) if answer.HasField("hold") else None,
        released_by_uids=tuple(answer.released_by_uids),
        probation_stages=tuple(answer.probation_stages),
    )


def quarantine_list(answer: monitor_pb2.ListQuarantineResponse) -> list[QuarantinedVersion]:
    """All of them."""
    return [quarantined(each) for each in answer.versions]


def quarantine_case(answer: monitor_pb2.QuarantineCase) -> QuarantineCase:
    """One with its evidence."""
    return QuarantineCase(
        version=quarantined(answer.version),
        anomalies=tuple(anomaly(each) for each in answer.anomalies),
        statistics_json=answer.statistics_json,
        records_json=tuple(answer.records_json),
        history=tuple(record_of(Change, each) for each in answer.history),
    )


def release(answer: monitor_pb2.ReleaseResponse) -> Release:
    """What one approver's word came to."""
    return Release(quarantined(answer.version), answer.released)


def anomalies(answer: monitor_pb2.ListAnomaliesResponse) -> list[Anomaly]:
    """Anomalies, newest first."""
    return [anomaly(each) for each in answer.anomalies]


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
