"""A run's part in the files of its plan: its turn, what it may read, and what becomes of what it wrote."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from plugind.admission import Patience
from plugind.answers import isolation_reason
from plugind.audit.ledger import Ledger
from plugind.audit.records import PlanChange, PlanFile, Stored
from plugind.collect import Given
from plugind.config import log
from plugind.errors import IsolationUnavailableError, LauncherGoneError, PlanError
from plugind.model import Outcome, Profile, Reason
from plugind.planfiles import LEARNING, Entry, FileCeilings, matches, pack, root_of
from plugind.plans.commits import Commits
from plugind.plans.folders import NO_FOLDER, NO_LEARNING, Opened, PlanFolders, plan_reason, turn_reason
from plugind.plans.notes import Change, name_of
from plugind.plans.writes import judged, openings
from plugind.policy.facts import Grant
from plugind.policy.rules import Policy
from plugind.sandbox.running import InstanceResult
from plugind.turns import Full
from plugind.underway import Underway

_OTHERS_DOING: Final = frozenset({"conflict", "denied", "open", "file", "large", "caller", "root"})
"""Codes of a staging that came to nothing by what people did to the folder meanwhile: canceled, and no fault."""


@dataclass(frozen=True, slots=True)
class _Wish:
    """What a run may have. None: it has no permission of that kind."""

    reads: tuple[str, ...] | None
    writes: tuple[str, ...] | None
    most: FileCeilings
    learns: bool

    def reads_it(self, path: str) -> bool:
        return self.learns or matches(path, self.reads or ())

    def facts(self) -> dict[str, Any]:
        """For the plan helper's `read`."""
        facts: dict[str, Any] = {"read": list(self.reads or ()), "write": list(self.writes or ())}
        facts |= {"read_files": self.most.read_files, "read_bytes": self.most.read_bytes}
        return facts | {"all": True} if self.learns else facts


