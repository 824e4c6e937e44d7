"""The calls of plugind.v1.Audit about what runs did to plans: Restore and Impact."""

from __future__ import annotations

import asyncio
from pathlib import Path

from plugind.api.accept import Callers
from plugind.api.calls import LOG_ID, Refusals, call, matching, plugin_name, reason_text, version_text
from plugind.api.roles import Role
from plugind.audit.ledger import Ledger
from plugind.errors import InvalidRequestError
from plugind.model import Caller
from plugind.plans.comparison import Restored
from plugind.plans.impact import PlanImpact, impact
from plugind.plans.undo import Undo, Wish
from plugind_proto.v1 import audit_pb2


class UndoCalls:
    """A part of AuditService."""

    callers: Callers
    refusals: Refusals
    _ledger: Ledger
    _directory: Path
    _undo: Undo

    @call(Role.OPERATOR)
    async def Restore(self, request: audit_pb2.RestoreRequest, caller: Caller) -> audit_pb2.RestoreResponse:  # noqa: N802
        """Put back what a run, or all of a plugin's since some time, have replaced."""
        why = "" if request.dry_run and not request.reason else reason_text(request.reason)
        wish = Wish(caller.uid, why, dry_run=request.dry_run, force=request.force)
        if bool(request.log_id) == bool(request.plugin):
            raise InvalidRequestError("log_id: expected one of log_id and plugin, got both or none")
        if request.log_id:
            if request.version or request.since_unix_ms:
                raise InvalidRequestError("version, since: expected them with plugin only, got them with log_id")
            index = int(matching("log_id", request.log_id, LOG_ID, "an id like log_4001").removeprefix("log_"))
            return audit_pb2.RestoreResponse(runs=[_restored(await self._undo.one(index, wish))])
        plugin, version = plugin_name(request.plugin), version_text(request.version, required=False)
        if not request.since_unix_ms:
            raise InvalidRequestError("since: expected a time, got none: it says how much is undone")
        done = await self._undo.all_of(plugin, version, request.since_unix_ms, wish)
        return audit_pb2.RestoreResponse(runs=map(_restored, done))

    @call(Role.OPERATOR)
    async def Impact(self, request: audit_pb2.ImpactRequest, caller: Caller) -> audit_pb2.ImpactResponse:  # noqa: N802
        """Plans and files that a plugin has touched."""
        del caller
        plugin, version = plugin_name(request.plugin), version_text(request.version, required=False)
        since = request.since_unix_ms
        found = await asyncio.to_thread(impact, self._directory, plugin, version, since, self._ledger.size)
        return audit_pb2.ImpactResponse(
            plans=map(_plan, found.plans), runs=found.runs, plans_left_out=found.plans_left_out
        )


def _restored(done: Restored) -> audit_pb2.RestoredRun:
    write = done.write
    return audit_pb2.RestoredRun(
        log_id=write.log_id,
        plugin=write.plugin,
        version=write.version,
        plan_id=write.plan_id,
        plan_dir=write.plan_dir,
        state=done.state,
        audit_log=f"log_{done.record}" if done.record >= 0 else "",
        files=[
            audit_pb2.RestoredFile(
                path=file.path,
                written_sha256=file.written_sha256,
                found_sha256=file.found_sha256,
                restored_sha256=file.restored_sha256,
                unchanged=file.unchanged,
                difference=file.difference,
                kept_as=file.kept_as,
                problem=file.problem,
            )
            for file in done.files
        ],
        detail=done.detail,
    )


def _plan(plan: PlanImpact) -> audit_pb2.PlanImpact:
    return audit_pb2.PlanImpact(
        plan_id=plan.plan_id,
        plan_dir=plan.plan_dir,
        versions=sorted(plan.versions),
        runs=plan.runs,
        last_unix_ms=plan.last_unix_ms,
        files=[
            audit_pb2.TouchedFile(
                path=file.path,
                log_id=f"log_{file.index}" if file.index >= 0 else "",
                state=file.state,
                sha256=file.sha256,
                bytes=file.bytes,
            )
            for file in plan.files.values()
        ],
        files_left_out=plan.files_left_out,
    )
