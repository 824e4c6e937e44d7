"""Putting back what runs have replaced in plans: each run as a whole, or not at all.

1. what the ledger says of the run: whether it came into a plan's folder, and is there still
2. what is in the folder now, beside what the run put there
3. what is to come: what was there before, out of the payload store; and, if forced, what is to be kept beside it
4. staged, recorded as a RESTORE, and settled, as what a run writes is

Source: SPEC.md, section "Files of a plan", "Undo".
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from plugind.admission import InFlight, Patience
from plugind.audit import payloads
from plugind.audit.ledger import Ledger
from plugind.audit.planhistory import PlanWrite, PlanWrites, writes_about, writes_of
from plugind.audit.records import PlanChange, PlanRestore, Stored
from plugind.errors import InvalidRequestError, PlanError, PlugindError
from plugind.model import Caller
from plugind.planfiles import Entry
from plugind.plans.commits import Commits
from plugind.plans.comparison import MOST_KEPT, Compared, Differences, Restored, kept_name, kept_name_problem, why_not
from plugind.plans.folders import PlanFolders
from plugind.plans.notes import Change, name_of

MOST_BYTES: Final = 128 * 1024 * 1024
"""Of what is looked at in a folder for one run: twice of what the highest ceiling lets it write."""
MOST_RUNS: Final = 1000
MOST_FILES: Final = 10_000
"""That one call undoes, of all its runs together: the answer tells of each."""
TURN_S: Final = 10.0
"""About so long an undo waits for a run that writes to the plan."""
_CHANGED: Final = "what the run put there was changed since; with force it is kept beside what comes back"
_AS_BEFORE: Final = "every file is as it was before"


@dataclass(frozen=True, slots=True)
class Wish:
    """What somebody wants of an undo, and who they are."""

    by_uid: int
    why: str
    dry_run: bool = False
    force: bool = False


@dataclass(frozen=True, slots=True)
class _Call:
    """What the undoings of one call have in common."""

    wish: Wish
    differences: Differences
    ahead: dict[tuple[str, str], Entry] = field(default_factory=dict)
    """By folder and path, what would be there: a dry run changes nothing, and what it says of older runs follows."""


class Undo:
    """Undoes runs of one ledger."""

    def __init__(self, ledger: Ledger, directory: Path, folders: PlanFolders, commits: Commits) -> None:
        """`directory`: the ledger's."""
        self._ledger = ledger
        self._directory = directory
        self._folders = folders
        self._commits = commits
        self._under_way: set[asyncio.Task[Restored]] = set()

    async def one(self, index: int, wish: Wish) -> Restored:
        """The run, or the undoing of one, that a record belongs to. Raises NotFoundError, InvalidRequestError."""
        writes, write = await asyncio.to_thread(writes_about, self._directory, index, self._ledger.size)
        return await self._undo(writes, write, _Call(wish, Differences(self._directory)))

    async def all_of(self, plugin: str, version: str, since_unix_ms: int, wish: Wish) -> list[Restored]:
        """What a plugin has put into plans since then and is there still, newest first. Raises InvalidRequestError.

        `plugin`: name or id; `version` empty: of every one. A run that cannot be undone does not keep others from it.
        """
        since = (plugin, version, since_unix_ms)
        writes = await asyncio.to_thread(writes_of, self._directory, *since, self._ledger.size)
        runs = [each for each in reversed(writes.by_index.values()) if each.of < 0 and writes.in_force(each)]
        files = sum(len(run.files) for run in runs)
        if len(runs) > MOST_RUNS or files > MOST_FILES:
            raise InvalidRequestError(
                f"since: expected at most {MOST_RUNS} runs with {MOST_FILES} files since then, got {len(runs)} with"
                f" {files}: restore those since a later time first"
            )
        call = _Call(wish, Differences(self._directory))
        return [await self._undo(writes, run, call) for run in runs]

    async def _undo(self, writes: PlanWrites, write: PlanWrite, call: _Call) -> Restored:
        """What keeps it from being done is said, and not raised: others may have been done in the same call."""
        if said := why_not(writes, write):
            return Restored(write, *said)
        # It goes on also when nobody waits for it any more: between its record and its end nothing may come.
        task = asyncio.create_task(self._with_turn(write, call))
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)
        return await asyncio.shield(task)

    async def _with_turn(self, write: PlanWrite, call: _Call) -> Restored:
        asking = InFlight("undo", Caller(call.wish.by_uid, 0, 0), "", time.time_ns() // 1_000_000)
        patience = Patience(time.monotonic() + TURN_S)
        try:
            async with self._commits.turns.write(write.plan_dir, asking, patience) as full:
                busy = "a run" if full else self._commits.unfinished(write.plan_dir)
                if busy:
                    return Restored(write, "failed", f"{busy} still writes to {write.plan_dir}: try it again")
                return await self._in_turn(write, call)
        except PlanError as error:
            return Restored(write, "conflict" if error.code == "conflict" else "failed", str(error))
        except (PlugindError, OSError) as error:
            return Restored(write, "failed", str(error))

    async def _in_turn(self, write: PlanWrite, call: _Call) -> Restored:
        compared = await self._compare(write, call)
        strange = next((each.found for each in compared if each.found.problem), None)
        changed = not all(each.unchanged for each in compared)
        forced = changed and call.wish.force and strange is None
        kept = await self._names_to_keep(write, call, compared) if forced else {}
        files = await asyncio.to_thread(call.differences.told, write, compared, kept)
        if strange is not None:
            return Restored(write, "conflict", f"{strange.path}: there is a {strange.problem} now", files)
        if changed and not forced:
            return Restored(write, "conflict", _CHANGED, files)
        changing = [each for each in compared if not each.as_before]
        entries = await asyncio.to_thread(self._entries, changing, kept)
        if not entries:
            return Restored(write, "nothing", _AS_BEFORE, files)
        if call.wish.dry_run:
            call.ahead.update({(write.plan_dir, each.path): Entry(each.path, each.content) for each in entries})
            return Restored(write, "would_restore", "", files)
        return await self._put(write, call.wish, entries, Restored(write, "restored", "", files), forced=forced)

    # -- 2.

    async def _compare(self, write: PlanWrite, call: _Call) -> list[Compared]:
        there = await self._there(write, call, [change.path for change in write.files])
        return await asyncio.to_thread(
            lambda: [Compared.of(change, there[change.path]) for change in write.files]  # as much as 128 MiB
        )

    async def _there(self, write: PlanWrite, call: _Call, paths: Sequence[str]) -> dict[str, Entry]:
        """What there is in the plan's folder now. Raises PlanError."""
        wanted, facts = [Entry(path) for path in paths], {"most_bytes": MOST_BYTES}
        found, _ = await self._folders.plan_work("compare", write.plan_dir, _caller(write), facts, wanted)
        there = {entry.path: entry for entry in found}
        if there.keys() != set(paths):
            raise PlanError("fault", f"{write.plan_dir}: expected an answer for {len(paths)} files, got {len(there)}")
        return {path: call.ahead.get((write.plan_dir, path), entry) for path, entry in there.items()}

    async def _names_to_keep(self, write: PlanWrite, call: _Call, compared: Sequence[Compared]) -> dict[str, str]:
        """For each file whose content is to be kept a name that is free. Raises PlanError."""
        names: dict[str, str] = {}
        own = {change.path for change in write.files}
        wanted = [each.change.path for each in compared if each.to_keep]
        if problem := next(filter(None, (kept_name_problem(path, write.index) for path in wanted)), ""):
            raise PlanError("file", problem)
        for number in range(1, MOST_KEPT + 1):
            if not wanted:
                break
            tried = {path: kept_name(path, write.index, number) for path in wanted}
            there = await self._there(write, call, list(tried.values()))
            free = {path: name for path, name in tried.items() if _is_free(there[name]) and name not in own}
            names |= free
            wanted = [path for path in wanted if path not in free]
        if wanted:
            name = kept_name(wanted[0], write.index, MOST_KEPT)
            raise PlanError("file", f"{name}: expected a free name to keep what is there now, got one that is taken")
        return names

    # -- 3.

    def _entries(self, changing: Sequence[Compared], kept: Mapping[str, str]) -> list[Entry]:
        """What is to be staged. Raises StateError where the payload store has not, or not whole, what was there."""
        entries = []
        for each in changing:
            path, was, expected = each.change.path, each.change.replaced, {"expected_sha256": each.found_sha256}
            if was.sha256:
                entries.append(Entry(path, payloads.read(self._directory, was), facts=expected))
            else:
                entries.append(Entry(path, facts=expected | {"delete": True}))
        found = {each.change.path: each.found.content for each in changing}
        return entries + [Entry(name, found[path], facts={"expected_sha256": ""}) for path, name in kept.items()]

    # -- 4.

    async def _put(
        self, write: PlanWrite, wish: Wish, entries: Sequence[Entry], told: Restored, *, forced: bool
    ) -> Restored:
        """What to tell is `told`, if all goes well."""
        change, caller = self._change(write), _caller(write)
        there = await self._commits.stage(change, caller, entries)
        try:
            changes = await asyncio.to_thread(self._changes, write, entries, there)
            index = await self._ledger.append(_record_of(write, wish, changes, forced=forced))
        except BaseException:
            self._commits.leave(change)
            raise
        told = replace(told, record=index)
        try:
            settled = await self._commits.settle(change, index, changes, caller)
        except PlanError as error:
            return replace(told, state="failed", detail=str(error))
        return told if settled.state == "committed" else replace(told, state="conflict", detail=settled.why)

    def _change(self, write: PlanWrite) -> Change:
        name = name_of(write.index)
        return Change(
            name=name,
            of=write.index,
            since=self._ledger.size,
            restores=True,
            run=name,
            plan_dir=write.plan_dir,
            plan_id=write.plan_id,
            caller_uid=write.caller_uid,
            caller_gid=0,
            plugin_id=write.plugin_id,
            plugin=write.plugin,
            version=write.version,
        )

    def _changes(
        self, write: PlanWrite, entries: Sequence[Entry], there: Mapping[str, Entry]
    ) -> tuple[PlanChange, ...]:
        """What is staged, as the record tells it. What comes back the payload store has already."""
        stored = {change.path: change.replaced for change in write.files}
        return tuple(
            PlanChange(each.path, stored.get(each.path) or self._kept(each), self._kept(there[each.path]))
            for each in entries
        )

    def _kept(self, entry: Entry) -> Stored:
        return Stored() if entry.content is None else self._ledger.keep_file(entry.content)


def _is_free(entry: Entry) -> bool:
    return entry.content is None and not entry.mark and not entry.problem


def _caller(write: PlanWrite) -> Caller:
    """As whom the folder is opened. Whether uid is who wrote there the launcher knows, and with which groups."""
    return Caller(uid=write.caller_uid, gid=0, pid=0)


def _record_of(write: PlanWrite, wish: Wish, changes: tuple[PlanChange, ...], *, forced: bool) -> PlanRestore:
    return PlanRestore(
        of=write.index,
        by_uid=wish.by_uid,
        why=wish.why,
        plugin_id=write.plugin_id,
        plugin=write.plugin,
        version=write.version,
        digest=write.digest,
        plan_id=write.plan_id,
        caller_uid=write.caller_uid,
        plan_dir=write.plan_dir,
        files=changes,
        forced=forced,
    )
