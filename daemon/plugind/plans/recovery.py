"""Changes of plans that were not brought to their end: a daemon ended, a launcher was lost, or a folder did not answer.

What has its OUTCOME or RESTORE in the ledger goes forward, all else goes back; COMMITTED or UNDONE says which, once.
Until then nobody reads or writes that plan. It is tried again and again, and at once when there is a new launcher.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal, Protocol

from plugind.audit.planhistory import changes_of
from plugind.audit.reading import Entry, Follower
from plugind.config import log
from plugind.errors import AuditUnavailableError
from plugind.model import Caller
from plugind.plans.commits import Commits, Decided, Settled, Way
from plugind.plans.notes import Change

RETRY_S: Final = 0.2
"""Until a change is tried again, and twice as long until each further time, up to:"""
MOST_RETRY_S: Final = 30.0
START_S: Final = 5.0
"""So long the start of the daemon waits for all of them together; then they go on while it serves."""
AT_ONCE: Final = 4
"""Half of the helpers that there may be: who waits for an answer needs some too."""

_SAID: Final[Mapping[str, Literal["committed", "undone"]]] = {"COMMITTED": "committed", "UNDONE": "undone"}


class Durable(Protocol):
    """plugind.audit.ledger.Ledger, as far as this needs it."""

    @property
    def size(self) -> int:
        """How many records are durable."""
        ...

    @property
    def failure(self) -> str:
        """Why nothing can be written any more."""
        ...


class Recovery:
    """Brings what Commits has left to its end. `directory` is the ledger's."""

    def __init__(self, commits: Commits, ledger: Durable, directory: Path) -> None:
        self._commits = commits
        self._ledger = ledger
        self._directory = directory
        self._some = asyncio.Semaphore(AT_ONCE)
        self._works: set[asyncio.Task[None]] = set()

    async def start(self, patience_s: float = START_S) -> None:
        """What an earlier daemon left, before anybody is served. Raises OSError where the notes cannot be read."""
        left = await self._commits.load()
        if left:
            log(f"plans: {len(left)} changes of an earlier daemon are to be brought to their end")
            await asyncio.wait([self._begin(way) for way in left], timeout=patience_s)

    async def keep(self) -> None:
        """Try again what is due, until canceled."""
        try:
            while True:
                waiting = [way for way in self._commits.left.values() if not way.at_work]
                next_s = min((way.due_s for way in waiting), default=None)
                self._commits.on_left.clear()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(None if next_s is None else max(0.0, next_s - time.monotonic())):
                        await self._commits.on_left.wait()
                for way in waiting:
                    if way.due_s <= time.monotonic():
                        self._begin(way)
        finally:
            for work in self._works:
                work.cancel()

    def wake(self) -> None:
        """There may be a launcher again: nobody waits any longer."""
        for way in self._commits.left.values():
            way.due_s, way.tries = time.monotonic(), 0
        self._commits.on_left.set()

    def _begin(self, way: Way) -> asyncio.Task[None]:
        way.at_work = True
        work = asyncio.get_running_loop().create_task(self._try(way))
        self._works.add(work)
        work.add_done_callback(self._works.discard)
        return work

    async def _try(self, way: Way) -> None:
        """One attempt."""
        change = way.change
        try:
            async with self._some:
                await self._go_on(way)
        except Exception as error:  # noqa: BLE001 - a fault of ours, too, must not be the end of trying
            problem = str(error) or repr(error)
            if way.problem != problem:
                way.problem = problem
                log(f"{change.plan_dir}: the change of log_{change.of} cannot be brought to its end yet: {problem}")
            way.due_s = time.monotonic() + min(RETRY_S * 2**way.tries, MOST_RETRY_S)
            way.tries = min(way.tries + 1, 32)
        else:
            del self._commits.left[change.name]
            end = way.done.result()
            log(f"{change.plan_dir}: the change of log_{change.of} is {end.state}{': ' if end.why else ''}{end.why}")
        finally:
            way.at_work = False
            self._commits.on_left.set()

    async def _go_on(self, way: Way) -> None:
        if self._ledger.failure:  # what it says of the last moments only the next daemon knows
            raise AuditUnavailableError(self._ledger.failure)
        if way.decided is None:
            way.decided = await asyncio.to_thread(self._decided, way.change)
            if way.decided.recorded:
                way.settled = Settled(way.decided.recorded)
                way.done.set_result(way.settled)
        await self._commits.advance(way, Caller(way.change.caller_uid, way.change.caller_gid, 0))

    def _decided(self, change: Change) -> Decided:
        """What the ledger says. Blocks. Raises StateError, OSError."""
        found = Decided()
        follower, below = Follower(self._directory, change.since), self._ledger.size
        while entries := follower.read(below):
            for entry in entries:
                fields = entry.fields
                if found.record < 0 and _decides(change, fields):
                    found = _decision(change, entry)
                elif fields.get("event") in _SAID and fields.get("intent") == found.record >= 0:
                    return Decided(found.record, found.files, _SAID[fields["event"]])
        return found


def _decides(change: Change, fields: dict[str, Any]) -> bool:
    if change.restores:
        return fields.get("event") == "RESTORE" and fields.get("of") == change.of
    return fields.get("event") == "OUTCOME" and fields.get("intent") == change.of


def _decision(change: Change, entry: Entry) -> Decided:
    fields = entry.fields
    files = changes_of(fields["files"])
    if change.restores:
        return Decided(entry.index, files)
    if fields["outcome"] == "ok" and fields["plan_dir"] and files:
        return Decided(change.of, files)
    return Decided()
