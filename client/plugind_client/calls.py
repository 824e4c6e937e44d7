"""Every call of the API: what is sent, how long an answer may take, and what is made of it. Both clients make these.

Source: SPEC.md, "Client".
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, TypeVar

from plugind_client import wire
from plugind_client.errors import InvalidRequest, error_of
from plugind_client.method import Call, Method
from plugind_client.records import (
    Change,
    Check,
    Denial,
    Hold,
    KillReport,
    Limits,
    Permission,
    Plugin,
    PluginSource,
    PluginVersion,
    PolicyReload,
    RunningRun,
    RunResult,
    Status,
    Submission,
)
from plugind_proto.v1 import governance_pb2, registry_pb2, runtime_pb2

Request = TypeVar("Request")

SUBMIT_S: Final = 120.0
"""Deadline of Submit: up to 32 MiB are checked and written durably."""
GRACE_S: Final = 30.0
"""On top of a run's own time: waiting for its turn, setting up the jail, writing the audit ledger."""


# --- running ---------------------------------------------------------------------------------------------------------


def run(
    name: str,
    payload: object,
    *,
    version: str | None = None,
    stage: str | None = None,
    plan_id: str | None = None,
    sensitivity: str | None = None,
    timeout_ms: int | None = None,
) -> Call[RunResult]:
    """Runs a plugin once and gives its result.

    `name` is a name, an id or `plugin@version`; `payload` any JSON value. `timeout_ms` lowers the wall limit
    that was approved, and never raises it. What interrupts the waiting (Ctrl-C, canceling the task) ends the run.

    Raises:
        Denied: it never ran.
        PluginFailed, LimitExceeded, OutputInvalid, Violated, Killed, Canceled, Fault: it ran and did not end well.
        InvalidRequest, Unavailable: the call itself failed.
    """
    request, deadline_s = _run_request(
        name,
        wire.payload_json(payload),
        version=version,
        stage=stage,
        plan_id=plan_id,
        sensitivity=sensitivity,
        timeout_ms=timeout_ms,
    )
    return Call("runtime.Run", request, _good_result, deadline_s)


def execute(
    name: str,
    payload: object = None,
    *,
    input_json: bytes | None = None,
    version: str | None = None,
    stage: str | None = None,
    plan_id: str | None = None,
    sensitivity: str | None = None,
    timeout_ms: int | None = None,
) -> Call[RunResult]:
    """Like `run`, but denials and every outcome are given back and not raised.

    `input_json` takes the place of `payload` where the input already is JSON text; it is sent as it is.
    """
    request, deadline_s = _run_request(
        name,
        wire.payload_json(payload) if input_json is None else input_json,
        version=version,
        stage=stage,
        plan_id=plan_id,
        sensitivity=sensitivity,
        timeout_ms=timeout_ms,
    )
    return Call("runtime.Run", request, wire.run_result, deadline_s)


def _run_request(
    name: str, input_json: bytes, *, version: str | None, timeout_ms: int | None, **fields: str | None
) -> tuple[object, float | None]:
    """The request, and the deadline of its call: none unless the caller named one."""
    plugin, version = named(name, version)
    request = message(
        runtime_pb2.RunRequest,
        plugin=plugin,
        version=version,
        input_json=input_json,
        timeout_ms=timeout_ms,
        **fields,
    )
    return request, timeout_ms / 1000 + GRACE_S if timeout_ms else None


def _good_result(answer: runtime_pb2.RunResponse) -> RunResult:
    result = wire.run_result(answer)
    error = error_of(result)
    if error is not None:
        raise error
    return result


def cancel(run_id: str) -> Call[bool]:
    """Ends a run of the caller's own (an operator: any). False: no such run is in flight."""
    return Call("runtime.Cancel", message(runtime_pb2.CancelRequest, run_id=run_id), lambda answer: answer.found)


def runs() -> Call[list[RunningRun]]:
    """The runs in flight, oldest first: the caller's own (an operator: all)."""
    return Call("runtime.ListRuns", runtime_pb2.ListRunsRequest(), wire.running_runs)


def why() -> Call[Denial | None]:
    """The last denial of this caller since the daemon started, with all its reasons. None: there was none."""
    return Call("runtime.Why", runtime_pb2.WhyRequest(), wire.denial, missing=lambda _: None)


