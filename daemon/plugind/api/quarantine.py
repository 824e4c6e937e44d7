"""The calls of plugind.v1.Governance about quarantine and what the monitor found."""

from __future__ import annotations

import asyncio
import functools
import json
from typing import Final

from plugind.api.accept import Callers
from plugind.api.calls import STAGE, Refusals, call, matching, now_ms, reason_text
from plugind.api.findings import anomaly_message
from plugind.api.messages import change_message, hold_message
from plugind.api.roles import Role
from plugind.casefile import Casefile
from plugind.catalog import Catalog
from plugind.errors import ConflictError, InvalidRequestError, NotAllowedError
from plugind.governance.incidents import About, Incidents
from plugind.governance.monitor import Monitor
from plugind.governance.quarantine import Quarantine
from plugind.metrics.counts import Metrics
from plugind.model import POLICY_UID, Caller, Hold, PluginVersion
from plugind.policy.objections import STARTS_IN_QUARANTINE
from plugind.policy.rules import QuarantineRule
from plugind_proto.v1 import governance_pb2, monitor_pb2

MOST_ANOMALIES: Final = 100
MOST_RECORDS: Final = 200
MOST_LISTED: Final = 1000


class QuarantineCalls:
    """A part of GovernanceService."""

    callers: Callers
    refusals: Refusals
    _catalog: Catalog
    _incidents: Incidents
    _casefile: Casefile
    _quarantine: Quarantine
    _monitor: Monitor
    metrics: Metrics

    def _rule(self) -> QuarantineRule:
        """Of the policy in force."""
        raise NotImplementedError

    @call(Role.OPERATOR)
    async def Quarantine(  # noqa: N802
        self, request: governance_pb2.HoldRequest, caller: Caller
    ) -> monitor_pb2.QuarantinedVersion:
        """By hand: one person is enough."""
        reason = reason_text(request.reason)
        version = await asyncio.to_thread(self._named, request.target)
        hold = Hold("quarantined", f"sha256:{version.digest}", reason, caller.uid, now_ms())
        put = await self._quarantine.put(hold)
        if put.hold is hold:
            await asyncio.to_thread(self._note, version, hold)
        message = await asyncio.to_thread(self._message, version)
        message.ended_runs = put.ended_runs
        return message

    def _note(self, version: PluginVersion, hold: Hold) -> None:
        about = About(version.plugin_id, version.manifest.name, version.manifest.version, version.digest)
        if self._incidents.open_for(version.digest) is None:
            title = f"{version.label}: put into quarantine by uid {hold.by_uid}: {hold.reason}"[:500]
            by_uid, now = hold.by_uid, hold.at_unix_ms
            self._incidents.open(
                title, "high", by_uid=by_uid, now=now, cause="quarantine", about=about, unrecorded=True
            )

    @call(Role.OPERATOR)
    async def ListQuarantine(  # noqa: N802
        self, request: monitor_pb2.ListQuarantineRequest, caller: Caller
    ) -> monitor_pb2.ListQuarantineResponse:
        """What is there, and what is on probation."""
        del request, caller
        return monitor_pb2.ListQuarantineResponse(versions=await asyncio.to_thread(self._list))

    def _list(self) -> list[monitor_pb2.QuarantinedVersion]:
        held = [each.target for each in self._catalog.holds.all() if each.kind == "quarantined"]
        digests = [target.removeprefix("sha256:") for target in held]
        digests += [each.digest for each in self._catalog.quarantines.probations()]
        return [self._message(self._catalog.of_digest(digest)) for digest in list(dict.fromkeys(digests))[:MOST_LISTED]]

    @call(Role.OPERATOR)
    async def GetQuarantine(  # noqa: N802
        self, request: monitor_pb2.GetQuarantineRequest, caller: Caller
    ) -> monitor_pb2.QuarantineCase:
        """One with its evidence."""
        del caller
        version = await asyncio.to_thread(self._named, request.target)
        statistics = json.dumps(self._monitor.summary(version.digest))
        case = await asyncio.to_thread(self._case, version)
        case.statistics_json = statistics
        return case

    def _case(self, version: PluginVersion) -> monitor_pb2.QuarantineCase:
        quarantines = self._catalog.quarantines
        if not (quarantines.hold(version.digest) or quarantines.probation(version.digest)):
            raise ConflictError(f"{version.plugin_id} {version.label}: expected one in quarantine or on probation")
        anomalies = self._monitor.anomalies(digest=version.digest, limit=MOST_ANOMALIES)
        records = self._casefile.records(version.digest)[:MOST_RECORDS]
        history = [
            each for each in self._catalog.history(version.plugin_id) if each.version == version.manifest.version
        ]
        return monitor_pb2.QuarantineCase(
            version=self._message(version),
            anomalies=map(anomaly_message, anomalies),
            records_json=[each.text.decode() for each in records],
            history=map(change_message, history),
        )

    @call(Role.APPROVER)
    async def Release(self, request: monitor_pb2.ReleaseRequest, caller: Caller) -> monitor_pb2.ReleaseResponse:  # noqa: N802
        """One approver's word for letting it out."""
        reason = reason_text(request.reason)
        if request.trying:
            return await self._begin_anew(request, caller, reason)
        stages = [
            stage if stage == "*" else matching("stages", stage, STAGE, "names of stages") for stage in request.stages
        ]
        version = await asyncio.to_thread(self._named, request.target)
        rule, held = self._rule(), self._catalog.quarantines.hold(version.digest)
        released = await asyncio.to_thread(
            self._catalog.quarantines.release,
            version,
            stages,
            by_uid=caller.uid,
            why=reason,
            at_unix_ms=now_ms(),
            approvers=rule.approvers,
            runs=rule.probation_runs,
        )
        if released:
            self._monitor.released(version.digest)
            if held and held.by_uid == POLICY_UID and held.reason != STARTS_IN_QUARANTINE:
                self.metrics.released_as_false()
        message = await asyncio.to_thread(self._message, version)
        return monitor_pb2.ReleaseResponse(version=message, released=released)

    async def _begin_anew(
        self, request: monitor_pb2.ReleaseRequest, caller: Caller, reason: str
    ) -> monitor_pb2.ReleaseResponse:
        """Whoever tries his own plugin, over and over, is not to wait for anybody's word."""
        if not self._catalog.development:
            raise NotAllowedError("Release: trying: expected a development daemon (--dev), this is none")
        if request.stages:
            raise InvalidRequestError("stages: expected none with trying, got some")
        version = await asyncio.to_thread(self._named, request.target)
        there = self._catalog.quarantines.hold(version.digest) is not None
        if there:
            stages = version.approval.stages if version.approval else ()
            release = self._catalog.quarantines.release
            said = functools.partial(release, by_uid=caller.uid, why=reason, at_unix_ms=now_ms())
            await asyncio.to_thread(said, version, stages, approvers=1, runs=0)
        self._monitor.released(version.digest)
        message = await asyncio.to_thread(self._message, version)
        return monitor_pb2.ReleaseResponse(version=message, released=there)

    @call(Role.OPERATOR)
    async def ListAnomalies(  # noqa: N802
        self, request: monitor_pb2.ListAnomaliesRequest, caller: Caller
    ) -> monitor_pb2.ListAnomaliesResponse:
        """Newest first."""
        del caller
        name = await asyncio.to_thread(self._name, request.plugin) if request.plugin else ""
        limit = min(request.limit or MOST_ANOMALIES, MOST_LISTED)
        found = await asyncio.to_thread(self._monitor.anomalies, plugin=name, limit=limit)
        return monitor_pb2.ListAnomaliesResponse(anomalies=map(anomaly_message, found))

    def _name(self, plugin: str) -> str:
        return self._catalog.plugin(plugin).name

    def _named(self, target: str) -> PluginVersion:
        """The version that a target names. Raises InvalidRequestError, NotFoundError."""
        kept = self._catalog.holds.target(target)
        if kept.startswith("sha256:"):
            return self._catalog.of_digest(kept.removeprefix("sha256:"))
        name, at, version = kept.partition("@")
        if not at:
            raise InvalidRequestError(
                f"target: expected NAME@VERSION or a sha256, got {target[:80]!r}: quarantine is by digest"
            )
        return self._catalog.version(name, version)

    def _message(self, version: PluginVersion) -> monitor_pb2.QuarantinedVersion:
        quarantines = self._catalog.quarantines
        hold = quarantines.hold(version.digest)
        probation = None if hold else quarantines.probation(version.digest)  # a hold ends it, a moment later
        incident = self._incidents.open_for(version.digest)
        return monitor_pb2.QuarantinedVersion(
            hold=hold_message(hold) if hold else None,
            plugin_id=version.plugin_id,
            plugin=version.manifest.name,
            version=version.manifest.version,
            digest=version.digest,
            state="quarantined" if hold else "probation" if probation else "",
            incident=incident.id if incident else "",
            released_by_uids=quarantines.votes(version.digest),
            approvers_needed=self._rule().approvers,
            probation_stages=probation.stages if probation else (),
            probation_runs_left=probation.runs_left if probation else 0,
        )
