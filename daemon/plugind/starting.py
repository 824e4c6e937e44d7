"""Steps 8 and 9 of a run's life: kills are looked at once more, then it runs, in a fresh instance or one that waits."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from dataclasses import replace
from typing import Protocol

from plugind import collect
from plugind.catalog import Catalog
from plugind.collect import without_result
from plugind.deciding import Deciding
from plugind.errors import IsolationUnavailableError
from plugind.model import Outcome
from plugind.parking import Parking
from plugind.payload import Contract
from plugind.policy.facts import Grant
from plugind.sandbox import jailspec
from plugind.sandbox.client import Talk
from plugind.sandbox.protocol import NOT_LOADED, NOT_PARKED
from plugind.sandbox.running import InstanceRequest, InstanceResult
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


class Starting:
    """Has runs run. `parking`: where instances wait for them; None: nowhere."""

    def __init__(self, sandbox: Sandbox, catalog: Catalog, deciding: Deciding, parking: Parking | None) -> None:
        self.sandbox = sandbox
        self._catalog = catalog
        self._deciding = deciding
        self._parking = parking

    async def start(
        self, run: Underway, contract: Contract, grant: Grant, stopping: Callable[[], bool]
    ) -> InstanceResult:
        """Load and run. `stopping`: whether the daemon is. Raises IsolationUnavailableError, LauncherGoneError."""
        assert run.record is not None  # noqa: S101 - it was allowed
        digest = run.record.digest
        profile = self._deciding.profiles[grant.tier]
        limits = grant.limits
        if run.conversation is not None:
            limits = jailspec.limits_of_session(limits, profile)
            run.conversation.run_id, run.conversation.version = run.flight.run_id, run.record.manifest.version
            run.conversation.files = run.plan.packed or b""
            run.conversation.agree(
                self._deciding.terms(run, contract, grant, stopping),
                lambda: self.sandbox.kill(run.flight.run_id, "timeout"),
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
            context=_context(run),
            stdio_bytes=profile.stdio_bytes,
            mode=run.request.mode,
            environment=run.environment,
            network=grant.network,
            files=run.plan.packed,
            write_files=run.plan.write_files,
            write_bytes=run.plan.write_bytes,
        )
        if self._parking and request.mode in ("run", "map") and not (grant.of_one_run or run.plan.of_one_run):
            run.waiting = self._parking.take(run.record, grant, run.environment)
        try:
            return await self._in_sandbox(run, request)
        except IsolationUnavailableError as error:
            if error.step not in (NOT_LOADED, NOT_PARKED):
                raise
        # The launcher has made room for other bundles meanwhile, or for other instances, and nothing ran.
        run.waiting = None
        return await self._in_sandbox(run, request)

    async def _in_sandbox(self, run: Underway, request: InstanceRequest) -> InstanceResult:
        flight = run.flight
        await self.sandbox.load(request.digest, lambda: self._catalog.bundle(request.digest))
        self._deciding.look_for_kills(run)
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
            result = await self.sandbox.run(replace(request, limits=limits), started, talk, waiting)
        finally:
            flight.in_sandbox = flight.running = False
        cut = limits.wall_ms < request.limits.wall_ms and not (run.conversation and run.conversation.timed_out)
        return collect.at_deadline(result) if cut else result


def _context(run: Underway) -> dict[str, str]:
    """What the plugin is told of its run; its folders the jail adds."""
    told = {"stage": run.request.stage, "plan_id": run.request.plan_id}
    return told | {"learn": "1"} if run.plan.learns else told