# --- registry --------------------------------------------------------------------------------------------------------


def plugins() -> Call[list[Plugin]]:
    """All plugins with their versions, by id."""
    return Call("registry.List", registry_pb2.ListRequest(), wire.plugins)


def get(plugin: str) -> Call[Plugin]:
    """One plugin with all its versions, by name or id.

    Raises:
        NotFound: there is none.
    """
    return Call("registry.Get", message(registry_pb2.GetRequest, plugin=plugin), wire.plugin)


def submit(
    bundle: bytes, attestations: bytes = b"", *, development_public_keys: Sequence[str] = ()
) -> Call[Submission]:
    """Hands in a bundle (the bytes of a .plugin.tar) with its attestations (.intoto.jsonl).

    Raises:
        InvalidRequest: the bundle is not valid; `reasons` tells everything that is wrong.
        Conflict: other bytes are stored under the same name and version.
    """
    request = message(
        registry_pb2.SubmitRequest,
        bundle=bundle,
        attestations=attestations,
        development_public_keys=list(development_public_keys),
    )
    return Call("registry.Submit", request, wire.submission, SUBMIT_S)


def source(plugin: str, *, version: str | None = None) -> Call[PluginSource]:
    """The module of a plugin with interface "functions": what `load` takes the signatures from.

    Raises:
        NotFound: there is none, or none that is active.
        Conflict: it has another interface.
    """
    plugin, version = named(plugin, version)
    request = message(registry_pb2.SourceRequest, plugin=plugin, version=version)
    return Call("registry.Source", request, wire.plugin_source)


def history(plugin: str | None = None) -> Call[list[Change]]:
    """Every change to a plugin, by name or id, oldest first; without one, to all and everything.

    Raises:
        NotFound: there is no such plugin.
    """
    return Call("registry.History", message(registry_pb2.HistoryRequest, plugin=plugin), wire.changes)


# --- governance ------------------------------------------------------------------------------------------------------


def approve(
    plugin: str,
    version: str,
    *,
    tier: int,
    reason: str,
    as_declared: bool = False,
    stages: Sequence[str] = (),
    permissions: Sequence[Permission] = (),
    limits: Limits | None = None,
    not_after_unix_ms: int = 0,
) -> Call[PluginVersion]:
    """Approves what is named and nothing else; `as_declared` instead approves all that the manifest asks for.

    `tier` is the highest trust that the approval gives, `reason` is kept with it. `not_after_unix_ms` is when it
    lapses, milliseconds since the epoch; 0: never.

    Raises:
        NotFound, Conflict, InvalidRequest, NotAllowed: as the words say.
    """
    request = message(
        governance_pb2.ApproveRequest,
        plugin=plugin,
        version=version,
        tier=tier,
        as_declared=as_declared,
        stages=list(stages),
        permissions=wire.permission_messages(permissions),
        limits=wire.limits_message(limits) if limits else None,
        reason=reason,
        not_after_unix_ms=not_after_unix_ms,
    )
    return Call("governance.Approve", request, wire.plugin_version)


def activate(plugin: str, version: str, *, reason: str | None = None) -> Call[PluginVersion]:
    """Makes an approved version the active one; the one before it is retired.

    Raises:
        NotFound, Conflict, NotAllowed: as the words say.
    """
    request = message(governance_pb2.ActivateRequest, plugin=plugin, version=version, reason=reason)
    return Call("governance.Activate", request, wire.plugin_version)


def reject(plugin: str, version: str, *, reason: str) -> Call[PluginVersion]:
    """Takes approval and votes away; an active version stops being active.

    Raises:
        NotFound, InvalidRequest, NotAllowed: as the words say.
    """
    request = message(governance_pb2.RejectRequest, plugin=plugin, version=version, reason=reason)
    return Call("governance.Reject", request, wire.plugin_version)


def rollback(plugin: str, version: str | None = None, *, reason: str) -> Call[PluginVersion]:
    """Makes an earlier, approved version active again; without one, the version that was active before.

    Raises:
        NotFound, Conflict, InvalidRequest, NotAllowed: as the words say.
    """
    request = message(governance_pb2.RollbackRequest, plugin=plugin, version=version, reason=reason)
    return Call("governance.Rollback", request, wire.plugin_version)


