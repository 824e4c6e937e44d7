"""The runs of a plugind in memory: checked as far as it knows, answered by a test, recorded.

Source: SPEC.md, "The life of a run".
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from plugind_client.errors import DENIALS, Conflict, InvalidRequest, PlugindError
from plugind_client.memory.answers import OF_AN_INPUT, Answers, Ending, denial, evaluated
from plugind_client.memory.ledger import Ledger, now_ms
from plugind_client.memory.plans import PlanRefused, Workspace
from plugind_client.memory.registry import Registry, stored
from plugind_client.planfiles import Received, Sent
from plugind_client.records import Reason
from plugind_proto.v1 import common_pb2, governance_pb2, registry_pb2, runtime_pb2

WALL_MS: Final = 5000
"""The limit that a governance record tells when neither caller nor manifest names one."""


@dataclass(slots=True)
class Flight:
    """A run in flight. `cause`: why it is to end, "canceled" or "killed"."""

    request: runtime_pb2.RunRequest
    plugin: registry_pb2.Plugin
    version: registry_pb2.PluginVersion
    run_id: str
    started_unix_ms: int
    intent: int
    workspace: Workspace
    cause: str = ""


class Runs:
    """Runs over one registry. Threads may run at the same time: only the answers are asked for outside the lock."""

    def __init__(self, registry: Registry, ledger: Ledger, lock: threading.RLock) -> None:
        self._registry, self._ledger, self._lock = registry, ledger, lock
        self.answers: dict[tuple[str, str], Answers] = {}
        self._flights: dict[str, Flight] = {}
        self._count = 0
        self._denial: runtime_pb2.WhyResponse | None = None

    def __len__(self) -> int:
        return len(self._flights)

    # --- one run ---------------------------------------------------------------------------------------------------

    def run(self, request: runtime_pb2.RunRequest) -> runtime_pb2.RunResponse:
        """From the checks to the record. Raises what the answer says when the call itself is to fail."""
        return self._run(request, None).run

    def run_files(self, request: Sent) -> Received:
        """The same of a run that brings its files along."""
        return self._run(request.run, request.files)

    def _run(self, request: runtime_pb2.RunRequest, sent: Mapping[str, bytes] | None) -> Received:
        if request.learn:
            raise InvalidRequest("INVALID_REQUEST", detail="learn: expected a development daemon, got one in memory")
        with self._lock:
            plugin, version = self._found(request.plugin, request.version)
            reasons = _reasons(self._checks(plugin, version, request.stage))
            if plugin is None or version is None or reasons:
                return Received(self._denied(request, plugin, version, reasons), {})
            answer = self._answers(plugin.name, version.version).next()
            if isinstance(answer, PlugindError) and answer.code in DENIALS:
                return Received(self._denied(request, plugin, version, denial(answer)), {})
            flight = self._take_off(request, plugin, version, request.input_json, sent)
        if isinstance(flight, runtime_pb2.RunResponse):
            return Received(flight, {})
        return Received(self._fly(flight, answer), {} if sent is None else flight.workspace.written)

    def _found(self, name: str, wanted: str) -> tuple[registry_pb2.Plugin | None, registry_pb2.PluginVersion | None]:
        plugin = self._registry.find(name)
        return plugin, stored(plugin, wanted or plugin.active_version) if plugin else None

    def _answers(self, name: str, version: str) -> Answers:
        """Raises AssertionError, which no code under test takes for something that plugind says."""
        answers = self.answers.get((name, version))
        if answers is None:
            raise AssertionError(f"{name}@{version} may run, but this test gave no answer for it: fake.answers(...)")
        return answers

    def _take_off(
        self,
        request: runtime_pb2.RunRequest,
        plugin: registry_pb2.Plugin,
        version: registry_pb2.PluginVersion,
        text: bytes,
        sent: Mapping[str, bytes] | None = None,
    ) -> Flight | runtime_pb2.RunResponse:
        """The run in flight, or its denial because of its plan."""
        try:
            workspace = Workspace(request, version, sent)
        except PlanRefused as refused:
            return self._denied(request, plugin, version, [refused.reason])
        self._count += 1
        run_id = request.run_id or f"run_{self._count}"
        if run_id in self._flights:
            raise Conflict("CONFLICT", detail=f"run_id: {run_id} is in flight already")
        subject = _subject(request, plugin, version) | {"run": run_id}
        files, payloads = workspace.of_intent()
        intent = self._ledger.append("INTENT", subject | files, payloads, input=text)
        flight = Flight(request, plugin, version, run_id, now_ms(), intent, workspace)
        self._flights[run_id] = flight
        return flight

    def _fly(self, flight: Flight, answer: object) -> runtime_pb2.RunResponse:
        started = time.monotonic()
        ending = Ending("unknown")  # unless the answer is one: then the call failed, and nobody knows
        try:
            text, interface = flight.request.input_json, flight.version.interface
            ending = evaluated(answer, text, interface, flight.workspace.context)
        finally:
            wall_ms = int((time.monotonic() - started) * 1000)
            with self._lock:
                del self._flights[flight.run_id]
                ending = Ending(flight.cause, f"{flight.cause} while it ran") if flight.cause else ending
                answered = self._landed(flight, ending, wall_ms)
        return answered

    def _landed(self, flight: Flight, ending: Ending, wall_ms: int) -> runtime_pb2.RunResponse:
        workspace = flight.workspace
        try:
            ending = workspace.settled(ending)
        finally:
            workspace.close()
        if ending.reasons:
            return self._denied(flight.request, flight.plugin, flight.version, ending.reasons)
        subject = _subject(flight.request, flight.plugin, flight.version) | {"run": flight.run_id}
        told = {"outcome": ending.outcome, "detail": ending.detail}
        files, payloads = workspace.of_outcome()
        self._ledger.end(flight.intent, subject | told | files, payloads, output=ending.output, stdout=b"", stderr=b"")
        if files["plan_dir"]:
            names = ("run", "plugin_id", "plugin", "version", "plan_id")
            of_run = {"intent": flight.intent} | {name: subject[name] for name in names}
            put = {"plan_dir": workspace.plan_dir, "files": len(workspace.written)}
            self._ledger.append("COMMITTED", of_run | put)
        return runtime_pb2.RunResponse(
            decision="allow",
            governance=_governance(flight.plugin, flight.version, flight.request, flight.intent),
            outcome=ending.outcome,
            outcome_detail=ending.detail,
            output_json=ending.output,
            usage=common_pb2.Usage(wall_ms=wall_ms),
            violations=ending.violations,
            files=workspace.messages(),
            error=ending.error,
            run_id=flight.run_id,
            version=flight.version.version,
        )

    def _denied(
        self,
        request: runtime_pb2.RunRequest,
        plugin: registry_pb2.Plugin | None,
        version: registry_pb2.PluginVersion | None,
        reasons: Sequence[Reason],
    ) -> runtime_pb2.RunResponse:
        told = [common_pb2.Reason(**_fields(reason)) for reason in reasons]
        subject = _subject(request, plugin, version)
        index = self._ledger.append("DENIED", subject | {"reasons": [_fields(reason) for reason in reasons]})
        governance = _governance(plugin, version, request, index)
        self._denial = runtime_pb2.WhyResponse(
            plugin=subject["plugin"],
            version=subject["version"],
            stage=request.stage,
            sensitivity=subject["sensitivity"],
            reasons=told,
            audit_log=governance.audit_log,
            at_unix_ms=now_ms(),
        )
        return runtime_pb2.RunResponse(decision="deny", reasons=told, governance=governance, version=subject["version"])

    # --- an execution of many inputs -------------------------------------------------------------------------------

    def start(self, request: runtime_pb2.RunRequest, text: bytes = b"") -> Flight | runtime_pb2.RunResponse:
        """What inputs are given to, or the denial. `text` is what is known of them beforehand."""
        with self._lock:
            plugin, version = self._found(request.plugin, request.version)
            reasons = _reasons(self._checks(plugin, version, request.stage))
            if plugin is None or version is None or reasons:
                return self._denied(request, plugin, version, reasons)
            answers = self._answers(plugin.name, version.version)
            answer = answers.first
            if isinstance(answer, PlugindError) and answer.code in DENIALS.keys() - OF_AN_INPUT:
                answers.next()
                return self._denied(request, plugin, version, denial(answer))
            return self._take_off(request, plugin, version, text)

    def step(self, flight: Flight, text: bytes, interface: str = "") -> Ending:
        """What one input gives, or how all of it ended. Raises what the answer says when the call itself is to fail."""
        with self._lock:
            if not flight.cause:
                answer = self._answers(flight.plugin.name, flight.version.version).next()
        kind = interface or flight.version.interface
        ending = Ending() if flight.cause else evaluated(answer, text, kind, flight.workspace.context)
        return Ending(flight.cause, f"{flight.cause} while it ran") if flight.cause else ending

    def changed(self, flight: Flight) -> bool:
        """Whether it could not start any more."""
        with self._lock:
            return bool(_reasons(self._checks(flight.plugin, flight.version, flight.request.stage)))

    def governance(self, flight: Flight) -> common_pb2.GovernanceRecord:
        """Its record, while it lasts."""
        return _governance(flight.plugin, flight.version, flight.request, flight.intent)

    def finish(self, flight: Flight, ending: Ending) -> runtime_pb2.RunResponse:
        """The record of all of it, and the answer without its outputs."""
        with self._lock:
            del self._flights[flight.run_id]
            answered = self._landed(flight, ending, now_ms() - flight.started_unix_ms)
        answered.ClearField("output_json")
        return answered

    # --- the other calls -------------------------------------------------------------------------------------------

    def why(self) -> runtime_pb2.WhyResponse | None:
        """The last denial."""
        return self._denial

    def running(self) -> runtime_pb2.ListRunsResponse:
        """The runs in flight."""
        return runtime_pb2.ListRunsResponse(runs=map(_running, self._flights.values()))

    def end(self, cause: str, met: Callable[[Flight], bool]) -> int:
        """Marks the runs that are meant: whatever their answers give, this is how they end. How many."""
        chosen = [flight for flight in self._flights.values() if met(flight)]
        for flight in chosen:
            flight.cause = flight.cause or cause
        return len(chosen)

    def explain(self, request: governance_pb2.ExplainRequest) -> governance_pb2.ExplainResponse:
        """Every check, and whether all pass. What a test denies is no check, and not told here."""
        plugin, version = self._found(request.plugin, request.version)
        checks = [
            governance_pb2.Check(
                name=name, ok=reason is None, reasons=[common_pb2.Reason(**_fields(reason))] if reason else []
            )
            for name, reason in self._checks(plugin, version, request.stage)
        ]
        return governance_pb2.ExplainResponse(checks=checks, allowed=all(check.ok for check in checks))

    def _checks(
        self, plugin: registry_pb2.Plugin | None, version: registry_pb2.PluginVersion | None, stage: str
    ) -> Iterator[tuple[str, Reason | None]]:
        """Names of checks, each with what is against the run. Of a plugin that is not there nothing more is known."""
        if plugin is None or (version is None and not plugin.versions):
            yield "known", Reason("PLUGIN_NOT_FOUND", "gate.known", "a plugin or version that was submitted", "none")
            return
        if version is None:
            active = plugin.active_version or "none is active"
            code = "PLUGIN_NOT_FOUND" if plugin.active_version else "NOT_APPROVED"
            yield "known", Reason(code, "gate.known", "a version that may run", active)
            return
        yield "known", None
        yield "state", _against_state(plugin, version)
        for hold in self._registry.holds_of(plugin, version):
            yield "holds", Reason(hold.kind.upper(), "gate.holds", "no hold", f"{hold.target}: {hold.reason}")
        allowed = version.approval.stages
        wrong = version.HasField("approval") and "*" not in allowed and stage not in allowed
        expected = ", ".join(allowed)
        yield "stage", Reason("STAGE_NOT_ALLOWED", "gate.stage", expected, stage or "no stage") if wrong else None


def _against_state(plugin: registry_pb2.Plugin, version: registry_pb2.PluginVersion) -> Reason | None:
    label = f"{plugin.name}@{version.version}"
    if not version.HasField("approval"):
        remedy = f"plugindctl approve {label} --as-declared --reason TEXT"
        return Reason("NOT_APPROVED", "gate.approval", "an approval", "none", remedy)
    if 0 < version.approval.not_after_unix_ms <= now_ms():
        return Reason("APPROVAL_EXPIRED", "gate.approval", "an approval that holds", "one that has lapsed")
    if version.state != "active":
        remedy = f"plugindctl activate {label}"
        return Reason("NOT_APPROVED", "gate.state", f"{label} active", f"it is {version.state}", remedy)
    return None


def _reasons(checks: Iterator[tuple[str, Reason | None]]) -> list[Reason]:
    return [reason for _, reason in checks if reason]


# --- messages --------------------------------------------------------------------------------------------------------


def _fields(reason: Reason) -> dict[str, str]:
    names = ("code", "rule", "expected", "actual", "remedy")
    return {name: getattr(reason, name) for name in names}


def _subject(
    request: runtime_pb2.RunRequest,
    plugin: registry_pb2.Plugin | None,
    version: registry_pb2.PluginVersion | None,
) -> dict[str, Any]:
    return {
        "caller_uid": os.getuid(),
        "plugin_id": plugin.plugin_id if plugin else "",
        "plugin": plugin.name if plugin else request.plugin,
        "version": version.version if version else request.version,
        "digest": version.digest if version else "",
        "tier": version.tier if version else -1,
        "stage": request.stage,
        "plan_id": request.plan_id,
        "sensitivity": request.sensitivity or "internal",
    }


def _governance(
    plugin: registry_pb2.Plugin | None,
    version: registry_pb2.PluginVersion | None,
    request: runtime_pb2.RunRequest,
    index: int,
) -> common_pb2.GovernanceRecord:
    limit_ms = (version.limits.wall_ms if version else 0) or WALL_MS
    return common_pb2.GovernanceRecord(
        plugin_id=plugin.plugin_id if plugin else "",
        tier=f"Tier {version.tier}" if version else "",
        permissions=sorted({each.kind for each in version.approval.permissions}) if version else (),
        execution_limit_ms=min(limit_ms, request.timeout_ms or limit_ms),
        audit_log=f"log_{index}",
    )


def _running(flight: Flight) -> runtime_pb2.RunningRun:
    return runtime_pb2.RunningRun(
        run_id=flight.run_id,
        plugin_id=flight.plugin.plugin_id,
        plugin=flight.plugin.name,
        version=flight.version.version,
        tier=flight.version.tier,
        stage=flight.request.stage,
        started_unix_ms=flight.started_unix_ms,
        caller_uid=os.getuid(),
        state="running",
    )
