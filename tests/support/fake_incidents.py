"""The incidents of a FakeDaemon: those that a test gives it, and those that are opened and closed."""

# ruff: noqa: N802 - the methods are named by the protocol

import grpc

from plugind_proto.v1 import monitor_pb2


class Incidents:
    """A part of FakeDaemon: `cases` are its incidents, `steps` what a drill tells."""

    def OpenIncident(self, request, context):
        self._admit(request, context)
        made = monitor_pb2.Incident(
            id=f"incident_{len(self.cases) + 1}", state="open", severity=request.severity, title=request.title,
            cause="hand", opened_by_uid=1000, opened_unix_ms=1_700_000_000_000,
        )  # fmt: skip
        made.plugin, _, made.version = request.target.partition("@")
        self.cases.append(monitor_pb2.IncidentCase(incident=made))
        return made

    def ListIncidents(self, request, context):
        self._admit(request, context)
        found = [case.incident for case in self.cases if request.all or case.incident.state == "open"]
        return monitor_pb2.ListIncidentsResponse(incidents=reversed(found))

    def GetIncident(self, request, context):
        self._admit(request, context)
        return self._case(request.id, context)

    def CloseIncident(self, request, context):
        self._admit(request, context)
        incident = self._case(request.id, context).incident
        if incident.state != "open":
            context.abort(grpc.StatusCode.FAILED_PRECONDITION, f"{request.id}: expected an open one")
        incident.state, incident.closing, incident.closed_by_uid = "closed", request.reason, 1000
        return incident

    def Drill(self, request, context):
        self._admit(request, context)
        yield from self.steps

    def _case(self, incident_id, context):
        found = next((case for case in self.cases if case.incident.id == incident_id), None)
        if found is None:
            context.abort(grpc.StatusCode.NOT_FOUND, f"{incident_id}: there is no such incident")
        return found
