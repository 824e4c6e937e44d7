"""All or nothing: what a run, or the undoing of one, changes in a plan's folder, through every crash.

 1. `stage`: noted in STATE/commits, durably; then the plan helper stages it
 2. whoever asked for it writes the record that decides: OUTCOME, or RESTORE, with `files`
 3. `settle`: the helper puts it into place; COMMITTED or UNDONE, durably; the staging is cleaned up; the note goes

What cannot be brought to its end is handed over to the recovery, in this daemon or the next: it goes forward where the
record of step 2 is in the ledger, and back where it is not. Source: SPEC.md, section "Files of a plan".

    change = Change(name_of(index), …)
    replaced = await commits.stage(change, caller, entries)       # PlanError: nothing is there
    index = await ledger.append(…)                                # what decides. If it raises: commits.leave(change)
    settled = await commits.settle(change, index, files, caller)  # or, when it is not to be: commits.give_up(…)
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, Literal, Protocol

from plugind.audit.records import PlanChange, PlanCommitted, PlanUndone, Record
from plugind.config import log
from plugind.errors import AuditUnavailableError, IsolationUnavailableError, LauncherGoneError, PlanError
from plugind.model import Caller
from plugind.planfiles import Entry
from plugind.plans.folders import PlanFolders
from plugind.plans.notes import Change, CommitLog
from plugind.plans.turns import PlanTurns

RECOVERY_S: Final = 10.0
"""So long somebody who waits for an answer waits for a launcher that is lost in the middle of it."""
_NOTHING_DONE: Final = frozenset({"root", "caller", "open", "denied", "file", "large", "busy", "conflict"})
"""Codes of a staging that is not there. After the others it may be, in part: a helper that hangs cannot be asked."""
Trouble: Final = (PlanError, LauncherGoneError, IsolationUnavailableError, AuditUnavailableError, OSError)


class Appends(Protocol):
    """plugind.audit.ledger.Ledger, as far as this needs it."""

    async def append(self, record: Record) -> int:
        """Raises AuditUnavailableError."""
        ...


@dataclass(frozen=True, slots=True)
class Settled:
    """What became of a change, for good."""

    state: Literal["committed", "undone"]
    why: str = ""
    """Of undone."""


@dataclass(frozen=True, slots=True)
class Decided:
    """What the ledger says of a change. `record` -1: nothing; then it goes back."""

    record: int = -1
    """The INTENT of the run, or the RESTORE: what COMMITTED and UNDONE name."""
    files: tuple[PlanChange, ...] = ()
    recorded: Literal["", "committed", "undone"] = ""
    """Which of COMMITTED and UNDONE is there."""


@dataclass(slots=True, eq=False)
class Way:
    """A change on its way, and how far it has come."""

    change: Change
    decided: Decided | None = None
    """None: the ledger has to be asked."""
    settled: Settled | None = None
    done: asyncio.Future[Settled] = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    """When the record is durable, or there is none to write."""
    tries: int = 0
    due_s: float = 0.0
    """When to try again, time.monotonic()."""
    at_work: bool = False
    problem: str = ""
    """What kept the recovery from it last."""


class Commits:
    """The changes of all plans."""

    def __init__(self, folders: PlanFolders, ledger: Appends, notes: CommitLog, turns: PlanTurns) -> None:
        self._folders = folders
        self._ledger = ledger
        self._notes = notes
        self.turns = turns
        self.left: dict[str, Way] = {}
        """What is to be brought to its end by plugind.plans.recovery, by name."""
        self.on_left = asyncio.Event()

    def unfinished(self, plan_dir: str) -> str:
        """The change that nobody knows the end of yet in this folder; empty: none. Nothing may read or write it."""
        mine = (way for way in self.left.values() if way.change.plan_dir == plan_dir and not way.done.done())
        return next((f"log_{way.change.of}" for way in mine), "")

    async def load(self) -> list[Way]:
        """What an earlier daemon left. Raises OSError."""
        return [self._leave(Way(change)) for change in await asyncio.to_thread(self._notes.load)]

    # 1.

    async def stage(self, change: Change, caller: Caller, entries: Sequence[Entry]) -> dict[str, Entry]:
        """Note it and stage it; what is there now, by path (content None: nothing).

        Raises PlanError (conflict: somebody has changed a file), LauncherGoneError, IsolationUnavailableError: nothing
        is there, or it is taken away by the recovery.
        """
        try:
            await asyncio.to_thread(self._notes.write, change)
            facts = {"run": change.name}
            there, _ = await self._folders.plan_work("stage", change.plan_dir, caller, facts, entries)
            found = {entry.path: entry for entry in there}
            if found.keys() != {entry.path for entry in entries}:
                raise PlanError("fault", f"{change.plan_dir}: expected what is there of each file, got {len(found)}")
        except PlanError as error:
            if error.code in _NOTHING_DONE:
                await asyncio.to_thread(self._notes.remove, change.name)
            else:
                self._leave(Way(change, Decided()))
            raise
        except BaseException:
            self._leave(Way(change, Decided()))
            raise
        return found

    # 3.

    async def settle(self, change: Change, record: int, files: Sequence[PlanChange], caller: Caller) -> Settled:
        """Put what is staged and decided into its place, and record what came of it. `record`: see Decided.

        Raises PlanError "fault" where that is not known yet: the ledger will say it.
        """
        way = Way(change, Decided(record, tuple(files)))
        try:
            return await self.advance(way, caller)
        except Trouble as error:
            self._leave(way)
            if not way.done.done():
                log(f"{change.plan_dir}: the change of log_{change.of} is not finished, and will be: {error}")
                if not isinstance(error, AuditUnavailableError):
                    await asyncio.wait([way.done], timeout=RECOVERY_S)
            if way.done.done():
                return way.done.result()
            told = f"whether its files are in {change.plan_dir} is not known yet, log_{record} will say it: {error}"
            raise PlanError("fault", told) from error
        except BaseException:
            self._leave(way)
            raise

    async def give_up(self, change: Change, caller: Caller) -> None:
        """It is staged, and is not to be."""
        way = Way(change, Decided())
        try:
            await self.advance(way, caller)
        except Trouble as error:
            self._leave(way)
            log(f"{change.plan_dir}: what log_{change.of} has staged is still there, and will go: {error}")
        except BaseException:
            self._leave(way)
            raise

    def leave(self, change: Change) -> None:
        """The record that decides could not be written: whether it is in the ledger only the next daemon can read."""
        self._leave(Way(change))

    def _leave(self, way: Way) -> Way:
        self.left[way.change.name] = way
        way.due_s = time.monotonic()
        self.on_left.set()
        return way

    async def advance(self, way: Way, caller: Caller) -> Settled:
        """Go on with a change whose decision is known from where it stands. To do it again does no harm.

        Raises PlanError, LauncherGoneError, IsolationUnavailableError, AuditUnavailableError, OSError.
        """
        decided, change = way.decided, way.change
        if decided is None:
            raise ValueError(f"{change.name}: expected a change that is decided")
        if way.settled is None:
            way.settled = await self._settle(change, decided, caller)
        if not way.done.done():
            if decided.record >= 0:
                await self._ledger.append(_record(change, decided, way.settled))
            way.done.set_result(way.settled)
        await self._clean(change, decided, caller)
        await asyncio.to_thread(self._notes.remove, change.name)
        return way.settled

    async def _settle(self, change: Change, decided: Decided, caller: Caller) -> Settled:
        forward = decided.record >= 0
        facts = {"run": change.name, "forward": forward}
        async with self.turns.settling(change.plan_dir):
            try:
                _, said = await self._folders.plan_work("settle", change.plan_dir, caller, facts)
            except PlanError as error:
                if forward or not _was_never_there(error, caller):
                    raise
                return Settled("undone", "nothing was staged")
        state, why = said.get("state"), str(said.get("why", ""))
        if state == "nothing" and forward:
            return await self._look(change, decided, caller)
        if state == "committed" and forward:
            return Settled("committed")
        if state in ("undone", "nothing"):
            return Settled("undone", why or "given up")
        raise PlanError("fault", f"{change.plan_dir}: expected what became of {change.name}, got {said!r:.200}")

    async def _clean(self, change: Change, decided: Decided, caller: Caller) -> None:
        """Take the staging away, whose end is recorded."""
        try:
            _, said = await self._folders.plan_work("clean", change.plan_dir, caller, {"run": change.name})
            for each in said.get("kept", ()):
                log(f"{change.plan_dir!a:.300}: {each!s:.1000}")
        except PlanError as error:
            went_back = decided.record < 0 and _was_never_there(error, caller)
            if error.code != "open" and not went_back:  # with the folder what was in it is gone
                raise

    async def _look(self, change: Change, decided: Decided, caller: Caller) -> Settled:
        """Somebody took the staging away. What is there now says what it had come to."""
        asked = [Entry(file.path) for file in decided.files]
        most = sum(file.content.bytes + file.replaced.bytes for file in decided.files)
        try:
            there, _ = await self._folders.plan_work(
                "compare", change.plan_dir, caller, {"most_bytes": most + 1}, asked
            )
        except PlanError as error:
            if error.code not in ("large", "file"):  # then it is something else for sure
                raise
            there = []
        now = {entry.path: _digest(entry.content) for entry in there}
        differing = [file.path for file in decided.files if now.get(file.path) != file.content.sha256]
        if not differing:
            return Settled("committed")
        return Settled(
            "undone",
            f"somebody has removed what was staged; of {len(decided.files)} files"
            f" {len(differing)} are not what was written, as {differing[0]}",
        )


def _was_never_there(error: PlanError, caller: Caller) -> bool:
    """Whether nothing can be staged, where something is to go back.

    There is no folder; or the launcher, asked for whom it has seen there, knows of nobody: it notes that before it has
    anything staged. Of a caller with a process the same code only says that this one is gone.
    """
    return error.code == "open" or (error.code == "caller" and not caller.pid)


def _digest(content: bytes | None) -> str:
    return "" if content is None else hashlib.sha256(content).hexdigest()


def _record(change: Change, decided: Decided, settled: Settled) -> PlanCommitted | PlanUndone:
    of = (decided.record, change.run, change.plugin_id, change.plugin, change.version, change.plan_id, change.plan_dir)
    if settled.state == "committed":
        return PlanCommitted(*of, files=len(decided.files))
    return PlanUndone(*of, why=settled.why)
