"""The life of a run, from a parsed request to its answer. Numbers are those of SPEC.md, section "The life of a run".

 2. look the plugin and version up
 3. provenance: what was verified is what is loaded
 4. decide
 6. validate the input
 7. audit INTENT, durably
 8. look for kills once more, then start; never weaker than the jail
 9. supervise (the launcher)
10. collect: strict JSON, then the output schema
11. a result that comes after a kill is not returned
12. audit OUTCOME, durably; then answer
(1, who calls, is the API's; 5, redaction, comes with the permission that it is for.)
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import secrets
import time
import traceback
from collections.abc import Callable, Collection, Container, Mapping, Sequence
from dataclasses import replace
from typing import Protocol

from plugind import batch, collect, targets
from plugind.admission import Flights, InFlight, Patience, Places
from plugind.answers import (
    STOPPING,
    Denials,
    Governance,
    RunAnswer,
    RunRequest,
    audit_reason,
    busy_reason,
    environment_reason,
    isolation_reason,
)
from plugind.audit.ledger import Ledger
from plugind.audit.records import Denied, Stored
from plugind.catalog import Catalog, Found
from plugind.collect import without_result
from plugind.config import log
from plugind.errors import (
    AuditUnavailableError,
    InvalidEnvironmentError,
    IsolationUnavailableError,
    LauncherGoneError,
)
from plugind.model import (
    POLICY_UID,
    Caller,
    Hold,
    Outcome,
    PluginVersion,
    Profile,
    Reason,
)
from plugind.parking import Parking
from plugind.payload import Checked, Contract, check_input
from plugind.policy.decide import decide_safely, explain
from plugind.policy.facts import Explained, Grant, RunFacts
from plugind.policy.objections import STARTS_IN_QUARANTINE
from plugind.policy.rules import Policy
from plugind.sandbox import jailspec
from plugind.sandbox.client import Talk
from plugind.sandbox.protocol import NOT_LOADED, NOT_PARKED
from plugind.sandbox.running import InstanceRequest, InstanceResult
from plugind.session import Conversation, Terms
from plugind.targets import Targets
from plugind.underway import Underway


class Sandbox(Protocol):
    """What a runner needs of plugind.sandbox.client.LauncherClient."""

    async def load(self, digest: str, read: Callable[[], bytes]) -> None:
        """Hand a bundle over, if that was not done. Raises IsolationUnavailableError."""

    async def run(
        self,
        request: InstanceRequest,
        on_started: Callable[[], None] = ...,
        talk: Talk | None = None,
        parked: str = "",
    ) -> InstanceResult:
        """One instance, from start to end; the one that waits as `parked`, if that is given.

        Raises IsolationUnavailableError, LauncherGoneError.
        """
        ...

    def kill(self, run: str, cause: str) -> None:
        """End it."""

    def kill_many(self, runs: Collection[str], cause: str) -> None:
        """End several."""

    def is_gone(self, run: str) -> bool:
        """Whether no process of it is left."""
        ...


class Guard(Protocol):
    """What a runner needs of plugind.watch.Watch."""

    def reasons(self, record: PluginVersion, tier: int) -> tuple[Reason, ...]:
        """Why nothing of this version may start now."""
        ...

    def begin(self, record: PluginVersion, tier: int) -> tuple[Reason, ...]:
        """It is about to start: why it may not, after all."""
        ...


class Runner:
    """Takes requests through their lives, many at a time."""

    def __init__(
        self,
        catalog: Catalog,
        ledger: Ledger,
        sandbox: Sandbox,
        profiles: Mapping[int, Profile],
        policy: Callable[[], Policy],
        environment: Callable[[str], str],
        parking: Parking | None = None,
        guard: Guard | None = None,
    ) -> None:
        """`policy` gives the policy in force; it is asked once for each request. Without `parking` all start fresh.

        `environment` gives the digest of the one with that name, or raises InvalidEnvironmentError.
        """
        self._catalog = catalog
        self._ledger = ledger
        self._sandbox = sandbox
        self._profiles = profiles
        self._policy = policy
        self._environment = environment
        self._parking = parking
        self._guard = guard
        self.places = Places({tier: profile.instances for tier, profile in profiles.items()})
        self._lives: set[asyncio.Task[RunAnswer]] = set()
        self._stopping = False
        self.flights = Flights(sandbox)
        self.denials = Denials()

    async def run(self, request: RunRequest) -> RunAnswer:
        """One run. Cancelling the caller ends the instance; the run is recorded to its end all the same.

        Raises ConflictError for a run_id that is in flight.
        """
        run, life = self._begin(request)
        try:
            return await asyncio.shield(life)
        except asyncio.CancelledError:
            self.flights.end_flight(run.flight, "canceled")
            raise

    def open(self, request: RunRequest, idle_ms: int = 0) -> Conversation:
        """A session. Whoever opens it closes or cancels it.

        Raises ConflictError for a run_id that is in flight.
        """
        conversation = Conversation(idle_ms)
        run, conversation.life = self._begin(request, conversation)
        conversation.cancel = lambda: self.flights.end_flight(run.flight, "canceled")
        return conversation

    def _begin(
        self, request: RunRequest, conversation: Conversation | None = None
    ) -> tuple[Underway, asyncio.Task[RunAnswer]]:
        run_id = request.run_id or f"run-{secrets.token_hex(8)}"
        flight = InFlight(run_id, request.caller, request.stage, time.time_ns() // 1_000_000)
        self.flights.enter(flight)
        # Of a map it is kept when it is known what of it is refused.
        stored = Stored() if request.mode == "map" else self._ledger.keep(request.input)
        run = Underway(request, flight, stored, conversation)
        life = asyncio.get_running_loop().create_task(self._life(run))
        self._lives.add(life)
        life.add_done_callback(self._lived)
        return run, life

    def explain(self, request: RunRequest) -> tuple[Explained, ...]:
        """Every check of the policy for a request, those that hold too. Nothing is run or recorded."""
        found = self._catalog.find(request.plugin, request.version)
        return explain(self._facts(request, found, self._targets(request, found)))

    def activated(self, record: PluginVersion) -> None:
        """A version is active, since now or on new terms: one is to wait for its first caller, if it may run."""
        if self._parking is None or not self._parking.at_activation:
            return
        manifest = record.manifest
        caller = Caller(POLICY_UID, POLICY_UID, 0, frozenset({"caller"}))
        for stage in ("" if stage == "*" else stage for stage in manifest.stages):
            request = RunRequest(caller, manifest.name, manifest.version, b"", stage=stage)
            found = self._catalog.find(request.plugin, request.version)
            decision = decide_safely(self._facts(request, found, self._targets(request, found)))
            if found.record and decision.grant:
                with contextlib.suppress(InvalidEnvironmentError):  # it is built later: then a run comes first
                    self._parking.ran(found.record, decision.grant, self._environment(manifest.environment))
                return

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

    async def _life(self, run: Underway) -> RunAnswer:
        try:
            # 2. and 3.
            found = self._catalog.find(run.request.plugin, run.request.version)
            self._note(run, found)
            lacks = self._find_environment(run)
            run.flight.targets = self._targets(run.request, found, run.environment)
            # 4.
            decision = decide_safely(self._facts(run.request, found, run.flight.targets))
            run.decision = decision
            # 6. Also of a run that is denied already: a denial tells all its reasons.
            checked = await self._check_input(run, found.contract)
            if run.request.mode == "map":
                run.stored_input = self._ledger.keep(run.request.input)
            if reasons := (*decision.reasons, *checked.reasons, *lacks, *self._stopping_reason()):
                return await self._deny(run, reasons)
            # The policy allows nothing without both.
            assert decision.grant is not None  # noqa: S101
            assert found.contract is not None  # noqa: S101
            return await self._admit(run, found.contract, decision.grant, checked)
        finally:
            self.flights.leave(run.flight)

    def _note(self, run: Underway, found: Found) -> None:
        """What the records and `plugindctl ps` say of it."""
        if found.record is None:
            return
        record = run.record = found.record
        run.tier = run.flight.tier = found.tier
        run.flight.plugin_id = record.plugin_id
        run.flight.plugin, run.flight.version = record.manifest.name, record.manifest.version

    def _targets(self, request: RunRequest, found: Found, environment: str | None = None) -> Targets:
        """What holds can name of a run, in an environment (digest); None: the one in force."""
        if found.record is None:
            return Targets()
        meant = self._catalog.targets(found.record, environment)
        of_run = targets.of_run(found.tier, plan_id=request.plan_id, caller_uid=request.caller.uid)
        return Targets((*meant.parts, of_run))

    def _facts(self, request: RunRequest, found: Found, meant: Container[str]) -> RunFacts:
        record = found.record
        return RunFacts(
            caller=request.caller,
            roles=request.caller.roles,
            plugin=request.plugin,
            version=request.version,
            stage=request.stage,
            sensitivity=request.sensitivity,
            timeout_ms=request.timeout_ms,
            profiles=self._profiles,
            policy=self._policy(),
            now_unix_ms=time.time_ns() // 1_000_000,
            holds=self._catalog.holds.on(meant),
            probation=self._catalog.quarantines.probation(record.digest) if record else None,
            of_plan=bool(request.plan_id),
            trial=request.trial,
            monitor_reasons=self._guard.reasons(record, found.tier) if self._guard and record else (),
            record=found.record,
            other_versions=found.other_versions,
            evidence_tier=found.evidence.tier,
            evidence_reasons=found.evidence.reasons,
            bundle_reasons=found.bundle_reasons,
        )

    async def _check_input(self, run: Underway, contract: Contract | None) -> Checked:
        profile = self._profiles.get(run.tier)
        if contract is None or profile is None or run.request.mode == "session":
            return Checked()
        if run.request.mode == "run":
            return check_input(contract, run.request.input, profile.input_bytes, run.tier)
        # In a thread: it may take a while, and others are waiting.
        checked = await asyncio.to_thread(collect.check_batch, contract, run.request, profile)
        if checked.refused and not checked.reasons:
            # What was refused does not reach the plugin, and is not what it was given.
            run.request = replace(run.request, input=batch.encode(run.request.items, checked.refused))
        return checked

    def _find_environment(self, run: Underway) -> tuple[Reason, ...]:
        """Which packages its environment's name stands for now, or why it cannot have them."""
        if run.record is None:
            return ()
        try:
            run.environment = self._environment(run.record.manifest.environment)
        except InvalidEnvironmentError as error:
            return (environment_reason(run.record.manifest.environment, error),)
        return ()

    def _stopping_reason(self) -> tuple[Reason, ...]:
        if not self._stopping:
            return ()
        return (STOPPING,)

    async def _admit(self, run: Underway, contract: Contract, grant: Grant, checked: Checked) -> RunAnswer:
        patience = Patience(run.request.deadline, grant.limits.wall_ms)
        size = len(run.request.input)
        async with self.places.one(grant.tier, run.flight, patience=patience, input_bytes=size) as full:
            if full is None or run.flight.cause:  # what is to end has its outcome, and never starts
                return await self._execute(run, contract, grant, checked)
            busy = await self._deny(run, (busy_reason(grant.tier, full),))
            return replace(busy, retry_after_ms=full.retry_after_ms)

    async def _execute(self, run: Underway, contract: Contract, grant: Grant, checked: Checked) -> RunAnswer:
        if self._guard and run.record and (reasons := self._guard.begin(run.record, grant.tier)):
            return await self._deny(run, reasons)
        # 7.
        try:
            intent = await self._ledger.append(run.intent(_kinds(grant), grant.limits))
        except AuditUnavailableError as error:
            return run.answer(run.governance(None), reasons=(audit_reason(error),))
        governance = Governance(
            run.flight.plugin_id, f"Tier {grant.tier}", _kinds(grant), grant.limits.wall_ms, f"log_{intent}"
        )
        # 8. to 10.
        items: tuple[batch.Answer, ...] = ()
        try:
            if run.conversation is not None:
                run.conversation.governance = governance
            result = await self._start(run, contract, grant)
            result, items = await self._believe(run, result, contract, grant, checked)
        except IsolationUnavailableError as error:
            return await self._deny(run, (isolation_reason(error),), intent)
        except LauncherGoneError as error:
            result = without_result(Outcome.FAULT, str(error))
        except Exception as error:  # noqa: BLE001 - a fault of ours must not leave an INTENT without OUTCOME
            log(f"fault in {run.flight.run_id}:\n{traceback.format_exc()}")
            result = without_result(Outcome.FAULT, f"a fault of plugind: {type(error).__name__}; see its log")
        # 11.
        self._look_for_kills(run)
        if run.flight.cause and result.outcome is Outcome.OK:
            result = replace(without_result(Outcome(run.flight.cause), "it ended too late"), usage=result.usage)
        # 12.
        try:
            ended = run.ended(self._ledger, intent, result, items)
            await self._ledger.append(ended)
            if self._parking and run.record and result.outcome is Outcome.OK and run.conversation is None:
                self._parking.ran(run.record, grant, run.environment)
        except AuditUnavailableError as error:
            result = without_result(
                Outcome.FAULT, f"its outcome could not be recorded, the result is withheld: {error}"
            )
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
            items=items if result.outcome is Outcome.OK else (),
            frames_sha256=ended.output.sha256 if run.conversation else "",
        )

    async def _believe(
        self, run: Underway, result: InstanceResult, contract: Contract, grant: Grant, checked: Checked
    ) -> tuple[InstanceResult, tuple[batch.Answer, ...]]:
        """The result, as far as it can be believed, and of a map what came of its items."""
        if run.conversation is not None:
            return collect.session_result(run.conversation, result, grant.limits.wall_ms), ()
        if run.request.mode == "map":
            request = run.request
            return await asyncio.to_thread(collect.map_result, contract, request.items, checked, result, request.input)
        believe = functools.partial(
            collect.run_result, contract, checked, result, grant.limits.output_bytes, run.request.input
        )
        return (await asyncio.to_thread(believe) if collect.is_large(result) else believe()), ()

    async def _start(self, run: Underway, contract: Contract, grant: Grant) -> InstanceResult:
        """Load and run. Raises IsolationUnavailableError, LauncherGoneError."""
        assert run.record is not None  # noqa: S101 - it was allowed
        digest = run.record.digest
        profile = self._profiles[grant.tier]
        limits = grant.limits
        if run.conversation is not None:
            limits = jailspec.limits_of_session(limits, profile)
            run.conversation.run_id, run.conversation.version = run.flight.run_id, run.record.manifest.version
            run.conversation.agree(
                self._terms(run, contract, grant), lambda: self._sandbox.kill(run.flight.run_id, "timeout")
            )
        request = InstanceRequest(
            run=run.flight.run_id,
            digest=digest,
            tier=grant.tier,
            limits=limits,
            interface=contract.interface,
            runtime=run.record.manifest.runtime,
            entrypoint=run.record.manifest.entrypoint,
            input=run.request.input,
            context={"stage": run.request.stage, "plan_id": run.request.plan_id},
            stdio_bytes=profile.stdio_bytes,
            mode=run.request.mode,
            environment=run.environment,
            network=grant.network,
        )
        if self._parking and request.mode in ("run", "map") and not request.network:
            run.waiting = self._parking.take(run.record, grant, run.environment)
        try:
            return await self._in_sandbox(run, request)
        except IsolationUnavailableError as error:
            if error.step not in (NOT_LOADED, NOT_PARKED):
                raise
        # The launcher has made room for other bundles meanwhile, or for other instances, and nothing ran.
        run.waiting = None
        return await self._in_sandbox(run, request)

    def _terms(self, run: Underway, contract: Contract, grant: Grant) -> Terms:
        """What holds for a session, and for how long: until policy or registry change what was decided."""
        assert run.conversation is not None  # noqa: S101 - it is a session
        profile, policy, revision = self._profiles[grant.tier], self._policy(), self._catalog.revision
        idle_ms = min(run.conversation.idle_ms or profile.session_idle_ms, profile.session_idle_ms)

        def holds() -> bool:
            nonlocal revision
            if self._policy() is not policy or self._stopping:
                return False
            if self._catalog.revision == revision:
                return True
            found = self._catalog.find(run.request.plugin, run.request.version)
            same = found.record is not None and run.record is not None and found.record.digest == run.record.digest
            revision = self._catalog.revision
            meant = self._targets(run.request, found, run.environment)
            return same and decide_safely(self._facts(run.request, found, meant)).grant == grant

        return Terms(contract, grant, profile, holds, idle_ms)

    def _look_for_kills(self, run: Underway) -> None:
        """A kill since the decision has marked the run; this holds even if it had not."""
        if run.flight.cause:
            return
        if is_stopped(self._catalog.holds.on(run.flight.targets), trial=run.request.trial):
            run.flight.cause = "killed"

    async def _in_sandbox(self, run: Underway, request: InstanceRequest) -> InstanceResult:
        flight = run.flight
        await self._sandbox.load(request.digest, lambda: self._catalog.bundle(request.digest))
        self._look_for_kills(run)
        limits = collect.within(request.limits, run.request.deadline)
        if limits.wall_ms == 0:
            flight.cause = flight.cause or "canceled"
        if flight.cause:
            return without_result(Outcome(flight.cause), f"{flight.cause} before it was started")

        def started() -> None:
            flight.running, flight.began_ns = True, time.perf_counter_ns()

        flight.in_sandbox = True
        try:
            talk = run.conversation.talk if run.conversation else None
            waiting = run.waiting.name if run.waiting else ""
            result = await self._sandbox.run(replace(request, limits=limits), started, talk, waiting)
        finally:
            flight.in_sandbox = flight.running = False
        cut = limits.wall_ms < request.limits.wall_ms and not (run.conversation and run.conversation.timed_out)
        return collect.at_deadline(result) if cut else result

    async def _deny(self, run: Underway, reasons: tuple[Reason, ...], intent: int = -1) -> RunAnswer:
        """Record and answer a denial. `intent`: the INTENT that was written before the jail turned out impossible."""
        try:
            index: int | None = await self._ledger.append(Denied(run.subject(), reasons, intent))
        except AuditUnavailableError as error:
            index, reasons = None, (*reasons, audit_reason(error))
        governance = run.governance(index if intent < 0 else intent)
        answer = run.answer(governance, reasons=reasons)
        self.denials.note(run.request, answer)
        return answer


def is_stopped(holds: Sequence[Hold], *, trial: bool = False) -> bool:
    """Whether one of the holds ends what runs: a kill or a quarantine, but for that in which a trial takes place."""
    return any(
        hold.kind == "killed" or (hold.kind == "quarantined" and not (trial and hold.reason == STARTS_IN_QUARANTINE))
        for hold in holds
    )


def _kinds(grant: Grant) -> tuple[str, ...]:
    """The kinds of permission that a grant has, for the governance record."""
    return tuple(sorted({permission.kind for permission in grant.permissions}))
