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
from collections.abc import Callable, Mapping
from dataclasses import replace

from plugind import batch, collect
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
from plugind.deciding import Deciding, Guard
from plugind.errors import (
    AuditUnavailableError,
    InvalidEnvironmentError,
    IsolationUnavailableError,
    LauncherGoneError,
)
from plugind.model import (
    POLICY_UID,
    Caller,
    Outcome,
    PluginVersion,
    Profile,
    Reason,
)
from plugind.parking import Parking
from plugind.payload import Checked, Contract, check_input
from plugind.planruns import PlanRuns
from plugind.plans.folders import turn_reason
from plugind.policy.facts import Explained, Grant
from plugind.policy.rules import Policy
from plugind.sandbox.running import InstanceResult
from plugind.session import Conversation
from plugind.starting import Sandbox, Starting
from plugind.turns import Full
from plugind.underway import Underway


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
        plans: PlanRuns,
        parking: Parking | None = None,
        guard: Guard | None = None,
    ) -> None:
        """`policy` gives the policy in force; it is asked once for each request. Without `parking` all start fresh.

        `environment` gives the digest of the one with that name, or raises InvalidEnvironmentError.
        """
        self._catalog = catalog
        self._ledger = ledger
        self._profiles = profiles
        self._deciding = Deciding(catalog, profiles, policy, guard)
        self._starting = Starting(sandbox, catalog, self._deciding, parking)
        self._environment = environment
        self._plans = plans
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
        return self._deciding.explain(request)

    def activated(self, record: PluginVersion) -> None:
        """A version is active, since now or on new terms: one is to wait for its first caller, if it may run."""
        if self._parking is None or not self._parking.at_activation:
            return
        manifest = record.manifest
        caller = Caller(POLICY_UID, POLICY_UID, 0, frozenset({"caller"}))
        for stage in ("" if stage == "*" else stage for stage in manifest.stages):
            request = RunRequest(caller, manifest.name, manifest.version, b"", stage=stage)
            found = self._catalog.find(request.plugin, request.version)
            decision = self._deciding.decide(request, found, self._deciding.targets(request, found))
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
            run.flight.targets = self._deciding.targets(run.request, found, run.environment)
            # 4.
            decision = run.decision = self._deciding.decide(run.request, found, run.flight.targets)
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
        # The plan's turn first: who waits for it has no place that others could use, and who has it needs only that.
        async with self._plans.turn(run, grant, patience) as turn:
            if turn is not None and not run.flight.cause:
                return await self._deny_busy(run, turn_reason(f"{turn.waiting + 1} wait for it"), turn)
            async with self.places.one(grant.tier, run.flight, patience=patience, input_bytes=size) as full:
                if full is None or run.flight.cause:  # what is to end has its outcome, and never starts
                    return await self._execute(run, contract, grant, checked)
                return await self._deny_busy(run, busy_reason(grant.tier, full), full)

    async def _deny_busy(self, run: Underway, reason: Reason, full: Full) -> RunAnswer:
        return replace(await self._deny(run, (reason,)), retry_after_ms=full.retry_after_ms)

    async def _execute(self, run: Underway, contract: Contract, grant: Grant, checked: Checked) -> RunAnswer:
        reasons = () if run.flight.cause else await self._plans.open(run, grant)
        if not reasons and self._guard and run.record:
            reasons = self._guard.begin(run.record, grant.tier)
        if reasons:
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
            result = await self._starting.start(run, contract, grant, lambda: self._stopping)
            result, items = await self._believe(run, result, contract, grant, checked)
            result = await self._plans.judge(run, result)
            # 11. And once more after what it wrote was staged, which takes a while.
            result = await self._plans.stage(run, intent, self._unless_ended(run, result))
        except IsolationUnavailableError as error:
            return await self._deny(run, (isolation_reason(error),), intent)
        except LauncherGoneError as error:
            result = without_result(Outcome.FAULT, str(error))
        except Exception as error:  # noqa: BLE001 - a fault of ours must not leave an INTENT without OUTCOME
            log(f"fault in {run.flight.run_id}:\n{traceback.format_exc()}")
            result = without_result(Outcome.FAULT, f"a fault of plugind: {type(error).__name__}; see its log")
        return await self._record(run, intent, self._unless_ended(run, result), items, governance, grant)

    def _unless_ended(self, run: Underway, result: InstanceResult) -> InstanceResult:
        self._deciding.look_for_kills(run)
        if run.flight.cause and result.outcome is Outcome.OK:
            return replace(without_result(Outcome(run.flight.cause), "it ended too late"), usage=result.usage)
        return result

    async def _record(
        self,
        run: Underway,
        intent: int,
        result: InstanceResult,
        items: tuple[batch.Answer, ...],
        governance: Governance,
        grant: Grant,
    ) -> RunAnswer:
        # 12.
        try:
            ended = run.ended(self._ledger, intent, result, items)
            await self._ledger.append(ended)
        except AuditUnavailableError as error:
            self._plans.leave(run)
            result = without_result(
                Outcome.FAULT, f"its outcome could not be recorded, the result is withheld: {error}"
            )
        except BaseException:
            self._plans.leave(run)  # the ledger says what becomes of what it has staged
            raise
        else:
            if self._parking and run.record and result.outcome is Outcome.OK and run.conversation is None:
                self._parking.ran(run.record, grant, run.environment)
            result = await self._plans.settle(run, intent, result)
        is_ok = result.outcome is Outcome.OK
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
            items=items if is_ok else (),
            files=run.written() if is_ok else (),
            sent=run.sent if is_ok else (),
            opened=run.opened,
            frames_sha256=ended.output.sha256 if run.conversation else "",
        )

    async def _believe(
        self, run: Underway, result: InstanceResult, contract: Contract, grant: Grant, checked: Checked
    ) -> tuple[InstanceResult, tuple[batch.Answer, ...]]:
        """The result, as far as it can be believed, and of a map what came of its items."""
        given = collect.Given(run.request.input, run.plan.packed or b"")
        if run.conversation is not None:
            return collect.session_result(run.conversation, result, grant.limits.wall_ms), ()
        if run.request.mode == "map":
            return await asyncio.to_thread(collect.map_result, contract, run.request.items, checked, result, given)
        believe = functools.partial(collect.run_result, contract, checked, result, grant.limits.output_bytes, given)
        return (await asyncio.to_thread(believe) if collect.is_large(result) else believe()), ()

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


def _kinds(grant: Grant) -> tuple[str, ...]:
    """The kinds of permission that a grant has, for the governance record."""
    return tuple(sorted({permission.kind for permission in grant.permissions}))