class PlanRuns:
    """The files of plans, for a runner."""

    def __init__(
        self,
        folders: PlanFolders,
        commits: Commits,
        ledger: Ledger,
        profiles: Mapping[int, Profile],
        policy: Callable[[], Policy],
        *,
        development: bool = False,
    ) -> None:
        """`development`: runs may learn, and where the policy names no roots there need be none."""
        self._folders = folders
        self._commits = commits
        self._ledger = ledger
        self._profiles = profiles
        self._policy = policy
        self._development = development

    @contextlib.asynccontextmanager
    async def turn(self, run: Underway, grant: Grant, patience: Patience) -> AsyncIterator[Full | None]:
        """The turn of a run that may write to its plan, until the block ends, or why there is none."""
        request = run.request
        if not request.plan_dir or request.files is not None or request.learn or not grant.files("file_write"):
            yield None
            return
        async with self._commits.turns.write(request.plan_dir, run.flight, patience) as full:
            yield full

    # -- before INTENT

    async def open(self, run: Underway, grant: Grant) -> tuple[Reason, ...]:
        """Give a run what it may have of its plan (`run.plan`), or tell why it gets nothing, and does not run."""
        request = run.request
        if request.learn and not self._development:
            return (NO_LEARNING,)
        wish = self._wish(grant, learns=request.learn)
        if wish.reads is None and wish.writes is None:
            return ()
        if request.files is None and not request.plan_dir:
            return (NO_FOLDER,)
        try:
            if request.files is not None:
                run.plan = await asyncio.to_thread(self._opened, request.files, wish, "")
            else:
                run.plan = await self._copied(run, wish)
        except (PlanError, LauncherGoneError, IsolationUnavailableError, TimeoutError) as error:
            return (_reason(error),)
        return ()

    def _wish(self, grant: Grant, *, learns: bool) -> _Wish:
        most = self._profiles[grant.tier].files
        reads, writes = grant.files("file_read"), grant.files("file_write")
        if not learns:
            return _Wish(reads or None, writes or None, most, learns=False)
        if not most.write_files:
            most = replace(most, write_files=LEARNING.write_files, write_bytes=LEARNING.write_bytes)
        return _Wish(reads, writes, most, learns=True)

    async def _copied(self, run: Underway, wish: _Wish) -> Opened:
        plan_dir, roots = run.request.plan_dir, self._policy().plan_roots
        if not root_of(plan_dir, roots) and (roots or not self._development):
            raise PlanError("root", f"{plan_dir}; roots: {', '.join(roots) or 'none'}")
        async with self._commits.turns.copying(plan_dir):
            if unfinished := self._commits.unfinished(plan_dir):
                raise PlanError("conflict", f"the change of {unfinished} is not finished yet")
            found, _ = await self._folders.plan_work("read", plan_dir, run.request.caller, wish.facts())
        return await asyncio.to_thread(self._opened, found, wish, plan_dir)

    def _opened(self, found: Iterable[Entry], wish: _Wish, plan_dir: str) -> Opened:
        """Blocks: it hashes and packs what may be large. Raises PlanError."""
        entries = list(found)
        reads = [Entry(entry.path, entry.content) for entry in entries if entry.content is not None]
        if plan_dir and not all(wish.reads_it(entry.path) for entry in reads):
            raise PlanError("fault", f"{plan_dir}: a helper gave files that nobody asked for")
        reads = [entry for entry in reads if wish.reads_it(entry.path)]  # a caller may send more than is granted
        size = sum(len(entry.content or b"") for entry in reads)
        if len(reads) > wish.most.read_files or size > wish.most.read_bytes:
            most = f"at most {wish.most.read_files} files, {wish.most.read_bytes} bytes"
            raise PlanError("large", f"{len(reads)} files, {size} bytes; {most}")
        return Opened(
            plan_dir=plan_dir,
            packed=None if wish.reads is None else pack(reads),
            files=tuple(PlanFile(entry.path, self._ledger.keep_file(entry.content or b"")) for entry in reads),
            marks={entry.path: entry.mark for entry in entries},
            writes=wish.writes or (),
            write_files=0 if wish.writes is None else wish.most.write_files,
            write_bytes=0 if wish.writes is None else wish.most.write_bytes,
            learns=wish.learns,
        )

    # -- after it has run

    async def judge(self, run: Underway, result: InstanceResult) -> InstanceResult:
        """What it wrote, as far as it counts."""
        if not result.wrote:
            return result
        if run.plan.learns and result.outcome is Outcome.OK:
            run.opened = openings(result.wrote)
            return replace(result, wrote=())
        given = Given(run.conversation.transcript if run.conversation else run.request.input, run.plan.packed or b"")
        return await asyncio.to_thread(judged, result, run.plan, given)

    async def stage(self, run: Underway, intent: int, result: InstanceResult) -> InstanceResult:
        """Make ready what it wrote, and note it for OUTCOME. Canceled where somebody has changed a file meanwhile."""
        wrote = result.wrote
        if result.outcome is not Outcome.OK or not wrote:
            return result
        if not run.plan.plan_dir:
            run.sent, run.changes = wrote, await asyncio.to_thread(self._changes, wrote, {})
            return result
        change = _change(run, intent)
        expected = [Entry(entry.path, entry.content, run.plan.marks.get(entry.path, "")) for entry in wrote]
        try:
            there = await self._commits.stage(change, run.request.caller, expected)
        except PlanError as error:
            outcome = Outcome.CANCELED if error.code in _OTHERS_DOING else Outcome.FAULT
            return _without(result, outcome, f"its files were not put into {change.plan_dir}: {error}")
        except (LauncherGoneError, IsolationUnavailableError) as error:
            return _without(result, Outcome.FAULT, f"its files were not put into {change.plan_dir}: {error}")
        run.change = change
        run.changes = await asyncio.to_thread(self._changes, wrote, there)
        return result

    def _changes(self, wrote: Iterable[Entry], there: Mapping[str, Entry]) -> tuple[PlanChange, ...]:
        return tuple(
            PlanChange(entry.path, self._ledger.keep_file(entry.content or b""), self._kept(there.get(entry.path)))
            for entry in wrote
        )

    def _kept(self, entry: Entry | None) -> Stored:
        return Stored() if entry is None or entry.content is None else self._ledger.keep_file(entry.content)

    def leave(self, run: Underway) -> None:
        """Its OUTCOME could not be written, or perhaps it was."""
        if run.change is not None:
            self._commits.leave(run.change)

    async def settle(self, run: Underway, intent: int, result: InstanceResult) -> InstanceResult:
        """Its OUTCOME is durable: put what is staged into place, or take it away. How it ended, for the caller."""
        if run.change is None:
            return result
        caller = run.request.caller
        if result.outcome is not Outcome.OK:
            await self._commits.give_up(run.change, caller)
            return result
        try:
            settled = await self._commits.settle(run.change, intent, run.changes, caller)
        except PlanError as error:
            return _without(result, Outcome.FAULT, str(error))
        if settled.state == "committed":
            return result
        return _without(result, Outcome.CANCELED, f"nothing was changed in {run.plan.plan_dir}: {settled.why}")


def _reason(error: Exception) -> Reason:
    """Why it gets nothing."""
    match error:
        case PlanError():
            return plan_reason(error)
        case IsolationUnavailableError():
            return isolation_reason(error)
        case TimeoutError():
            return turn_reason("another run's files are put into it for too long")
        case _:
            return isolation_reason(IsolationUnavailableError("launcher", str(error)))


def _change(run: Underway, intent: int) -> Change:
    record, request = run.record, run.request
    return Change(
        name=name_of(intent),
        of=intent,
        since=intent,
        restores=False,
        run=run.flight.run_id,
        plan_dir=request.plan_dir,
        plan_id=request.plan_id,
        caller_uid=request.caller.uid,
        caller_gid=request.caller.gid,
        plugin_id=run.flight.plugin_id,
        plugin=record.manifest.name if record else request.plugin,
        version=record.manifest.version if record else request.version,
    )


def _without(result: InstanceResult, outcome: Outcome, detail: str) -> InstanceResult:
    """How it ended after all, though the plugin itself did well."""
    if outcome is Outcome.FAULT:
        log(detail)
    return replace(result, outcome=outcome, detail=detail, output_json=None, wrote=())
