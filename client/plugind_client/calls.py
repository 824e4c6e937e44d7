"""Every call of the API: what is sent, how long an answer may take, and what is made of it. Both clients make these.

Those that run plugins are in running.py.

Source: SPEC.md, "Client".
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from plugind_client import running, wire
from plugind_client.incidents import IncidentCalls
from plugind_client.method import Call, Method
from plugind_client.quarantine import QuarantineCalls
from plugind_client.records import (
    Change,
    Check,
    Hold,
    KillReport,
    Limits,
    MetricsReport,
    Permission,
    Plugin,
    PluginSource,
    PluginVersion,
    PolicyReload,
    Status,
    Submission,
)
from plugind_client.requests import message, named
from plugind_proto.v1 import governance_pb2, monitor_pb2, registry_pb2

SUBMIT_S: Final = 120.0
"""Deadline of Submit: up to 32 MiB are checked and written durably."""


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
    """Keeps something from starting, `target` being as for `kill`, but not "all". Runs in flight go on.

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

    `target` is "all", a sha256, NAME, NAME@VERSION, the same with an id, "key:ID", "pkg:pypi/NAME",
    "pkg:pypi/NAME@VERSION", "plan:ID", "caller:UID" or "tier:N".
    Look at `unconfirmed_runs`: those may still have processes.

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


def metrics() -> Call[MetricsReport]:
    """What the daemon counts and measures.

    Raises:
        NotAllowed: as the word says.
    """
    return Call("governance.Metrics", monitor_pb2.MetricsRequest(), wire.metrics)


class Calls(IncidentCalls, QuarantineCalls):
    """The methods that both clients have. What each does is told by the function of its name."""

    run = Method(running.run)
    execute = Method(running.execute)
    cancel = Method(running.cancel)
    runs = Method(running.runs)
    why = Method(running.why)
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
    metrics = Method(metrics)
    list = Method(plugins)  # last: in the class body these two names hide builtins
    map = Method(running.map_payloads)
