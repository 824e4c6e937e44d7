"""The calls about incidents, and the drill, which tells its steps as they happen. They need the admin socket.

Source: SPEC.md, "Incidents".
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any, Final

from plugind_client import wire_findings
from plugind_client.findings import DrillStep, Incident, IncidentCase
from plugind_client.method import Call, Method
from plugind_client.requests import message
from plugind_proto.v1 import monitor_pb2

CASE_S: Final = 120.0
"""Deadline of `incident`: the ledger is read back to the submission of its version."""


def open_incident(title: str, severity: str, *, target: str | None = None) -> Call[Incident]:
    """Opens an incident that somebody saw: one sentence, and low, medium, high or critical.

    `target` is what it is about: NAME, NAME@VERSION, the same with an id, or a sha256.

    Raises:
        NotFound, InvalidRequest, NotAllowed: as the words say.
        Denied: the ledger cannot be written, and nothing was opened.
    """
    request = message(monitor_pb2.OpenIncidentRequest, title=title, severity=severity, target=target)
    return Call("governance.OpenIncident", request, wire_findings.incident)


def incidents(*, closed: bool = False) -> Call[list[Incident]]:
    """The open incidents, or with `closed` all; newest first.

    Raises:
        NotAllowed: as the word says.
    """
    return Call(
        "governance.ListIncidents", message(monitor_pb2.ListIncidentsRequest, all=closed), wire_findings.incidents
    )


def incident(incident_id: str) -> Call[IncidentCase]:
    """One, such as "incident_1", with all that is known of the version it is about.

    Raises:
        NotFound, InvalidRequest, NotAllowed: as the words say.
    """
    request = message(monitor_pb2.GetIncidentRequest, id=incident_id)
    return Call("governance.GetIncident", request, wire_findings.incident_case, CASE_S)


def close_incident(incident_id: str, reason: str) -> Call[Incident]:
    """Closes one, for a reason that is kept with it.

    Raises:
        NotFound, Conflict (it is closed), InvalidRequest, NotAllowed: as the words say.
        Denied: the ledger cannot be written, and it stays open.
    """
    request = message(monitor_pb2.CloseIncidentRequest, id=incident_id, reason=reason)
    return Call("governance.CloseIncident", request, wire_findings.incident)


class IncidentCalls:
    """The methods that both clients have. What each does is told by the function of its name."""

    open_incident = Method(open_incident)
    incidents = Method(incidents)
    incident = Method(incident)
    close_incident = Method(close_incident)


class Drills:
    """A client that waits for each step."""

    def _drilling(self, request: monitor_pb2.DrillRequest) -> Iterator[Any]:
        """The messages that answer it."""
        raise NotImplementedError

    def drill(self, reason: str) -> Iterator[DrillStep]:
        """Lets the daemon run a harmless hostile plugin against itself; each step when it is over.

        It goes to its end, and cleans up, also when nobody waits for it.

        Raises:
            Conflict: another drill is under way, or the name plugind_drill is somebody's.
            InvalidRequest, NotAllowed, Unavailable: as the words say.
        """
        for answer in self._drilling(message(monitor_pb2.DrillRequest, reason=reason)):
            yield wire_findings.drill_step(answer)


class AwaitsDrills:
    """The same for a client whose steps are awaited."""

    def _drilling(self, request: monitor_pb2.DrillRequest) -> AsyncIterator[Any]:
        """The messages that answer it."""
        raise NotImplementedError

    async def drill(self, reason: str) -> AsyncIterator[DrillStep]:
        """As the other client's, for `async for`."""
        async for answer in self._drilling(message(monitor_pb2.DrillRequest, reason=reason)):
            yield wire_findings.drill_step(answer)
