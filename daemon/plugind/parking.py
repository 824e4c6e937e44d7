"""Instances that have imported their plugin ahead of a run: of which versions, how many, and when they go.

An import ahead is an execution of its own: decided (only what was just allowed to run and ended well is imported),
recorded with INTENT and OUTCOME, held to all limits, without input, plan or stage. What misbehaves there is held before
anyone waits for it. A parked instance does one run and is replaced; a run that finds none starts a fresh one.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import time
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final, Protocol

from plugind import targets
from plugind.admission import wait_gone
from plugind.audit.ledger import Ledger
from plugind.audit.records import Ended, Intent, Subject
from plugind.catalog import Catalog
from plugind.config import log
from plugind.errors import AuditUnavailableError, IsolationUnavailableError, LauncherGoneError, PlugindError
from plugind.model import POLICY_UID, Hold, Limits, Outcome, PluginVersion, Profile
from plugind.policy.facts import Grant
from plugind.policy.rules import Policy
from plugind.sandbox.protocol import NO_FREEZER
from plugind.sandbox.running import InstanceRequest, InstanceResult
from plugind.targets import Targets

AT_ONCE: Final = 2
"""Imports at one time: they are to keep up with the runs, not to take the CPUs from them."""
STAND_BACK_S: Final = 0.02
"""So often it is looked whether a crowd of runs is over: until then nothing is imported ahead."""
LOOK_S: Final = 5.0
"""So often it is looked whether fewer would do, and whether what waits may still run."""
FEWER_S: Final = 60.0
"""One fewer is kept when no run has found none for so long: calls come in bursts, with pauses between them."""
IDLE_S: Final = 600.0
"""A version that nobody has run for so long has none waiting any more."""
RETRY_S: Final = 1.0
MOST_BYTES: Final = 512 * 1024 * 1024
"""Memory of all that wait in a tier."""
_CPUS: Final = os.cpu_count() or 1
MISBEHAVED: Final = frozenset(
    {
        Outcome.VIOLATION,
        Outcome.TIMEOUT,
        Outcome.CPU_EXCEEDED,
        Outcome.OUT_OF_MEMORY,
        Outcome.PIDS_EXCEEDED,
        Outcome.OUTPUT_LIMIT,
    }
)
"""Ends of an import for which its version is held."""


class Sandbox(Protocol):
    """What parking needs of plugind.sandbox.client.LauncherClient."""

    async def load(self, digest: str, read: Callable[[], bytes]) -> None:
        """Hand a bundle over, if that was not done."""

    async def park(self, request: InstanceRequest) -> InstanceResult:
        """Have an instance import its plugin and wait."""
        ...

    def recent(self) -> int:
        """How many runs there are that began of late."""
        ...

    def is_parked(self, name: str) -> bool:
        """Whether an instance of that name waits."""
        ...

    def kill(self, run: str, cause: str) -> None:
        """End it."""

    def is_gone(self, run: str) -> bool:
        """Whether no process of it is left."""
        ...


@dataclass(frozen=True, slots=True)
class Kind:
    """What instances are alike in that can take each other's place."""

    digest: str
    tier: int
    limits: Limits
    """But for wall_ms, which begins with the run."""
    environment: str = ""
    """Digest of its environment's files."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """One that waits: its name in the sandbox, and the INTENT of its import."""

    name: str
    intent: int


@dataclass(slots=True)
class _Lot:
    """All of one kind."""

    kind: Kind
    record: PluginVersion
    limits: Limits
    waiting: deque[Waiting] = field(default_factory=deque)
    importing: set[str] = field(default_factory=set)
    wanted: int = 1
    missed_s: float = field(default_factory=time.monotonic)
    """When a run last found none, or one fewer was wanted."""
    each_bytes: int = 0
    """Memory of one, by what its import took at most."""
    proven: bool = False
    """Whether an import has come to something: until then one at a time is tried."""
    spoiled: str = ""
    """Why this version is not imported ahead."""
    used_s: float = field(default_factory=time.monotonic)

    @property
    def size(self) -> int:
        return len(self.waiting) + len(self.importing)


class Parking:
    """Of all tiers. Everything here runs on one event loop."""

    def __init__(
        self,
        catalog: Catalog,
        ledger: Ledger,
        sandbox: Sandbox,
        profiles: Mapping[int, Profile],
        policy: Callable[[], Policy],
        *,
        at_activation: bool = False,
    ) -> None:
        """`at_activation`: import what is made active, before anyone runs it."""
        self.at_activation = at_activation
        self._catalog = catalog
        self._ledger = ledger
        self._sandbox = sandbox
        self._profiles = profiles
        self._policy = policy
        self._decided_by = policy()
        self._revision = -1
        self._lots: OrderedDict[Kind, _Lot] = OrderedDict()
        """The one that was used last stands last."""
        self._at_once = asyncio.Semaphore(AT_ONCE)
        self._tasks: set[asyncio.Task[None]] = set()
        self._stopped = False

    # -- for a run

    def take(self, record: PluginVersion, grant: Grant, environment: str = "") -> Waiting | None:
        """One that waits for a run that was decided so, in this environment (digest); nobody else gets it."""
        self._refresh()
        lot = self._lots.get(_kind(record, grant, environment))
        if lot is None or lot.spoiled:
            return None
        self._lots.move_to_end(lot.kind)
        lot.used_s = time.monotonic()
        while lot.waiting:
            found = lot.waiting.popleft()
            if self._sandbox.is_parked(found.name):
                return found
        lot.missed_s = time.monotonic()
        if lot.proven:
            lot.wanted = min(2 * lot.wanted, self._profiles[grant.tier].parked)
        return None

    def ran(self, record: PluginVersion, grant: Grant, environment: str = "") -> None:
        """A run of this has ended well, or it was made active: the next one is to find an instance that waits."""
        if self._stopped or record.state != "active" or not self._profiles[grant.tier].parked:
            return
        if record.manifest.runtime != "python":
            return  # there is nothing to import
        if grant.of_one_run:
            return  # a network is taken for a run, files are copied for one; where its plugin is imported is neither
        kind = _kind(record, grant, environment)
        lot = self._lots.get(kind)
        if lot is None:
            for other in [each for each in self._lots.values() if replace(each.kind, environment=environment) == kind]:
                self._drop(other, "canceled")  # the environment was built anew: what has the old packages is not used
            lot = self._lots[kind] = _Lot(kind, record, grant.limits)
        self._fill(lot)

    def waiting(self) -> dict[int, int]:
        """How many instances wait for a run, by tier."""
        return Counter(lot.kind.tier for lot in self._lots.values() for _ in lot.waiting)

    # -- for the kill switch

    def end_matching(self, target: str, cause: str) -> list[str]:
        """End all that a target means; their names."""
        met = [lot for lot in self._lots.values() if target in self._targets(lot)]
        names = [name for lot in met for name in (*lot.importing, *(each.name for each in lot.waiting))]
        for lot in met:
            self._drop(lot, cause)
        return names

    async def wait_gone(self, names: list[str], timeout_s: float) -> list[str]:
        """The names of those whose processes are not seen to be gone in time."""
        return await wait_gone(self._sandbox.is_gone, names, timeout_s)

    # -- beginning and end

    async def keep(self) -> None:
        """Look after those that wait, until canceled."""
        while True:
            await asyncio.sleep(LOOK_S)
            self._refresh()
            for lot in list(self._lots.values()):
                self._look_after(lot)

    async def stop(self) -> None:
        """None any more, and no new ones. Their records are written when this returns."""
        self._stopped = True
        for lot in list(self._lots.values()):
            self._drop(lot, "canceled")
        if self._tasks:
            await asyncio.wait(self._tasks)

    # -- how many

    def _look_after(self, lot: _Lot) -> None:
        if time.monotonic() - lot.used_s > IDLE_S or self._catalog.holds.on(self._targets(lot)):
            self._drop(lot, "canceled")
            return
        if time.monotonic() - lot.missed_s > FEWER_S and lot.wanted > 1:
            lot.wanted, lot.missed_s = lot.wanted - 1, time.monotonic()
            while lot.size > lot.wanted and lot.waiting:
                self._sandbox.kill(lot.waiting.popleft().name, "canceled")

    def _targets(self, lot: _Lot) -> Targets:
        meant = self._catalog.targets(lot.record, lot.kind.environment)
        return Targets((*meant.parts, frozenset({targets.of_tier(lot.kind.tier)})))

    def _refresh(self) -> None:
        """What waits was decided by this policy, and for the registry as it is; else it goes."""
        if self._policy() is not self._decided_by:
            self._decided_by = self._policy()
            for lot in list(self._lots.values()):
                self._drop(lot, "canceled")
        if self._catalog.revision != self._revision:
            self._revision = self._catalog.revision
            for lot in list(self._lots.values()):
                manifest = lot.record.manifest
                if self._catalog.find(manifest.name, manifest.version).record != lot.record:
                    self._drop(lot, "canceled")

    def _drop(self, lot: _Lot, cause: str) -> None:
        if self._lots.get(lot.kind) is lot:
            del self._lots[lot.kind]
        lot.spoiled = lot.spoiled or "it is not wanted any more"
        for name in (*lot.importing, *(each.name for each in lot.waiting)):
            self._sandbox.kill(name, cause)
        lot.waiting.clear()

    def _fill(self, lot: _Lot) -> None:
        for each in list(lot.waiting):
            if not self._sandbox.is_parked(each.name):
                lot.waiting.remove(each)
        while not lot.spoiled and not self._stopped and lot.size < lot.wanted and self._make_room(lot):
            name = f"import-{secrets.token_hex(8)}"
            lot.importing.add(name)
            task = asyncio.get_running_loop().create_task(self._import(lot, name))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def _make_room(self, lot: _Lot) -> bool:
        """Whether the tier may have one more; the version that was run least recently gives way."""
        tier = lot.kind.tier
        lots = [each for each in self._lots.values() if each.kind.tier == tier]
        bytes_used = sum(each.size * each.each_bytes for each in lots) + lot.each_bytes
        if sum(each.size for each in lots) < self._profiles[tier].parked and bytes_used <= MOST_BYTES:
            return True
        oldest = next((each for each in lots if each.waiting and each is not lot), None)
        if oldest is None:
            return False
        self._sandbox.kill(oldest.waiting.popleft().name, "canceled")
        oldest.wanted = max(1, oldest.size)
        return True

    # -- one import

    async def _import(self, lot: _Lot, name: str) -> None:
        try:
            async with self._at_once:
                while self._sandbox.recent() > _CPUS and not lot.spoiled:  # noqa: ASYNC110 - nobody tells of it
                    # Whoever is waited for comes first: to import now would only make all of them later.
                    await asyncio.sleep(STAND_BACK_S)
                if not lot.spoiled:
                    await self._import_now(lot, name)
        except (IsolationUnavailableError, LauncherGoneError, AuditUnavailableError):
            await asyncio.sleep(RETRY_S)  # a run would be told; whoever runs next tries again
        except Exception as error:  # noqa: BLE001 - a fault of ours: runs start fresh instances
            lot.spoiled = f"a fault of plugind: {type(error).__name__}: {error}"
            log(f"{lot.record.label} cannot be imported ahead: {lot.spoiled}")
        finally:
            lot.importing.discard(name)

    async def _import_now(self, lot: _Lot, name: str) -> None:
        subject = _subject(lot, name)
        intent = await self._ledger.append(Intent(subject, (), lot.limits))
        try:
            result, problem = await self._park(lot, name)
        except (IsolationUnavailableError, LauncherGoneError) as error:
            if isinstance(error, IsolationUnavailableError) and error.step == NO_FREEZER:
                self._stopped = True
                log(f"nothing is imported ahead on this machine: {error}")
            await self._ledger.append(Ended(intent, subject, str(Outcome.FAULT), str(error)))
            raise
        if result.outcome in MISBEHAVED:
            await self._hold(lot, result)  # before anybody can read how it ended, and ask for a run
        await self._ledger.append(
            Ended(
                intent,
                subject,
                str(result.outcome),
                result.detail or problem,
                stdout=self._ledger.keep(result.stdout),
                stderr=self._ledger.keep(result.stderr),
                usage=result.usage,
                violations=result.violations,
            )
        )
        if problem or lot.spoiled:
            lot.spoiled = lot.spoiled or problem
            self._sandbox.kill(name, "canceled")
        elif result.outcome is Outcome.OK:
            lot.proven, lot.each_bytes = True, result.usage.memory_peak_bytes
            lot.waiting.append(Waiting(name, intent))

    async def _park(self, lot: _Lot, name: str) -> tuple[InstanceResult, str]:
        """How its import went, and why it cannot wait; empty: it does."""
        record, profile = lot.record, self._profiles[lot.kind.tier]
        await self._sandbox.load(record.digest, lambda: self._catalog.bundle(record.digest))
        result = await self._sandbox.park(
            InstanceRequest(
                run=name,
                digest=record.digest,
                tier=lot.kind.tier,
                limits=lot.limits,
                interface=record.manifest.interface,
                entrypoint=record.manifest.entrypoint,
                input=b"",
                context={"stage": "", "plan_id": ""},
                stdio_bytes=profile.stdio_bytes,
                mode="import",
                environment=lot.kind.environment,
            )
        )
        if result.outcome is Outcome.OK and (result.stdout or result.stderr):
            return result, "not parked: its import writes, and what it writes belongs to a run"
        if result.outcome is Outcome.FAILED or result.outcome in MISBEHAVED:
            return result, f"not parked: {result.detail}"
        return result, ""

    async def _hold(self, lot: _Lot, result: InstanceResult) -> None:
        reason = f"its import misbehaved before anyone waited for it: {result.outcome}: {result.detail}"[:1000]
        hold = Hold("suspended", f"sha256:{lot.record.digest}", reason, POLICY_UID, time.time_ns() // 1_000_000)
        log(f"{lot.record.label} is suspended: {reason}")
        with contextlib.suppress(PlugindError):  # it is gone from the registry, or held already
            await asyncio.to_thread(self._catalog.holds.set, hold)


def _kind(record: PluginVersion, grant: Grant, environment: str) -> Kind:
    return Kind(record.digest, grant.tier, replace(grant.limits, wall_ms=0), environment)


def _subject(lot: _Lot, name: str) -> Subject:
    record = lot.record
    return Subject(
        run=name,
        caller_uid=POLICY_UID,
        plugin_id=record.plugin_id,
        plugin=record.manifest.name,
        version=record.manifest.version,
        digest=record.digest,
        tier=lot.kind.tier,
        stage="",
        plan_id="",
        sensitivity="",
        mode="import",
        environment=lot.kind.environment,
    )