def suspend(target: str, reason: str) -> Call[Hold]:
    """Keeps NAME, NAME@VERSION, the same with an id, or a sha256 from starting. Runs in flight go on.

    Raises:
        NotFound, InvalidRequest, NotAllowed: as the words say.
    """
    return Call("governance.Suspend", _hold_request(target, reason), wire.hold)


def resume(target: str, reason: str) -> Call[Hold]:
    """Lifts a suspension.

    Raises:
        NotFound, Conflict (nothing is suspended so), InvalidRequest, NotAllowed: as the words say.
    """
    return Call("governance.Resume", _hold_request(target, reason), wire.hold)


def kill(target: str, reason: str) -> Call[KillReport]:
    """The kill switch: what it names does not start any more, and what runs of it is ended.

    `target` is as for `suspend`, or "all". Look at `unconfirmed_runs`: those may still have processes.

    Raises:
        NotFound, InvalidRequest, NotAllowed: as the words say.
    """
    return Call("governance.Kill", _hold_request(target, reason), wire.kill_report)


def lift_kill(target: str, reason: str) -> Call[Hold]:
    """Lets run again what was killed so.

    Raises:
        NotFound, Conflict (nothing is killed so), InvalidRequest, NotAllowed: as the words say.
    """
    return Call("governance.LiftKill", _hold_request(target, reason), wire.hold)


def _hold_request(target: str, reason: str) -> object:
    return message(governance_pb2.HoldRequest, target=target, reason=reason)


def status() -> Call[Status]:
    """How the daemon is. Open to every caller."""
    return Call("governance.Status", governance_pb2.StatusRequest(), wire.status)


def explain(
    plugin: str,
    *,
    version: str | None = None,
    stage: str | None = None,
    sensitivity: str | None = None,
    timeout_ms: int | None = None,
) -> Call[list[Check]]:
    """Every check that a run with these arguments would have to pass, in their order. Nothing is run or recorded.

    Raises:
        InvalidRequest: as the word says.
    """
    plugin, version = named(plugin, version)
    request = message(
        governance_pb2.ExplainRequest,
        plugin=plugin,
        version=version,
        stage=stage,
        sensitivity=sensitivity,
        timeout_ms=timeout_ms,
    )
    return Call("governance.Explain", request, wire.checks)


def reload_policy() -> Call[PolicyReload]:
    """Lets the daemon read its policy file again.

    Raises:
        Conflict: the file is broken, and the policy in force stays; `reasons` tell where.
        NotAllowed: as the word says.
    """
    return Call("governance.ReloadPolicy", governance_pb2.ReloadPolicyRequest(), wire.policy_reload)


class Calls:
    """The methods that both clients have. What each does is told by the function of its name, above."""

    run = Method(run)
    execute = Method(execute)
    cancel = Method(cancel)
    runs = Method(runs)
    why = Method(why)
    get = Method(get)
    submit = Method(submit)
    source = Method(source)
    history = Method(history)
    approve = Method(approve)
    activate = Method(activate)
    reject = Method(reject)
    rollback = Method(rollback)
    suspend = Method(suspend)
    resume = Method(resume)
    kill = Method(kill)
    lift_kill = Method(lift_kill)
    status = Method(status)
    explain = Method(explain)
    reload_policy = Method(reload_policy)
    list = Method(plugins)  # last: in the class body the name hides the builtin


# --- requests --------------------------------------------------------------------------------------------------------


def message(kind: Callable[..., Request], **fields: object) -> Request:
    """A message, with Python's complaint about a wrong argument as InvalidRequest."""
    try:
        return kind(**{name: value for name, value in fields.items() if value is not None})
    except (TypeError, ValueError) as error:
        raise InvalidRequest("INVALID_REQUEST", detail=str(error)) from None


def named(name: str, version: str | None) -> tuple[str, str | None]:
    """A name and version out of "plugin@version".

    Raises:
        InvalidRequest: the name is empty, or the version is given twice and differs.
    """
    plugin, at, said = name.partition("@")
    if not plugin or (at and not said):
        raise InvalidRequest("INVALID_REQUEST", detail=f"a plugin is NAME or NAME@VERSION, got {name!r}")
    if said and version and said != version:
        raise InvalidRequest("INVALID_REQUEST", detail=f"{name!r} and version {version!r} contradict each other")
    return plugin, said or version
