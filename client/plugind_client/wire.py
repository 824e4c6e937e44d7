"""Between protocol buffers and records: every message is taken apart here and nowhere else."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar, cast

from google.protobuf.message import Message

from plugind_client.records import (
    Approval,
    Change,
    Check,
    Denial,
    Governance,
    Hold,
    KillReport,
    Limits,
    Metric,
    MetricsReport,
    Opening,
    Permission,
    PlanFile,
    Plugin,
    PluginException,
    PluginSource,
    PluginVersion,
    PolicyReload,
    Reason,
    RunningRun,
    RunResult,
    Sample,
    Status,
    Submission,
    Usage,
    Violation,
)
from plugind_client.text import output
from plugind_proto.v1 import common_pb2, governance_pb2, monitor_pb2, registry_pb2, runtime_pb2

Record = TypeVar("Record")


def record_of(kind: Callable[..., Record], answer: Message, **converted: object) -> Record:
    """A record out of the message's fields of the same names; what is no plain value is given, converted."""
    names = [field.name for field in dataclasses.fields(cast("Any", kind)) if field.name not in converted]
    return kind(**{name: getattr(answer, name) for name in names}, **converted)


def run_result(answer: runtime_pb2.RunResponse, contents: Mapping[str, bytes] | None = None) -> RunResult:
    """The answer to a run. `contents`: of the files that came back; None: they are where the plan is.

    Raises:
        Fault: the outcome is "ok" and the output is no JSON.
    """
    ran_well = answer.decision == "allow" and answer.outcome == "ok"
    return executed(answer, output(answer.output_json) if ran_well else None, contents)


def executed(
    answer: runtime_pb2.RunResponse, value: object = None, contents: Mapping[str, bytes] | None = None
) -> RunResult:
    """How an execution ended whose outputs came another way, or are `value`."""
    error = answer.error
    return RunResult(
        decision=answer.decision,
        reasons=reasons(answer.reasons),
        governance=_governance(answer.governance),
        outcome=answer.outcome,
        outcome_detail=answer.outcome_detail,
        output=value,
        usage=record_of(Usage, answer.usage),
        violations=tuple(record_of(Violation, violation) for violation in answer.violations),
        stdout=answer.stdout.decode(errors="replace"),
        stderr=answer.stderr.decode(errors="replace"),
        error=record_of(PluginException, error) if answer.HasField("error") else None,
        run_id=answer.run_id,
        version=answer.version,
        retry_after_ms=answer.retry_after_ms,
        files=tuple(record_of(PlanFile, each, content=(contents or {}).get(each.path)) for each in answer.files),
        opened=tuple(record_of(Opening, each) for each in answer.opened),
    )


def reasons(items: Iterable[common_pb2.Reason]) -> tuple[Reason, ...]:
    """Reasons, in the daemon's order."""
    return tuple(record_of(Reason, reason) for reason in items)


def _governance(record: common_pb2.GovernanceRecord) -> Governance:
    return record_of(Governance, record, permissions=tuple(record.permissions))


def running_runs(answer: runtime_pb2.ListRunsResponse) -> list[RunningRun]:
    """The runs in flight."""
    return [_running_run(run) for run in answer.runs]


def _running_run(run: Any) -> RunningRun:
    measured = ("memory_bytes", "cpu_ms", "pids", "refused_calls")
    return record_of(RunningRun, run, **{name: getattr(run, name) if run.HasField(name) else None for name in measured})


def denial(answer: runtime_pb2.WhyResponse) -> Denial:
    """A run that was denied."""
    return record_of(Denial, answer, reasons=reasons(answer.reasons))


# --- registry --------------------------------------------------------------------------------------------------------


def plugins(answer: registry_pb2.ListResponse) -> list[Plugin]:
    """All plugins."""
    return [plugin(each) for each in answer.plugins]


def plugin(answer: registry_pb2.Plugin) -> Plugin:
    """A plugin with its versions."""
    return record_of(Plugin, answer, versions=tuple(plugin_version(version) for version in answer.versions))


def plugin_version(answer: registry_pb2.PluginVersion) -> PluginVersion:
    """One version of a plugin."""
    return record_of(
        PluginVersion,
        answer,
        stages=tuple(answer.stages),
        limits=record_of(Limits, answer.limits),
        permissions=_permissions(answer.permissions),
        approval=_approval(answer.approval) if answer.HasField("approval") else None,
        holds=_holds(answer.holds),
        widens=tuple(answer.widens),
    )


def _approval(answer: registry_pb2.Approval) -> Approval:
    return record_of(
        Approval,
        answer,
        stages=tuple(answer.stages),
        permissions=_permissions(answer.permissions),
        limits=record_of(Limits, answer.limits),
    )


def limits_message(limits: Limits) -> common_pb2.Limits:
    """Limits as a message."""
    return common_pb2.Limits(**dataclasses.asdict(limits))


def _permissions(items: Iterable[registry_pb2.Permission]) -> tuple[Permission, ...]:
    return tuple(record_of(Permission, item) for item in items)


def permission_messages(items: Iterable[Permission]) -> list[registry_pb2.Permission]:
    """Permissions as messages."""
    return [registry_pb2.Permission(kind=item.kind, entry_json=item.entry_json) for item in items]


def submission(answer: registry_pb2.SubmitResponse) -> Submission:
    """The answer to a bundle that was handed in."""
    return record_of(Submission, answer)


def plugin_source(answer: registry_pb2.SourceResponse) -> PluginSource:
    """A plugin's module."""
    return record_of(PluginSource, answer)


def changes(answer: registry_pb2.HistoryResponse) -> list[Change]:
    """The history."""
    return [record_of(Change, change) for change in answer.changes]


# --- governance ------------------------------------------------------------------------------------------------------


def hold(answer: registry_pb2.Hold) -> Hold:
    """A hold."""
    return record_of(Hold, answer)


def _holds(items: Iterable[registry_pb2.Hold]) -> tuple[Hold, ...]:
    return tuple(hold(item) for item in items)


def kill_report(answer: governance_pb2.KillResponse) -> KillReport:
    """What the kill switch did."""
    return record_of(KillReport, answer, hold=hold(answer.hold))


def status(answer: governance_pb2.StatusResponse) -> Status:
    """How the daemon is."""
    tiers = dict(sorted(answer.unavailable_tiers.items()))
    return record_of(Status, answer, holds=_holds(answer.holds), unavailable_tiers=tiers)


def checks(answer: governance_pb2.ExplainResponse) -> list[Check]:
    """The checks of one request."""
    return [record_of(Check, check, reasons=reasons(check.reasons)) for check in answer.checks]


def policy_reload(answer: governance_pb2.ReloadPolicyResponse) -> PolicyReload:
    """The policy now in force."""
    return record_of(PolicyReload, answer)


def metrics(answer: monitor_pb2.MetricsResponse) -> MetricsReport:
    """All metrics."""
    return record_of(MetricsReport, answer, metrics=tuple(_metric(each) for each in answer.metrics))


def _metric(answer: monitor_pb2.Metric) -> Metric:
    samples = tuple(Sample(each.name, dict(sorted(each.labels.items())), each.value) for each in answer.samples)
    return record_of(Metric, answer, samples=samples)
