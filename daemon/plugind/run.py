"""The life of a run, from a parsed request to its answer. The numbers are those of SPEC.md, section "The life of a run".

 2. look the plugin and version up
 3. provenance: what was verified is what is loaded
 4. decide
 6. validate the input
 7. audit INTENT, durably
 8. start; never weaker than the jail
 9. supervise (the launcher)
10. collect: strict JSON, then the output schema
11. a result that comes after a kill is not returned
12. audit OUTCOME, durably; then answer
(1, who calls, is the API's; 5 and the kill generations of 8 and 11 come with the permissions and the kill switch.)
"""

from __future__ import annotations

import asyncio
import secrets
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Protocol

from plugind.admission import Flights, InFlight, Places
from plugind.audit.ledger import Ledger
from plugind.audit.records import Denied, Ended, Intent, Subject, sha256
from plugind.catalog import Candidate, Catalog, Grant, RunFacts
from plugind.config import log
from plugind.errors import AuditUnavailableError, IsolationUnavailableError, LauncherGoneError
from plugind.model import (
    Caller,
    Code,
    Limits,
    Outcome,
    PluginError,
    Profile,
    Reason,
    Usage,
    Violation,
)
from plugind.payload import Checked, check_input, output_problem
from plugind.sandbox.client import InstanceRequest, InstanceResult

STOPPING_REMEDY = "send it again when the daemon is up"


@dataclass(frozen=True, slots=True)
class RunRequest:
    """What a caller wants to run; every field was checked for its form. Empty and zero: not given."""

    caller: Caller
    plugin: str
    version: str
    input_json: bytes
    stage: str = ""
    plan_id: str = ""
    sensitivity: str = "internal"
    timeout_ms: int = 0
    run_id: str = ""


@dataclass(frozen=True, slots=True)
class Governance:
    """The governance record. Empty and zero where a denial came before it was known."""

    plugin_id: str = ""
    tier: str = ""
    permissions: tuple[str, ...] = ()
    execution_limit_ms: int = 0
    audit_log: str = ""


@dataclass(frozen=True, slots=True)
class RunAnswer:
    """A denial (reasons, no outcome) or how it ended (outcome, no reasons)."""

    run_id: str
    version: str
    governance: Governance
    reasons: tuple[Reason, ...] = ()
    outcome: Outcome | None = None
    detail: str = ""
    output_json: bytes = b""
    usage: Usage = Usage()
    violations: tuple[Violation, ...] = ()
    stdout: bytes = b""
    stderr: bytes = b""
    error: PluginError | None = None


class Sandbox(Protocol):
    """What a runner needs of plugind.sandbox.client.LauncherClient."""

    async def load(self, digest: str, bundle: bytes) -> None: ...
    def forget(self, digest: str) -> None: ...
    async def run(self, request: InstanceRequest, on_started: Callable[[], None] = ...) -> InstanceResult: ...
    def kill(self, run: str, cause: str) -> None: ...


@dataclass(slots=True)
class _Run:
    """A request on its way: what is known of it so far."""

    request: RunRequest
    flight: InFlight
    input_sha256: str
    candidate: Candidate | None = None
    tier: int = -1

    def subject(self) -> Subject:
        """Who wanted what, for the ledger."""
        request, found = self.request, self.candidate
        return Subject(
            run=self.flight.run_id,
            caller_uid=request.caller.uid,
            plugin_id=found.plugin_id if found else "",
            plugin=found.name if found else request.plugin,
            version=found.version if found else request.version,
            digest=found.digest if found else "",
            tier=self.tier,
            stage=request.stage,
            plan_id=request.plan_id,
            sensitivity=request.sensitivity,
            input_sha256=self.input_sha256,
            input_bytes=len(request.input_json),
        )

    def answer(self, governance: Governance, **fields: object) -> RunAnswer:
        """The answer, with what every answer has."""
        version = self.candidate.version if self.candidate else self.request.version
        return replace(RunAnswer(self.flight.run_id, version, governance), **fields)  # type: ignore[arg-type]


