"""Requests of the Runtime service as what a runner is asked, every field checked, and its answers as messages."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from plugind import batch
from plugind.admission import InFlight
from plugind.answers import Governance, Opening, RunAnswer, RunRequest
from plugind.api import batches
from plugind.api.calls import RUN_ID, STAGE, matching, plugin_name, version_text
from plugind.api.messages import printable, reason_message
from plugind.errors import InvalidRequestError
from plugind.model import SENSITIVITIES, Caller
from plugind.planfiles import Written, is_root
from plugind.sandbox.samples import Seen
from plugind.targets import PLAN_ID
from plugind_proto.v1 import common_pb2, governance_pb2, runtime_pb2

MOST_TIMEOUT_MS: Final = 24 * 3600 * 1000
MOST_PLAN_DIR_BYTES: Final = 4096
"""PATH_MAX of the kernel."""


def run_request(request: runtime_pb2.RunRequest, caller: Caller) -> RunRequest:
    """A run. Raises InvalidRequestError."""
    if not request.input_json:
        raise InvalidRequestError('input_json: expected a JSON text, got nothing; for no input send "null"')
    return replace(_common(request, caller), input=request.input_json)


def map_request(request: runtime_pb2.MapRequest, caller: Caller) -> RunRequest:
    """A map, with its items. Raises InvalidRequestError."""
    items = batches.items(request.items)
    return replace(_without_input(request.run, caller), input=batch.encode(items), items=items, mode="map")


def session_request(request: runtime_pb2.SessionRequest, caller: Caller) -> tuple[RunRequest, int]:
    """A session, and how long it may be idle, milliseconds. Raises InvalidRequestError."""
    if request.WhichOneof("kind") != "open":
        raise InvalidRequestError("session: expected that the first message opens it, got an input")
    if request.open.run.idempotency_key:
        raise InvalidRequestError("idempotency_key: a session has none, got one")
    return replace(_without_input(request.open.run, caller), mode="session"), request.open.idle_ms


def explained_request(request: governance_pb2.ExplainRequest, caller: Caller) -> RunRequest:
    """A request that is not run. Raises InvalidRequestError."""
    return _common(
        runtime_pb2.RunRequest(
            plugin=request.plugin,
            version=request.version,
            stage=request.stage,
            sensitivity=request.sensitivity,
            timeout_ms=request.timeout_ms,
        ),
        caller,
    )


def _without_input(request: runtime_pb2.RunRequest, caller: Caller) -> RunRequest:
    if request.input_json:
        raise InvalidRequestError("run.input_json: expected nothing, the inputs stand elsewhere; got some")
    return _common(request, caller)


def _common(request: runtime_pb2.RunRequest, caller: Caller) -> RunRequest:
    """The request but for its input, each field checked. Raises InvalidRequestError."""
    sensitivity = request.sensitivity or "internal"
    if sensitivity not in SENSITIVITIES:
        expected = ", ".join(SENSITIVITIES)
        raise InvalidRequestError(f"sensitivity: expected one of {expected}, got {sensitivity[:80]!r}")
    if request.timeout_ms > MOST_TIMEOUT_MS:
        raise InvalidRequestError(f"timeout_ms: expected at most {MOST_TIMEOUT_MS}, got {request.timeout_ms}")
    return RunRequest(
        caller=caller,
        plugin=plugin_name(request.plugin),
        version=version_text(request.version, required=False),
        input=b"",
        stage=request.stage and matching("stage", request.stage, STAGE, "a stage's name, 1 to 64 of [a-z0-9_]"),
        plan_id=request.plan_id
        and matching("plan_id", request.plan_id, PLAN_ID, "1 to 256 characters without control characters"),
        sensitivity=sensitivity,
        timeout_ms=request.timeout_ms,
        trial=request.trial,
        plan_dir=request.plan_dir and _plan_dir(request.plan_dir),
        learn=request.learn,
        run_id=request.run_id and matching("run_id", request.run_id, RUN_ID, "1 to 64 of [A-Za-z0-9_-]"),
    )


def _plan_dir(path: str) -> str:
    if not is_root(path) or len(path.encode()) > MOST_PLAN_DIR_BYTES:
        expected = f"an absolute path of at most {MOST_PLAN_DIR_BYTES} bytes, without empty, . or .. parts"
        raise InvalidRequestError(f"plan_dir: expected {expected}, got {path[:80]!r}")
    return path


def answer_message(answer: RunAnswer) -> runtime_pb2.RunResponse:
    """How a run ended, or why it was denied."""
    response = runtime_pb2.RunResponse(
        decision="allow" if answer.outcome is not None else "deny",
        reasons=[reason_message(reason) for reason in answer.reasons],
        governance=governance_message(answer.governance),
        run_id=answer.run_id,
        version=answer.version,
        retry_after_ms=answer.retry_after_ms,
    )
    if answer.outcome is None:
        return response
    response.outcome = str(answer.outcome)
    response.outcome_detail = printable(answer.detail)
    if not answer.items:  # of a map they stand beside it
        response.output_json = answer.output_json
    response.usage.wall_ms = answer.usage.wall_ms
    response.usage.cpu_ms = answer.usage.cpu_ms
    response.usage.memory_peak_bytes = answer.usage.memory_peak_bytes
    response.usage.SetInParent()
    response.violations.extend(
        common_pb2.Violation(kind=each.kind, name=each.name, count=each.count, detail=each.detail)
        for each in answer.violations
    )
    response.files.extend(_written(each) for each in answer.files)
    response.opened.extend(_opening(each) for each in answer.opened)
    response.stdout, response.stderr = answer.stdout, answer.stderr
    if answer.error is not None:
        error = answer.error
        response.error.CopyFrom(
            runtime_pb2.PluginError(
                type=printable(error.type), message=printable(error.message), traceback=printable(error.traceback)
            )
        )
    return response


def _written(file: Written) -> runtime_pb2.WrittenFile:
    return runtime_pb2.WrittenFile(
        path=file.path,
        sha256=file.sha256,
        bytes=file.bytes,
        replaced_sha256=file.replaced_sha256,
        replaced_bytes=file.replaced_bytes,
    )


def _opening(opening: Opening) -> runtime_pb2.Opening:
    path = printable(opening.path)
    return runtime_pb2.Opening(path=path, mode=opening.mode, place=opening.place, found=opening.found)


def running_message(run: InFlight, seen: Seen | None) -> runtime_pb2.RunningRun:
    """A run in flight. `seen`: what its instance has; what is not known is absent."""
    told = {
        name: value
        for name in ("memory_bytes", "cpu_ms", "pids", "refused_calls")
        if seen is not None and (value := getattr(seen.use, name)) >= 0
    }
    return runtime_pb2.RunningRun(
        run_id=run.run_id,
        plugin_id=run.plugin_id,
        plugin=run.plugin,
        version=run.version,
        tier=max(run.tier, 0),
        stage=run.stage,
        started_unix_ms=run.started_unix_ms,
        caller_uid=run.caller.uid,
        state="running" if run.running else "starting",
        sampled_unix_ms=seen.at_unix_ms if seen else 0,
        **told,
    )


def governance_message(governance: Governance) -> common_pb2.GovernanceRecord:
    """The governance record."""
    return common_pb2.GovernanceRecord(
        plugin_id=governance.plugin_id,
        tier=governance.tier,
        permissions=governance.permissions,
        execution_limit_ms=governance.execution_limit_ms,
        audit_log=governance.audit_log,
    )
