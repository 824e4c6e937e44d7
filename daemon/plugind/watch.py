"""The monitor at work: it hears every record of the ledger, and acts on what it finds.

One direction: a run writes its record; the ledger tells of it once it is durable; the monitor judges it; what it finds
is a record too, and may be a hold. No run waits for any of this. After a crash, or when the monitor was lost, it goes
on where it was by reading the ledger.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from plugind import observing
from plugind.audit import reading
from plugind.audit.ledger import Ledger
from plugind.audit.records import Changed, Denied, Ended, Intent, Record
from plugind.catalog import Catalog
from plugind.config import log
from plugind.errors import AuditUnavailableError, PlugindError
from plugind.governance.breaker import closer
from plugind.governance.monitor import Finding, Monitor
from plugind.governance.observations import Anomaly, Observation
from plugind.model import POLICY_UID, Code, Hold, Monitoring, Outcome, PluginVersion, Profile, Reason

WRITE_S: Final = 1.0
"""So often what was learned is written; until then the ledger alone has it."""
RETRY_S: Final = 1.0
MOST_AT_ONCE: Final = 500


@dataclass(frozen=True, slots=True)
class Actions:
    """What a finding leads to."""

    quarantine: Callable[[Hold], Awaitable[object]]
    """Puts a version there and ends what runs of it. Raises PlugindError."""
    incident: Callable[[Anomaly], Awaitable[None]]
    """Opens an incident, or adds to the open one."""
    noticed: Callable[[Anomaly], None]
    """Counts an anomaly."""
    quarantined: Callable[[float], None]
    """It took so many seconds from the record of the event to a durable hold."""
    committed: Callable[[Record], None]
    """Counts a record."""


class Watch:
    """Everything here runs on one event loop."""

    def __init__(
        self, monitor: Monitor, ledger: Ledger, directory: Path, catalog: Catalog, profiles: Mapping[int, Profile]
    ) -> None:
        """`directory`: the ledger's."""
        self._monitor = monitor
        self._ledger = ledger
        self._directory = directory
        self._catalog = catalog
        self._profiles = profiles
        self._actions: Actions | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._networked: set[int] = set()
        """INTENTs of runs under way that were granted a network."""
        self._to_do: dict[int, tuple[Observation, Finding]] = {}
        """What was found and has not led to what it leads to. Until then nothing is written: a crash finds it again."""
        self._failed: set[int] = set()
        """Which of these have to be tried again."""
        self.lost = ""
        """Why the monitor sees nothing at this moment; empty: it does."""

    # -- for the gate

    def reasons(self, record: PluginVersion, tier: int) -> tuple[Reason, ...]:
        """Why nothing of this version may start now."""
        if self.lost:
            return self._lost_reason(tier)
        try:
            why = self._monitor.why_not(record.digest, tier, _now_ms())
        except PlugindError as error:
            self._lose(str(error))
            return self._lost_reason(tier)
        return (_breaker_reason(record, why),) if why else ()

    def begin(self, record: PluginVersion, tier: int) -> tuple[Reason, ...]:
        """It is about to start: why it may not, after all."""
        if self.lost:
            return self._lost_reason(tier)
        try:
            if self._monitor.begin(record.digest, tier, _now_ms()):
                return ()
        except PlugindError as error:
            self._lose(str(error))
            return self._lost_reason(tier)
        return (_breaker_reason(record, "its circuit breaker lets one run through at a time"),)

    def _lost_reason(self, tier: int) -> tuple[Reason, ...]:
        if tier not in self._profiles or not self._profiles[tier].monitor.required:
            return ()
        return (
            Reason(
                Code.ISOLATION_UNAVAILABLE,
                f"tier.{tier}.monitor.required",
                expected="a monitor that sees what runs",
                actual=f"it is lost: {self.lost}",
                remedy="plugindctl status; it comes back by itself when what it misses is there again",
            ),
        )

    # -- hearing

    async def start(self, actions: Actions) -> None:
        """Look at what no monitor has seen yet, and listen from then on."""
        self._actions = actions
        loop = asyncio.get_running_loop()

        def hear(entries: Sequence[tuple[int, int, Record]]) -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: the next start reads them
                loop.call_soon_threadsafe(self._hear, entries)

        self._ledger.listen(hear)
        try:
            await self._catch_up()
        except Exception as error:  # noqa: BLE001 - the kill switch has to work, also where no monitor can
            self._lose_by_fault(error)

    def _hear(self, entries: Sequence[tuple[int, int, Record]]) -> None:
        assert self._actions is not None  # noqa: S101 - it was started
        for _, _, record in entries:
            self._actions.committed(record)
        if self.lost or entries[0][0] > self._monitor.next_index:
            return  # whoever catches up reads these too
        try:
            for index, at_unix_ms, record in entries:
                if index >= self._monitor.next_index:
                    self._hear_one(index, at_unix_ms, record)
                    self._monitor.passed(index + 1)
        except Exception as error:  # noqa: BLE001 - a fault of ours must not look like a monitor that finds nothing
            self._lose_by_fault(error)

    def _hear_one(self, index: int, at_unix_ms: int, record: Record) -> None:
        match record:
            case Intent():
                self._begun(index, record.permissions)
            case Ended() | Denied():
                seen = observing.observed(index, at_unix_ms, record)
                self._look_at(seen)
                self._count_for_probation(seen)

    def _begun(self, index: int, permissions: Collection[str]) -> None:
        if "network" in permissions:
            self._networked.add(index)

    async def _catch_up(self) -> None:
        """Read what was not heard, to the end of the ledger as it is. Raises PlugindError, OSError."""
        known = await self._told()
        async for entry in self._unseen():
            if entry.index < self._monitor.next_index:
                continue  # it was heard meanwhile
            if entry.fields["event"] == "INTENT":
                self._begun(entry.index, entry.fields["permissions"])
            elif entry.fields["event"] in ("OUTCOME", "DENIED"):
                self._look_at(observing.read(entry.fields), known)
            self._monitor.passed(entry.index + 1)

    async def _told(self) -> dict[tuple[int, str], bool]:
        """Anomalies that the ledger has already, by record and trigger: whether they had consequences.

        A version that was released since is not to go back for what it was released for.
        """
        return {
            (entry.fields["of_index"], entry.fields["trigger"]): not entry.fields["observed"]
            async for entry in self._unseen()
            if entry.fields["event"] == "ANOMALY"
        }

    async def _unseen(self) -> AsyncIterator[reading.Entry]:
        follower = reading.Follower(self._directory, self._monitor.next_index)
        while entries := await asyncio.to_thread(follower.read, self._ledger.size, MOST_AT_ONCE):
            for entry in entries:
                yield entry

    def _look_at(self, seen: Observation, known: Mapping[tuple[int, str], bool] = MappingProxyType({})) -> None:
        assert self._actions is not None  # noqa: S101 - it was started
        if seen.intent in self._networked:
            self._networked.discard(seen.intent)
            seen = replace(seen, network=True)
        found = self._monitor.observe(seen)
        if seen.outcome is None and self._is_quarantined(seen.digest):
            return  # whoever asks again for what is held finds nothing new about it
        new = tuple(each for each in found.anomalies if (seen.index, each.trigger) not in known)
        acted = all(known.get((seen.index, each.trigger)) for each in found.anomalies)
        if not new and (acted or not found.quarantine):
            return
        for anomaly in new:
            self._actions.noticed(anomaly)
        self._to_do[seen.index] = seen, replace(found, anomalies=new, quarantine=found.quarantine and not acted)
        self._spawn(self._act(seen.index))

    def _spawn(self, what: Any) -> None:
        task = asyncio.get_running_loop().create_task(what)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # -- acting

    async def _act(self, index: int, *, again: bool = False) -> None:
        """Quarantine first, then what tells of it. What fails is done again: `keep`."""
        assert self._actions is not None  # noqa: S101 - it was started
        seen, found = self._to_do[index]
        try:
            if found.quarantine and (again or not self._is_quarantined(seen.digest)):
                hold = _hold(seen, found.anomalies)
                await self._actions.quarantine(hold)
                self._actions.quarantined(max(0.0, (_now_ms() - seen.at_unix_ms) / 1000))
                log(f"{seen.plugin}@{seen.version} is in quarantine: {hold.reason}")
            for anomaly in found.anomalies:
                await self._record(anomaly)
                if found.quarantine:
                    await self._actions.incident(anomaly)
            del self._to_do[index]
            await self._write()
        except Exception as error:  # noqa: BLE001 - what was found is not to be forgotten for a fault of ours
            self._failed |= {index} & self._to_do.keys()
            self._lose_by_fault(error)

    def _is_quarantined(self, digest: str) -> bool:
        return self._catalog.quarantines.hold(digest) is not None

    async def _record(self, anomaly: Anomaly) -> None:
        try:
            await self._ledger.append(observing.noticed(anomaly))
        except AuditUnavailableError as error:
            log(f"{anomaly.trigger} of {anomaly.seen.plugin}@{anomaly.seen.version} was not recorded: {error}")

    def _count_for_probation(self, seen: Observation) -> None:
        if seen.outcome is not Outcome.OK or seen.mode == "import":
            return
        probation = self._catalog.quarantines.probation(seen.digest)
        if probation is not None and seen.at_unix_ms >= probation.since_unix_ms:
            self._spawn(asyncio.to_thread(self._catalog.proved, seen.digest))

    # -- keeping

    async def keep(self) -> None:
        """Write what was learned, and bring a lost monitor back, until canceled."""
        while True:
            await asyncio.sleep(WRITE_S if not self.lost else RETRY_S)
            try:
                for index in sorted(self._failed):
                    self._failed.discard(index)
                    await self._act(index, again=True)
                if self._monitor.next_index < self._ledger.size:
                    await self._catch_up()
                await self._write()
            except Exception as error:  # noqa: BLE001 - this has to go on for as long as the daemon
                self._lose_by_fault(error)
            else:
                if not self._failed:
                    self._found_again()

    async def _write(self) -> None:
        if self._to_do or not self._monitor.has_unwritten:
            return
        what = self._monitor.unwritten()
        try:
            await asyncio.to_thread(self._monitor.write, what)
        except BaseException:
            self._monitor.put_back(what)
            raise
        self._monitor.written(what)

    def _lose_by_fault(self, error: Exception) -> None:
        if not isinstance(error, PlugindError | OSError):
            log(f"fault in the monitor:\n{traceback.format_exc()}")
        self._lose(str(error) or repr(error))

    def _lose(self, why: str) -> None:
        if not self.lost:
            log(f"the monitor is lost: {why}")
            self._spawn(self._tell("monitor_lost", why))
        self.lost = why

    def _found_again(self) -> None:
        if self.lost:
            log("the monitor is back, and has looked at what it missed")
            self._spawn(self._tell("monitor_back", "it has looked at what it missed"))
        self.lost = ""

    async def _tell(self, action: str, why: str) -> None:
        with contextlib.suppress(AuditUnavailableError):  # then nothing runs
            await self._ledger.append(Changed(action, "", "", "", "", POLICY_UID, why[:500]))

    async def stop(self) -> None:
        """Write what was learned."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=1)
        with contextlib.suppress(PlugindError):
            await self._write()


def thresholds(
    profiles: Mapping[int, Profile], on_probation: Callable[[str], object], *, only_observe: bool
) -> Callable[[str, int], Monitoring]:
    """What holds for a version in a tier: its profile's, closer ones on probation."""

    def of(digest: str, tier: int) -> Monitoring:
        found = profiles[tier].monitor if tier in profiles else Monitoring()
        if only_observe:
            found = replace(found, mode="observe")
        return closer(found) if on_probation(digest) else found

    return of


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _hold(seen: Observation, anomalies: Sequence[Anomaly]) -> Hold:
    first = anomalies[0] if anomalies else None
    why = f"{first.trigger}: {first.actual}" if first else "its circuit breaker's probes failed"
    where = f" (log_{seen.intent if seen.intent >= 0 else seen.index})"
    return Hold("quarantined", f"sha256:{seen.digest}", f"{why[:450]}{where}", POLICY_UID, _now_ms())


def _breaker_reason(record: PluginVersion, why: str) -> Reason:
    return Reason(
        Code.QUARANTINED,
        "monitor.breaker",
        expected=f"{record.label} as it was before",
        actual=why,
        remedy=f"wait, or look at it: plugindctl quarantine show {record.label}",
    )
