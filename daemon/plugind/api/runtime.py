"""plugind.v1.Runtime: Run, Cancel, ListRuns."""

from __future__ import annotations

from plugind.answers import Governance, RunAnswer, RunRequest
from plugind.api.accept import Callers
from plugind.api.calls import PLAN_ID, RUN_ID, STAGE, Refusals, call, matching, plugin_name, version_text
from plugind.api.messages import printable, reason_message
from plugind.api.roles import Role
from plugind.errors import InvalidRequestError, NotFoundError
from plugind.model import SENSITIVITIES, Caller
from plugind.run import Runner
from plugind_proto.v1 import common_pb2, governance_pb2, runtime_pb2, runtime_pb2_grpc

MOST_TIMEOUT_MS = 24 * 3600 * 1000


class RuntimeService(runtime_pb2_grpc.RuntimeServicer):
    """Open to every caller; what is somebody else's only to operators."""

    def __init__(self, callers: Callers, refusals: Refusals, runner: Runner) -> None:
        self.callers = callers
        self.refusals = refusals
        self._runner = runner

    @call(Role.CALLER)
    async def Run(self, request: runtime_pb2.RunRequest, caller: Caller) -> runtime_pb2.RunResponse:  # noqa: N802
        """One input to one instance."""
        return _answer(await self._runner.run(_parse(request, caller)))

    @call(Role.CALLER)
    async def Cancel(self, request: runtime_pb2.CancelRequest, caller: Caller) -> runtime_pb2.CancelResponse:  # noqa: N802
        """End one run."""
        run_id = matching("run_id", request.run_id, RUN_ID, "1 to 64 of [A-Za-z0-9_-]")
        found = self._runner.flights.end(run_id, "canceled", self._scope(caller))
        return runtime_pb2.CancelResponse(found=found)

    @call(Role.CALLER)
    async def ListRuns(  # noqa: N802
        self, request: runtime_pb2.ListRunsRequest, caller: Caller
    ) -> runtime_pb2.ListRunsResponse:
        """The runs in flight."""
        del request
        runs = [
            runtime_pb2.RunningRun(
                run_id=run.run_id,
                plugin_id=run.plugin_id,
                plugin=run.plugin,
                version=run.version,
                tier=max(run.tier, 0),
                stage=run.stage,
                started_unix_ms=run.started_unix_ms,
                caller_uid=run.caller.uid,
                state="running" if run.running else "starting",
            )
            for run in self._runner.flights.visible(self._scope(caller))
        ]
        return runtime_pb2.ListRunsResponse(runs=runs)

    @call(Role.CALLER)
    async def Why(self, request: runtime_pb2.WhyRequest, caller: Caller) -> runtime_pb2.WhyResponse:  # noqa: N802
        """The caller's last denial."""
        del request
        last = self._runner.denials.last(caller)
        if last is None:
            raise NotFoundError(f"uid {caller.uid}: expected a denial since the daemon started, got none")
        asked, answer, at_unix_ms = last
        return runtime_pb2.WhyResponse(
            plugin=asked.plugin,
            version=answer.version,
            stage=asked.stage,
            sensitivity=asked.sensitivity,
            reasons=[reason_message(reason) for reason in answer.reasons],
            audit_log=answer.governance.audit_log,
            at_unix_ms=at_unix_ms,
        )

    def _scope(self, caller: Caller) -> Caller | None:
        """Whose runs this caller may see and end: None is everybody's."""
        return None if Role.OPERATOR in caller.roles else caller


def _parse(request: runtime_pb2.RunRequest, caller: Caller) -> RunRequest:
    """The request, each field checked. Raises InvalidRequestError."""
    sensitivity = request.sensitivity or "internal"
    if sensitivity not in SENSITIVITIES:
        expected = ", ".join(SENSITIVITIES)
        raise InvalidRequestError(f"sensitivity: expected one of {expected}, got {sensitivity[:80]!r}")
    if request.timeout_ms > MOST_TIMEOUT_MS:
        raise InvalidRequestError(f"timeout_ms: expected at most {MOST_TIMEOUT_MS}, got {request.timeout_ms}")
    if not request.input_json:
        raise InvalidRequestError('input_json: expected a JSON text, got nothing; for no input send "null"')
    return RunRequest(
        caller=caller,
        plugin=plugin_name(request.plugin),
        version=version_text(request.version, required=False),
        input_json=request.input_json,
        stage=request.stage and matching("stage", request.stage, STAGE, "a stage's name, 1 to 64 of [a-z0-9_]"),
        plan_id=request.plan_id
        and matching("plan_id", request.plan_id, PLAN_ID, "1 to 256 characters without control characters"),
        sensitivity=sensitivity,
        timeout_ms=request.timeout_ms,
        run_id=request.run_id and matching("run_id", request.run_id, RUN_ID, "1 to 64 of [A-Za-z0-9_-]"),
    )


def explained_request(request: governance_pb2.ExplainRequest, caller: Caller) -> RunRequest:
    """A request that is not run. Raises InvalidRequestError."""
    return _parse(
        runtime_pb2.RunRequest(
            plugin=request.plugin,
            version=request.version,
            input_json=b"null",
            stage=request.stage,
            sensitivity=request.sensitivity,
            timeout_ms=request.timeout_ms,
        ),
        caller,
    )


def _answer(answer: RunAnswer) -> runtime_pb2.RunResponse:
    response = runtime_pb2.RunResponse(
        decision="allow" if answer.outcome is not None else "deny",
        reasons=[reason_message(reason) for reason in answer.reasons],
        governance=_governance(answer.governance),
        run_id=answer.run_id,
        version=answer.version,
    )
    if answer.outcome is None:
        return response
    response.outcome = str(answer.outcome)
    response.outcome_detail = printable(answer.detail)
    response.output_json = answer.output_json
    response.usage.wall_ms = answer.usage.wall_ms
    response.usage.cpu_ms = answer.usage.cpu_ms
    response.usage.memory_peak_bytes = answer.usage.memory_peak_bytes
    response.usage.SetInParent()
    response.violations.extend(
        common_pb2.Violation(kind=each.kind, name=each.name, count=each.count, detail=each.detail)
        for each in answer.violations
    )
    response.stdout, response.stderr = answer.stdout, answer.stderr
    if answer.error is not None:
        error = answer.error
        response.error.CopyFrom(
            runtime_pb2.PluginError(
                type=printable(error.type), message=printable(error.message), traceback=printable(error.traceback)
            )
        )
    return response


def _governance(governance: Governance) -> common_pb2.GovernanceRecord:
    return common_pb2.GovernanceRecord(
        plugin_id=governance.plugin_id,
        tier=governance.tier,
        permissions=governance.permissions,
        execution_limit_ms=governance.execution_limit_ms,
        audit_log=governance.audit_log,
    )
