"""plugind.v1.Governance: what people decide about plugins."""

from __future__ import annotations

import asyncio
import time

from plugind.api.accept import Door
from plugind.api.calls import call, plugin_name, version_text
from plugind.api.messages import limits_of, permissions_of, version_message
from plugind.api.roles import DevRoles, Role
from plugind.catalog import Catalog
from plugind.errors import InvalidRequestError
from plugind.model import TIERS, Approval, Caller, PluginVersion
from plugind.registry import approvals
from plugind_proto.v1 import governance_pb2, governance_pb2_grpc, registry_pb2


class GovernanceService(governance_pb2_grpc.GovernanceServicer):
    """Approving and activating."""

    def __init__(self, door: Door, roles: DevRoles, catalog: Catalog) -> None:
        self.door = door
        self.roles = roles
        self._catalog = catalog

    @call(Role.APPROVER)
    async def Approve(self, request: governance_pb2.ApproveRequest, caller: Caller) -> registry_pb2.PluginVersion:  # noqa: N802
        """Approve what is named, and nothing else."""
        return version_message(await asyncio.to_thread(self._approve, request, caller))

    def _approve(self, request: governance_pb2.ApproveRequest, caller: Caller) -> PluginVersion:
        plugin, version = plugin_name(request.plugin), version_text(request.version, required=True)
        record = self._catalog.version(plugin, version)
        approval = _approval(request, caller)
        if request.as_declared:
            approval = approvals.as_declared(
                record.manifest,
                tier=approval.tier,
                by_uid=approval.by_uid,
                at_unix_ms=approval.at_unix_ms,
                reason=approval.reason,
            )
        return self._catalog.approve(plugin, version, approval)

    @call(Role.OPERATOR)
    async def Activate(self, request: governance_pb2.ActivateRequest, caller: Caller) -> registry_pb2.PluginVersion:  # noqa: N802
        """Make an approved version the active one."""
        version = await asyncio.to_thread(
            self._catalog.activate,
            plugin_name(request.plugin),
            version_text(request.version, required=True),
            by_uid=caller.uid,
        )
        return version_message(version)


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
        at_unix_ms=time.time_ns() // 1_000_000,
        reason=request.reason.strip(),
    )
