"""Incidents in memory: opened by hand, closed by hand. A drill finds nothing wrong, and nothing of it happens."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Final

from plugind_client.errors import Conflict, InvalidRequest, NotFound
from plugind_client.memory.ledger import Ledger, now_ms
from plugind_client.memory.registry import Registry
from plugind_proto.v1 import monitor_pb2

SEVERITIES: Final = ("low", "medium", "high", "critical")
STEPS: Final = ("submitted", "started", "detected", "contained", "quarantined", "denied", "cleaned")


class Incidents:
    """Answers to messages."""

    def __init__(self, registry: Registry, ledger: Ledger) -> None:
        self._registry = registry
        self._ledger = ledger
        self._cases: Final[dict[str, monitor_pb2.IncidentCase]] = {}

    def open(self, request: monitor_pb2.OpenIncidentRequest) -> monitor_pb2.Incident:
        """Raises NotFound, InvalidRequest."""
        if not request.title.strip() or request.severity not in SEVERITIES:
            detail = f"expected a title, and one of {', '.join(SEVERITIES)}, got {request.severity!r}"
            raise InvalidRequest("INVALID_REQUEST", detail=detail)
        made = monitor_pb2.IncidentCase()
        made.incident.CopyFrom(
            monitor_pb2.Incident(
                id=f"incident_{len(self._cases) + 1}",
                state="open",
                severity=request.severity,
                title=request.title,
                cause="hand",
                opened_by_uid=os.getuid(),
                opened_unix_ms=now_ms(),
            )
        )
        if request.target:
            self._name(made.incident, request.target)
        self._cases[made.incident.id] = made
        self._note(made, "opened", "incident_open", f"{request.severity}: {request.title}")
        return made.incident

    def _name(self, incident: monitor_pb2.Incident, target: str) -> None:
        """What it is about. Any digest will do."""
        digest = target.removeprefix("sha256:")
        if len(digest) == 64:
            incident.digest = digest
            return
        name, at, version = target.partition("@")
        plugin = self._registry.plugin(name)
        incident.plugin_id, incident.plugin = plugin.plugin_id, plugin.name
        if at:
            found = self._registry.version(name, version)[1]
            incident.version, incident.digest = found.version, found.digest

    def list(self, request: monitor_pb2.ListIncidentsRequest) -> monitor_pb2.ListIncidentsResponse:
        """Newest first."""
        found = [case.incident for case in self._cases.values() if request.all or case.incident.state == "open"]
        return monitor_pb2.ListIncidentsResponse(incidents=reversed(found))

    def get(self, request: monitor_pb2.GetIncidentRequest) -> monitor_pb2.IncidentCase:
        """Raises NotFound."""
        case = self._cases.get(request.id)
        if case is None:
            raise NotFound("NOT_FOUND", detail=f"there is no incident {request.id!r}")
        return case

    def close(self, request: monitor_pb2.CloseIncidentRequest) -> monitor_pb2.Incident:
        """Raises NotFound, Conflict, InvalidRequest."""
        case = self.get(monitor_pb2.GetIncidentRequest(id=request.id))
        if not request.reason.strip():
            raise InvalidRequest("INVALID_REQUEST", detail="reason: expected why it can be closed, got nothing")
        if case.incident.state != "open":
            raise Conflict("CONFLICT", detail=f"{request.id}: expected an open one, got one that is closed")
        case.incident.state, case.incident.closing = "closed", request.reason
        case.incident.closed_by_uid, case.incident.closed_unix_ms = os.getuid(), now_ms()
        self._note(case, "closed", "incident_close", request.reason)
        return case.incident

    def drill(self, request: monitor_pb2.DrillRequest) -> Iterator[monitor_pb2.DrillStep]:
        """Raises InvalidRequest."""
        if not request.reason.strip():
            raise InvalidRequest("INVALID_REQUEST", detail="reason: expected why, got nothing")
        return (monitor_pb2.DrillStep(step=step, ok=True, text="in memory nothing runs") for step in STEPS)

    def _note(self, case: monitor_pb2.IncidentCase, kind: str, action: str, text: str) -> None:
        index = self._ledger.append("CHANGE", {"action": action, "by_uid": os.getuid(), "why": text})
        case.timeline.add(at_unix_ms=now_ms(), kind=kind, text=text, audit_log=f"log_{index}", by_uid=os.getuid())
