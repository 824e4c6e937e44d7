"""Between protocol buffers and records: every message is taken apart here and nowhere else."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from plugind_client.errors import Fault, InvalidRequest
from plugind_client.records import (
    Approval,
    Governance,
    Limits,
    Permission,
    Plugin,
    PluginException,
    PluginVersion,
    Reason,
    RunningRun,
    RunResult,
    Submission,
    Usage,
    Violation,
)
from plugind_proto.v1 import common_pb2, registry_pb2, runtime_pb2


def payload_json(payload: object) -> bytes:
    """The payload as JSON text. Integers stay exact; whether NaN is allowed is the daemon's decision.

    Raises:
        InvalidRequest: it holds something that JSON cannot say, refers to itself or is too deep.
    """
    try:
        return json.dumps(payload, ensure_ascii=False, separators=(",", ":")).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidRequest("PAYLOAD_NOT_JSON", detail=str(error)) from None


def run_result(answer: runtime_pb2.RunResponse) -> RunResult:
    """The answer to a run.

    Raises:
        Fault: the outcome is "ok" and the output is no JSON.
    """
    ran_well = answer.decision == "allow" and answer.outcome == "ok"
    error = answer.error
    return RunResult(
        decision=answer.decision,
        reasons=reasons(answer.reasons),
        governance=_governance(answer.governance),
        outcome=answer.outcome,
        outcome_detail=answer.outcome_detail,
        output=_output(answer.output_json) if ran_well else None,
        usage=Usage(answer.usage.wall_ms, answer.usage.cpu_ms, answer.usage.memory_peak_bytes),
        violations=tuple(Violation(v.kind, v.name, v.count, v.detail) for v in answer.violations),
        stdout=answer.stdout.decode(errors="replace"),
        stderr=answer.stderr.decode(errors="replace"),
        error=PluginException(error.type, error.message, error.traceback) if answer.HasField("error") else None,
        run_id=answer.run_id,
        version=answer.version,
    )


def _output(text: bytes) -> Any:
    """NaN passes: the daemon lets it through only for the interface `functions`."""
    try:
        return json.loads(text.decode())
    except (ValueError, RecursionError) as error:
        raise Fault("BAD_ANSWER", detail=f"the output is no JSON: {error}") from None


def reasons(items: Iterable[common_pb2.Reason]) -> tuple[Reason, ...]:
    """Reasons, in the daemon's order."""
    return tuple(Reason(r.code, r.rule, r.expected, r.actual, r.remedy) for r in items)


def _governance(record: common_pb2.GovernanceRecord) -> Governance:
    return Governance(
        plugin_id=record.plugin_id,
        tier=record.tier,
        permissions=tuple(record.permissions),
        execution_limit_ms=record.execution_limit_ms,
        audit_log=record.audit_log,
    )


def plugin(answer: registry_pb2.Plugin) -> Plugin:
    """A plugin with its versions."""
    return Plugin(
        plugin_id=answer.plugin_id,
        name=answer.name,
        active_version=answer.active_version,
        versions=tuple(plugin_version(version) for version in answer.versions),
    )


def plugin_version(answer: registry_pb2.PluginVersion) -> PluginVersion:
    """One version of a plugin."""
    return PluginVersion(
        version=answer.version,
        digest=answer.digest,
        state=answer.state,
        tier=answer.tier,
        summary=answer.summary,
        license=answer.license,
        origin=answer.origin,
        runtime=answer.runtime,
        interface=answer.interface,
        entrypoint=answer.entrypoint,
        stages=tuple(answer.stages),
        limits=_limits(answer.limits),
        permissions=_permissions(answer.permissions),
        approval=_approval(answer.approval) if answer.HasField("approval") else None,
        submitted_unix_ms=answer.submitted_unix_ms,
        submitted_by_uid=answer.submitted_by_uid,
    )


def _approval(answer: registry_pb2.Approval) -> Approval:
    return Approval(
        by_uid=answer.by_uid,
        at_unix_ms=answer.at_unix_ms,
        tier=answer.tier,
        stages=tuple(answer.stages),
        permissions=_permissions(answer.permissions),
        limits=_limits(answer.limits),
        reason=answer.reason,
    )


def _limits(answer: common_pb2.Limits) -> Limits:
    return Limits(
        wall_ms=answer.wall_ms,
        cpu_ms=answer.cpu_ms,
        memory_bytes=answer.memory_bytes,
        pids=answer.pids,
        output_bytes=answer.output_bytes,
        scratch_bytes=answer.scratch_bytes,
    )


def limits_message(limits: Limits) -> common_pb2.Limits:
    """Limits as a message."""
    return common_pb2.Limits(
        wall_ms=limits.wall_ms,
        cpu_ms=limits.cpu_ms,
        memory_bytes=limits.memory_bytes,
        pids=limits.pids,
        output_bytes=limits.output_bytes,
        scratch_bytes=limits.scratch_bytes,
    )


def _permissions(items: Iterable[registry_pb2.Permission]) -> tuple[Permission, ...]:
    return tuple(Permission(item.kind, item.entry_json) for item in items)


def permission_messages(items: Iterable[Permission]) -> list[registry_pb2.Permission]:
    """Permissions as messages."""
    return [registry_pb2.Permission(kind=item.kind, entry_json=item.entry_json) for item in items]


def submission(answer: registry_pb2.SubmitResponse) -> Submission:
    """The answer to a bundle that was handed in."""
    return Submission(
        plugin_id=answer.plugin_id,
        name=answer.name,
        version=answer.version,
        digest=answer.digest,
        tier=answer.tier,
        state=answer.state,
    )


def running_run(answer: runtime_pb2.RunningRun) -> RunningRun:
    """A run in flight."""
    return RunningRun(
        run_id=answer.run_id,
        plugin_id=answer.plugin_id,
        plugin=answer.plugin,
        version=answer.version,
        tier=answer.tier,
        stage=answer.stage,
        started_unix_ms=answer.started_unix_ms,
        caller_uid=answer.caller_uid,
        state=answer.state,
    )
