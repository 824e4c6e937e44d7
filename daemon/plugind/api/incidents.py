"""The calls of plugind.v1.Governance about incidents, and the drill."""

from __future__ import annotations

import asyncio
import re
import traceback
from collections.abc import AsyncIterator
from typing import Final

import grpc

from plugind.api.accept import Callers
from plugind.api.calls import LINE, Refusals, admitted, call, matching, now_ms, reason_text
from plugind.api.errors import Context, abort
from plugind.api.findings import case_message, incident_message, step_message
from plugind.api.roles import Role
from plugind.casefile import Casefile
from plugind.catalog import Catalog
from plugind.config import log
from plugind.drill import Drill
from plugind.errors import InvalidRequestError, NotFoundError, PlugindError
from plugind.governance.incidents import NOTHING, About, Incident, Incidents, about_target
from plugind.governance.killswitch import Killed
from plugind.model import SEVERITIES, Caller
from plugind_proto.v1 import monitor_pb2

INCIDENT: Final = re.compile(r"incident_[1-9][0-9]{0,17}")


class IncidentCalls:
    """A part of GovernanceService."""

    callers: Callers
    refusals: Refusals
    _catalog: Catalog
    _incidents: Incidents
    _casefile: Casefile
    _drill: Drill

    @call(Role.OPERATOR)
    async def OpenIncident(self, request: monitor_pb2.OpenIncidentRequest, caller: Caller) -> monitor_pb2.Incident:  # noqa: N802
        """An incident that somebody saw."""
        title = matching("title", request.title.strip(), LINE, "a sentence of 1 to 500 characters on one line")
        if request.severity not in SEVERITIES:
            raise InvalidRequestError(f"severity: expected {', '.join(SEVERITIES)}, got {request.severity[:80]!r}")
        return incident_message(await asyncio.to_thread(self._open, title, request, caller.uid))

    def _open(self, title: str, request: monitor_pb2.OpenIncidentRequest, by_uid: int) -> Incident:
        about = about_version(self._catalog, request.target) if request.target else NOTHING
        severity = next(each for each in SEVERITIES if each == request.severity)
        return self._incidents.open(title, severity, by_uid=by_uid, now=now_ms(), about=about)

    @call(Role.OPERATOR)
    async def ListIncidents(  # noqa: N802
        self, request: monitor_pb2.ListIncidentsRequest, caller: Caller
    ) -> monitor_pb2.ListIncidentsResponse:
        """Those that are open, or all."""
        del caller
        found = await asyncio.to_thread(self._incidents.list, closed=request.all)
        return monitor_pb2.ListIncidentsResponse(incidents=map(incident_message, found))

    @call(Role.OPERATOR)
    async def GetIncident(self, request: monitor_pb2.GetIncidentRequest, caller: Caller) -> monitor_pb2.IncidentCase:  # noqa: N802
        """One with its timeline."""
        del caller
        return case_message(await asyncio.to_thread(self._casefile.case, _incident_id(request.id)))

    @call(Role.OPERATOR)
    async def CloseIncident(self, request: monitor_pb2.CloseIncidentRequest, caller: Caller) -> monitor_pb2.Incident:  # noqa: N802
        """Say why it is over."""
        closed = await asyncio.to_thread(
            self._incidents.close, _incident_id(request.id), caller.uid, reason_text(request.reason), now_ms()
        )
        return incident_message(closed)

    async def note_kill(self, killed: Killed) -> None:
        """A kill is an incident. It has taken effect, whether or not this can be noted."""
        try:
            await asyncio.to_thread(self._note_kill, killed)
        except PlugindError as error:
            log(f"kill {killed.hold.target} is in force, but no incident tells of it: {error}")

    def _note_kill(self, killed: Killed) -> None:
        about = about_version(self._catalog, killed.hold.target)
        self._incidents.about_kill(killed.hold, killed.ended_runs, now_ms(), about)

    async def Drill(  # noqa: N802
        self, request: monitor_pb2.DrillRequest, context: Context
    ) -> AsyncIterator[monitor_pb2.DrillStep]:
        """Each step as it is done. The drill goes to its end, and cleans up, also when nobody waits for it."""
        try:
            caller = await admitted(self, context, Role.ADMIN, "Drill")
            async for step in self._drill.steps(reason_text(request.reason), caller.uid):
                yield step_message(step)
        except PlugindError as error:
            await abort(context, error)
        except Exception:  # noqa: BLE001 - as in calls.call, which is for calls with one answer
            log(f"fault in Drill:\n{traceback.format_exc()}")
            await context.abort(grpc.StatusCode.INTERNAL, "a fault of plugind in Drill; see its log")


def about_version(catalog: Catalog, target: str) -> About:
    """The version that NAME@VERSION, plug_N@VERSION or a sha256 stands for; a name alone: all of its versions.

    Raises NotFoundError, InvalidRequestError.
    """
    kept = about_target(catalog.holds.target(target))
    if kept.digest:
        try:
            found = catalog.of_digest(kept.digest)
        except NotFoundError:
            return kept
        return About(found.plugin_id, found.manifest.name, found.manifest.version, found.digest)
    if kept.version:
        version = catalog.version(kept.plugin, kept.version)
        return About(version.plugin_id, kept.plugin, kept.version, version.digest)
    return About(catalog.plugin(kept.plugin).plugin_id, kept.plugin) if kept.plugin else kept


def _incident_id(text: str) -> str:
    return matching("id", text, INCIDENT, "an id like incident_1")
