"""What a runner asks the policy, and for how long the answer holds. It changes nothing."""

from __future__ import annotations

import time
from collections.abc import Callable, Container, Mapping, Sequence
from typing import Protocol

from plugind import targets
from plugind.answers import RunRequest
from plugind.catalog import Catalog, Found
from plugind.model import Hold, PluginVersion, Profile, Reason
from plugind.payload import Contract
from plugind.policy.decide import decide_safely, explain
from plugind.policy.facts import Decision, Explained, Grant, RunFacts
from plugind.policy.objections import STARTS_IN_QUARANTINE
from plugind.policy.rules import Policy
from plugind.session import Terms
from plugind.targets import Targets
from plugind.underway import Underway


class Guard(Protocol):
    """What a runner needs of plugind.watch.Watch."""

    def reasons(self, record: PluginVersion, tier: int) -> tuple[Reason, ...]:
        """Why nothing of this version may start now."""
        ...

    def begin(self, record: PluginVersion, tier: int) -> tuple[Reason, ...]:
        """It is about to start: why it may not, after all."""
        ...


class Deciding:
    """Gathers facts and has the policy decide."""

    def __init__(
        self,
        catalog: Catalog,
        profiles: Mapping[int, Profile],
        policy: Callable[[], Policy],
        guard: Guard | None,
    ) -> None:
        """`policy` gives the policy in force; it is asked once for each request."""
        self.profiles = profiles
        self._catalog = catalog
        self._policy = policy
        self._guard = guard

    def decide(self, request: RunRequest, found: Found, meant: Container[str]) -> Decision:
        """May it run? `meant`: see `targets`."""
        return decide_safely(self._facts(request, found, meant))

    def explain(self, request: RunRequest) -> tuple[Explained, ...]:
        """Every check of the policy for a request, those that hold too."""
        found = self._catalog.find(request.plugin, request.version)
        return explain(self._facts(request, found, self.targets(request, found)))

    def targets(self, request: RunRequest, found: Found, environment: str | None = None) -> Targets:
        """What holds can name of a run, in an environment (digest); None: the one in force."""
        if found.record is None:
            return Targets()
        meant = self._catalog.targets(found.record, environment)
        of_run = targets.of_run(found.tier, plan_id=request.plan_id, caller_uid=request.caller.uid)
        return Targets((*meant.parts, of_run))

    def look_for_kills(self, run: Underway) -> None:
        """A kill since the decision has marked the run; this holds even if it had not."""
        if run.flight.cause:
            return
        if is_stopped(self._catalog.holds.on(run.flight.targets), trial=run.request.trial):
            run.flight.cause = "killed"

    def terms(self, run: Underway, contract: Contract, grant: Grant, stopping: Callable[[], bool]) -> Terms:
        """What holds for a session, and for how long: until policy or registry change what was decided."""
        assert run.conversation is not None  # noqa: S101 - it is a session
        profile, policy, revision = self.profiles[grant.tier], self._policy(), self._catalog.revision
        idle_ms = min(run.conversation.idle_ms or profile.session_idle_ms, profile.session_idle_ms)

        def holds() -> bool:
            nonlocal revision
            if self._policy() is not policy or stopping():
                return False
            if self._catalog.revision == revision:
                return True
            found = self._catalog.find(run.request.plugin, run.request.version)
            same = found.record is not None and run.record is not None and found.record.digest == run.record.digest
            revision = self._catalog.revision
            return (
                same
                and self.decide(run.request, found, self.targets(run.request, found, run.environment)).grant == grant
            )

        return Terms(contract, grant, profile, holds, idle_ms)

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
            profiles=self.profiles,
            policy=self._policy(),
            now_unix_ms=time.time_ns() // 1_000_000,
            holds=self._catalog.holds.on(meant),
            probation=self._catalog.quarantines.probation(record.digest) if record else None,
            of_plan=bool(request.plan_id or request.plan_dir or request.files is not None),
            trial=request.trial,
            monitor_reasons=self._guard.reasons(record, found.tier) if self._guard and record else (),
            record=found.record,
            other_versions=found.other_versions,
            evidence_tier=found.evidence.tier,
            evidence_reasons=found.evidence.reasons,
            bundle_reasons=found.bundle_reasons,
        )


def is_stopped(holds: Sequence[Hold], *, trial: bool = False) -> bool:
    """Whether one of the holds ends what runs: a kill or a quarantine, but for that in which a trial takes place."""
    return any(
        hold.kind == "killed" or (hold.kind == "quarantined" and not (trial and hold.reason == STARTS_IN_QUARANTINE))
        for hold in holds
    )
