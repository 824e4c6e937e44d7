"""plugind.v1.Governance: what people decide about plugins, and how the daemon is."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import ParamSpec, Protocol

from plugind import targets
from plugind.api.accept import Callers
from plugind.api.calls import Refusals, call, now_ms, plugin_name, reason_text, version_text
from plugind.api.incidents import IncidentCalls
from plugind.api.messages import hold_message, limits_of, permissions_of, reason_message, version_message
from plugind.api.metrics import MetricsCalls
from plugind.api.quarantine import QuarantineCalls
from plugind.api.roles import Role
from plugind.api.runs import explained_request
from plugind.casefile import Casefile
from plugind.catalog import Catalog
from plugind.drill import Drill
from plugind.errors import ConflictError, InvalidRequestError
from plugind.governance.incidents import Incidents
from plugind.governance.killswitch import KillSwitch
from plugind.governance.monitor import Monitor
from plugind.governance.quarantine import Quarantine
from plugind.metrics.counts import Metrics
from plugind.model import TIERS, Approval, Caller, Hold, HoldKind, PluginVersion
from plugind.policy.rules import Policy, QuarantineRule
from plugind.registry import approvals
from plugind.run import Runner
from plugind_proto.v1 import governance_pb2, governance_pb2_grpc, registry_pb2

P = ParamSpec("P")


class Daemon(Protocol):
    """What the daemon tells of itself, and how its policy is read again."""

    def status(self) -> governance_pb2.StatusResponse:
        """How it is at this moment."""
        ...

    @property
    def policy(self) -> Policy:
        """The policy in force."""
        ...

    async def reload_policy(self, by_uid: int) -> tuple[Policy, bool]:
        """The policy now in force, and whether it is another one. Raises ConfigError; then nothing has changed."""
        ...


class GovernanceService(IncidentCalls, MetricsCalls, QuarantineCalls, governance_pb2_grpc.GovernanceServicer):
    """Approving, activating, holding, killing."""

    def __init__(
        self,
        callers: Callers,
        refusals: Refusals,
        catalog: Catalog,
        runner: Runner,
        kill_switch: KillSwitch,
        daemon: Daemon,
        incidents: Incidents,
        casefile: Casefile,
        drill: Drill,
        metrics: Metrics,
        quarantine: Quarantine,
        monitor: Monitor,
    ) -> None:
        self.callers = callers
        self.refusals = refusals
        self._catalog = catalog
        self._runner = runner
        self._kill_switch = kill_switch
        self._daemon = daemon
        self._incidents = incidents
        self._casefile = casefile
        self._drill = drill
        self.metrics = metrics
        self._quarantine = quarantine
        self._monitor = monitor

    @call(Role.APPROVER)
    async def Approve(self, request: governance_pb2.ApproveRequest, caller: Caller) -> registry_pb2.PluginVersion:  # noqa: N802
        """Approve what is named, and nothing else."""
        return await self._version(self._approve, request, caller)

    def _approve(self, request: governance_pb2.ApproveRequest, caller: Caller) -> PluginVersion:
        plugin, version = plugin_name(request.plugin), version_text(request.version, required=True)
        record = self._catalog.version(plugin, version)
        settings = self._daemon.policy.settings
        if record.submitted_by_uid == caller.uid and not settings.approver_may_be_submitter:
            raise ConflictError(
                f"{record.plugin_id} {record.label}: expected another approver than uid {caller.uid}, who submitted it"
                " (settings.approver_may_be_submitter of the policy)"
            )
        approval = _approval(request, caller)
        if request.as_declared:
            approval = approvals.as_declared(
                record.manifest,
                tier=approval.tier,
                by_uid=approval.by_uid,
                at_unix_ms=approval.at_unix_ms,
                reason=approval.reason,
                not_after_unix_ms=approval.not_after_unix_ms,
            )
        return self._catalog.approve(plugin, version, approval, approvers=settings.approvers)

    @call(Role.APPROVER)
    async def Reject(self, request: governance_pb2.RejectRequest, caller: Caller) -> registry_pb2.PluginVersion:  # noqa: N802
        """Take its approval away."""
        return await self._version(
            self._catalog.reject,
            plugin_name(request.plugin),
            version_text(request.version, required=True),
            by_uid=caller.uid,
            why=reason_text(request.reason),
        )

    @call(Role.OPERATOR)
    async def Activate(self, request: governance_pb2.ActivateRequest, caller: Caller) -> registry_pb2.PluginVersion:  # noqa: N802
        """Make an approved version the active one."""
        return await self._version(
            self._catalog.activate,
            plugin_name(request.plugin),
            version_text(request.version, required=True),
            by_uid=caller.uid,
            why=request.reason and reason_text(request.reason),
        )

    @call(Role.OPERATOR)
    async def Rollback(self, request: governance_pb2.RollbackRequest, caller: Caller) -> registry_pb2.PluginVersion:  # noqa: N802
        """Make an earlier version active again."""
        return await self._version(
            self._catalog.rollback,
            plugin_name(request.plugin),
            version_text(request.version, required=False),
            by_uid=caller.uid,
            why=reason_text(request.reason),
        )

    async def _version(
        self, change: Callable[P, PluginVersion], *arguments: P.args, **named: P.kwargs
    ) -> registry_pb2.PluginVersion:
        """Make a change in a thread; the version as it is then."""
        version = await asyncio.to_thread(change, *arguments, **named)
        if version.state == "active":
            self._runner.activated(version)
        return await asyncio.to_thread(version_message, version, self._catalog)

    def _rule(self) -> QuarantineRule:
        return self._daemon.policy.quarantine

    # -- holds

    @call(Role.OPERATOR)
    async def Suspend(self, request: governance_pb2.HoldRequest, caller: Caller) -> registry_pb2.Hold:  # noqa: N802
        """Let it not run any more, until it is resumed."""
        if request.target == targets.ALL:
            raise InvalidRequestError(
                f"target: expected one of {targets.EXPECTED}, but not all: for that there is kill"
            )
        hold = await self._hold("suspended", request, caller)
        return hold_message(await asyncio.to_thread(self._catalog.holds.set, hold))

    @call(Role.OPERATOR)
    async def Resume(self, request: governance_pb2.HoldRequest, caller: Caller) -> registry_pb2.Hold:  # noqa: N802
        """Lift a suspension."""
        return await self._lift("suspended", request, caller)

    @call(Role.OPERATOR)
    async def Kill(self, request: governance_pb2.HoldRequest, caller: Caller) -> governance_pb2.KillResponse:  # noqa: N802
        """The kill switch: one person is enough."""
        killed = await self._kill_switch.kill(await self._hold("killed", request, caller))
        if killed.ended_runs and not killed.unconfirmed_runs:
            self.metrics.contained(killed.took_us / 1_000_000)
        await self.note_kill(killed)
        return governance_pb2.KillResponse(
            hold=hold_message(killed.hold),
            ended_runs=killed.ended_runs,
            took_us=killed.took_us,
            unconfirmed_runs=killed.unconfirmed_runs,
        )

    @call(Role.OPERATOR)
    async def LiftKill(self, request: governance_pb2.HoldRequest, caller: Caller) -> registry_pb2.Hold:  # noqa: N802
        """Let it run again."""
        return await self._lift("killed", request, caller)

    async def _hold(self, kind: HoldKind, request: governance_pb2.HoldRequest, caller: Caller) -> Hold:
        # What needs no look into the registry waits for no thread: all of them may be busy.
        known = targets.canonical(request.target)
        target = known or await asyncio.to_thread(self._catalog.target, request.target)
        return Hold(kind, target, reason_text(request.reason), caller.uid, now_ms())

    async def _lift(self, kind: HoldKind, request: governance_pb2.HoldRequest, caller: Caller) -> registry_pb2.Hold:
        hold = await self._hold(kind, request, caller)
        lifted = await asyncio.to_thread(
            self._catalog.holds.lift,
            kind,
            hold.target,
            by_uid=hold.by_uid,
            at_unix_ms=hold.at_unix_ms,
            why=hold.reason,
        )
        return hold_message(lifted)

    # -- the daemon

    @call(Role.CALLER)
    async def Status(self, request: governance_pb2.StatusRequest, caller: Caller) -> governance_pb2.StatusResponse:  # noqa: N802
        """How the daemon is."""
        del request, caller
        return self._daemon.status()

    @call(Role.CALLER)
    async def Explain(self, request: governance_pb2.ExplainRequest, caller: Caller) -> governance_pb2.ExplainResponse:  # noqa: N802
        """Every check for one request."""
        checks = self._runner.explain(explained_request(request, caller))
        return governance_pb2.ExplainResponse(
            checks=[
                governance_pb2.Check(
                    name=each.name, ok=each.ok, reasons=[reason_message(reason) for reason in each.reasons]
                )
                for each in checks
            ],
            allowed=all(each.ok for each in checks),
        )

    @call(Role.ADMIN)
    async def ReloadPolicy(  # noqa: N802
        self, request: governance_pb2.ReloadPolicyRequest, caller: Caller
    ) -> governance_pb2.ReloadPolicyResponse:
        """Read the policy file again."""
        del request
        policy, changed = await self._daemon.reload_policy(caller.uid)
        return governance_pb2.ReloadPolicyResponse(policy_sha256=policy.digest, changed=changed)


def _approval(request: governance_pb2.ApproveRequest, caller: Caller) -> Approval:
    if request.tier not in TIERS:
        raise InvalidRequestError(f"tier: expected 0, 1 or 2, got {request.tier}")
    if request.as_declared and (request.stages or request.permissions or request.HasField("limits")):
        raise InvalidRequestError("as_declared: expected no stages, permissions or limits beside it, got some")
    return Approval(
        tier=request.tier,
        stages=tuple(request.stages),
        permissions=permissions_of(request.permissions),
        limits=limits_of(request.limits),
        by_uid=caller.uid,
        at_unix_ms=now_ms(),
        reason=reason_text(request.reason),
        not_after_unix_ms=request.not_after_unix_ms,
    )