class Runner:
    """Takes requests through their lives, many at a time."""

    def __init__(self, catalog: Catalog, ledger: Ledger, sandbox: Sandbox, profiles: Mapping[int, Profile]) -> None:
        self._catalog = catalog
        self._ledger = ledger
        self._sandbox = sandbox
        self._profiles = profiles
        self._places = Places({tier: profile.instances for tier, profile in profiles.items()})
        self._loaded: set[str] = set()
        self._lives: set[asyncio.Task[RunAnswer]] = set()
        self._stopping = False
        self.flights = Flights(sandbox.kill)

    async def run(self, request: RunRequest) -> RunAnswer:
        """One run. Cancelling the caller ends the instance; the run is recorded to its end all the same.

        Raises ConflictError for a run_id that is in flight.
        """
        run_id = request.run_id or f"run-{secrets.token_hex(8)}"
        flight = InFlight(run_id, request.caller, request.stage, time.time_ns() // 1_000_000)
        self.flights.enter(flight)
        run = _Run(request, flight, sha256(request.input_json))
        life = asyncio.get_running_loop().create_task(self._life(run))
        self._lives.add(life)
        life.add_done_callback(self._lived)
        try:
            return await asyncio.shield(life)
        except asyncio.CancelledError:
            self.flights.end(run_id, "canceled")
            raise

    def _lived(self, life: asyncio.Task[RunAnswer]) -> None:
        self._lives.discard(life)
        life.exception()  # the caller may be gone: then nobody else asks for it

    async def stop(self, patience_s: float) -> bool:
        """Deny what comes, kill what runs, and wait. Whether everything has ended and is recorded."""
        self._stopping = True
        self.flights.end_all("killed")
        if not self._lives:
            return True
        _, pending = await asyncio.wait(self._lives, timeout=patience_s)
        return not pending

    async def _life(self, run: _Run) -> RunAnswer:
        try:
            # 2. and 3.
            found = self._catalog.find(run.request.plugin, run.request.version)
            if not isinstance(found, Candidate):
                return await self._deny(run, found)
            run.candidate = found
            run.flight.plugin_id, run.flight.plugin, run.flight.version = found.plugin_id, found.name, found.version
            # 4.
            decision = self._catalog.decide(found, _facts(run.request))
            run.tier = run.flight.tier = decision.tier
            profile = self._profiles[decision.tier]
            # 6. Also of a run that is denied already: a denial tells all its reasons.
            checked = check_input(found.contract, run.request.input_json, profile.input_bytes, decision.tier)
            if reasons := (*decision.reasons, *checked.reasons, *self._stopping_reason()):
                return await self._deny(run, reasons)
            assert decision.grant is not None  # noqa: S101 - there is one where there is no reason against it
            return await self._admit(run, found, decision.grant, checked)
        finally:
            self.flights.leave(run.flight)

    def _stopping_reason(self) -> tuple[Reason, ...]:
        if not self._stopping:
            return ()
        return (Reason(Code.BUSY, "daemon", "a running daemon", "it is stopping", STOPPING_REMEDY),)

    async def _admit(self, run: _Run, found: Candidate, grant: Grant, checked: Checked) -> RunAnswer:
        if not await self._places.take(grant.tier):
            capacity = self._places.capacity(grant.tier)
            busy = Reason(
                Code.BUSY,
                f"tier.{grant.tier}.instances",
                expected=f"at most {capacity} instances at a time",
                actual="one more, and none ended in a second",
                remedy=f"send it again later, or raise instances in profiles/tier{grant.tier}.toml",
            )
            return await self._deny(run, (busy,))
        try:
            return await self._execute(run, found, grant, checked)
        finally:
            self._places.give_back(grant.tier)

    async def _execute(self, run: _Run, found: Candidate, grant: Grant, checked: Checked) -> RunAnswer:
        # 7.
        try:
            intent = await self._ledger.append(Intent(run.subject(), grant.permissions, grant.limits))
        except AuditUnavailableError as error:
            return run.answer(self._governance(run, None), reasons=(_audit_reason(error),))
        governance = Governance(
            found.plugin_id, f"Tier {grant.tier}", grant.permissions, grant.limits.wall_ms, f"log_{intent}"
        )
        # 8. to 10.
        try:
            result = await self._start(run, found, grant)
            result = _believe(result, found, grant.limits, checked)
        except IsolationUnavailableError as error:
            return await self._deny(run, (_isolation_reason(error),), intent)
        except LauncherGoneError as error:
            result = _without_result(Outcome.FAULT, str(error))
        except Exception as error:  # noqa: BLE001 - a fault of ours must not leave an INTENT without OUTCOME
            log(f"fault in {run.flight.run_id}:\n{traceback.format_exc()}")
            result = _without_result(Outcome.FAULT, f"a fault of plugind: {type(error).__name__}; see its log")
        # 11.
        if run.flight.cause and result.outcome is Outcome.OK:
            result = replace(_without_result(Outcome(run.flight.cause), "it ended too late"), usage=result.usage)
        # 12.
        try:
            await self._ledger.append(_ended(intent, run.flight.run_id, result))
        except AuditUnavailableError as error:
            result = _without_result(Outcome.FAULT, f"its outcome could not be recorded, the result is withheld: {error}")
        return run.answer(
            governance,
            outcome=result.outcome,
            detail=result.detail,
            output_json=result.output_json or b"",
            usage=result.usage,
            violations=result.violations,
            stdout=result.stdout,
            stderr=result.stderr,
            error=result.error,
        )

    async def _start(self, run: _Run, found: Candidate, grant: Grant) -> InstanceResult:
        """Load and run. Raises IsolationUnavailableError, LauncherGoneError."""
        request = InstanceRequest(
            run=run.flight.run_id,
            digest=found.digest,
            tier=grant.tier,
            limits=grant.limits,
            interface=found.contract.interface,
            entrypoint=found.entrypoint,
            input_json=run.request.input_json,
            context={"stage": run.request.stage, "plan_id": run.request.plan_id},
            stdio_bytes=self._profiles[grant.tier].stdio_bytes,
        )
        await self._load(found)
        try:
            return await self._in_sandbox(run.flight, request)
        except IsolationUnavailableError as error:
            if error.step != "not_loaded":
                raise
        # The launcher made room for other bundles. Nothing ran: hand it over once more.
        self._loaded.discard(found.digest)
        self._sandbox.forget(found.digest)
        await self._load(found)
        return await self._in_sandbox(run.flight, request)

    async def _load(self, found: Candidate) -> None:
        if found.digest not in self._loaded:
            await self._sandbox.load(found.digest, self._catalog.bundle(found.digest))
            self._loaded.add(found.digest)

    async def _in_sandbox(self, flight: InFlight, request: InstanceRequest) -> InstanceResult:
        if flight.cause:
            return _without_result(Outcome(flight.cause), f"{flight.cause} before it was started")

        def started() -> None:
            flight.running = True

        flight.in_sandbox = True
        try:
            return await self._sandbox.run(request, started)
        finally:
            flight.in_sandbox = flight.running = False

    async def _deny(self, run: _Run, reasons: tuple[Reason, ...], intent: int = -1) -> RunAnswer:
        """Record and answer a denial. `intent`: the INTENT that was written before the jail turned out impossible."""
        try:
            index = await self._ledger.append(Denied(run.subject(), reasons, intent))
        except AuditUnavailableError as error:
            return run.answer(self._governance(run, None), reasons=(*reasons, _audit_reason(error)))
        return run.answer(self._governance(run, index if intent < 0 else intent), reasons=reasons)

    def _governance(self, run: _Run, index: int | None) -> Governance:
        return Governance(
            plugin_id=run.candidate.plugin_id if run.candidate else "",
            tier=f"Tier {run.tier}" if run.tier >= 0 else "",
            audit_log="" if index is None else f"log_{index}",
        )


def _facts(request: RunRequest) -> RunFacts:
    return RunFacts(
        stage=request.stage,
        sensitivity=request.sensitivity,
        timeout_ms=request.timeout_ms,
    )


def _believe(result: InstanceResult, found: Candidate, limits: Limits, checked: Checked) -> InstanceResult:
    """The result, or output_invalid for one that is not strict JSON or breaks the output schema."""
    if result.outcome is not Outcome.OK:
        return replace(result, output_json=None)
    problem = output_problem(found.contract, result.output_json or b"", limits.output_bytes, checked.calls)
    if not problem:
        return result
    return replace(result, outcome=Outcome.OUTPUT_INVALID, detail=problem, output_json=None)


def _without_result(outcome: Outcome, detail: str) -> InstanceResult:
    return InstanceResult(outcome, detail, None, None, b"", b"", Usage(), ())


def _ended(intent: int, run_id: str, result: InstanceResult) -> Ended:
    return Ended(
        intent=intent,
        run=run_id,
        outcome=str(result.outcome),
        detail=result.detail,
        output_sha256=sha256(result.output_json or b""),
        stdout_sha256=sha256(result.stdout),
        stderr_sha256=sha256(result.stderr),
        usage=result.usage,
        violations=result.violations,
    )


def _audit_reason(error: AuditUnavailableError) -> Reason:
    return Reason(
        Code.AUDIT_UNAVAILABLE,
        "audit.intent",
        expected="a ledger that can be written",
        actual=str(error),
        remedy="free the disk or put the segment back, then restart plugind",
    )


def _isolation_reason(error: IsolationUnavailableError) -> Reason:
    return Reason(
        Code.ISOLATION_UNAVAILABLE,
        f"jail.{error.step}",
        expected="every step of the jail works",
        actual=str(error),
        remedy="plugindctl doctor",
    )
