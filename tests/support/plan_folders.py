"""Plans in memory: what the launcher and its plan helpers do with folders of plans, as plugind.plans.folders.PlanFolders says it.

Each step that changes something is announced first (`step`), so that a test can end the world between any two of them.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from plugind.errors import PlanError
from plugind.model import Caller
from plugind.planfiles import Entry, matches, path_problem

Step = Callable[[str], Awaitable[None]]


async def nothing(_name: str) -> None:
    """What comes before a step that nobody waits for."""


@dataclass(frozen=True, slots=True)
class File:
    """A file in a plan. `problem`: it is none that anybody takes, as "symlink"."""

    content: bytes
    mark: str
    problem: str = ""


@dataclass(slots=True)
class Staged:
    """The staging folder of a run."""

    coming: dict[str, File | None]
    was: dict[str, File | None]
    state: str = "staged"
    why: str = ""
    placed: list[str] = field(default_factory=list)


class FakePlanFolders:
    """Some plans. A folder that is not in `plans` is not there; one that no `roots` is above is refused."""

    def __init__(self, step: Step = nothing) -> None:
        self.step = step
        self.plans: dict[str, dict[str, File]] = {}
        self.staged: dict[tuple[str, str], Staged] = {}
        self.roots: tuple[str, ...] = ("/plans",)
        self.known: set[tuple[str, int]] = set()
        """Folder and uid of those who have staged something: who may be meant by pid 0."""
        self.gone: set[int] = set()
        """Processes of callers that have ended: nothing can be done as one of them."""
        self.asked: list[tuple[str, str, Caller]] = []
        """Task, folder and caller, in their order."""
        self.instead: dict[str, list[Exception]] = {}
        """By task: what comes instead of an answer, one after the other; then all is well again."""
        self.after: dict[str, list[Exception]] = {}
        """The same, after it was done: the answer is lost."""
        self._marks = itertools.count(1)

    # -- what people do in the folder

    def write(self, plan_dir: str, path: str, content: bytes, problem: str = "") -> None:
        """Somebody puts a file there, or writes to it."""
        self.plans.setdefault(plan_dir, {})[path] = self._file(content, problem)

    def contents(self, plan_dir: str) -> dict[str, bytes]:
        """What is there now."""
        return {path: file.content for path, file in self.plans[plan_dir].items()}

    def _file(self, content: bytes, problem: str = "") -> File:
        return File(content, f"mark-{next(self._marks)}", problem)

    # -- PlanFolders

    async def plan_work(
        self,
        task: str,
        plan_dir: str,
        caller: Caller,
        facts: Mapping[str, Any],
        entries: Sequence[Entry] = (),
    ) -> tuple[list[Entry], dict[str, Any]]:
        """See plugind.plans.folders.PlanFolders."""
        await self.step(task)
        self.asked.append((task, plan_dir, caller))
        if self.instead.get(task):
            raise self.instead[task].pop(0)
        self._open(plan_dir, caller)
        if task in ("stage", "settle", "clean"):
            done = await getattr(self, f"_{task}")(plan_dir, caller, facts, entries)
        else:
            done = getattr(self, f"_{task}")(plan_dir, facts, entries)
        await self.step(f"after {task}")
        if self.after.get(task):
            raise self.after[task].pop(0)
        answer: tuple[list[Entry], dict[str, Any]] = done
        return answer

    def _open(self, plan_dir: str, caller: Caller) -> None:
        if not any(plan_dir.startswith(f"{root}/") for root in self.roots):
            raise PlanError("root", f"{plan_dir}: expected a folder below a root of plans")
        if caller.pid in self.gone:
            raise PlanError("caller", f"expected the process {caller.pid} of the caller, got none")
        if not caller.pid and (plan_dir, caller.uid) not in self.known:
            raise PlanError("caller", f"expected somebody who has written to {plan_dir} before, got uid {caller.uid}")
        if plan_dir not in self.plans:
            raise PlanError("open", f"{plan_dir}: no such folder")

    def _read(
        self, plan_dir: str, facts: Mapping[str, Any], _entries: Sequence[Entry]
    ) -> tuple[list[Entry], dict[str, Any]]:
        taken = []
        for path, file in sorted(self.plans[plan_dir].items()):
            readable = bool(facts.get("all")) or matches(path, facts["read"])
            if readable and file.problem:
                raise PlanError("file", f"{path}: expected a regular file, got a {file.problem}")
            if readable or matches(path, facts["write"]):
                taken.append(Entry(path, file.content if readable else None, file.mark))
        contents = [entry.content for entry in taken if entry.content is not None]
        if len(contents) > facts["read_files"] or sum(map(len, contents)) > facts["read_bytes"]:
            raise PlanError("large", f"expected at most {facts['read_files']} files, {facts['read_bytes']} bytes")
        return taken, {}

    def _compare(
        self, plan_dir: str, facts: Mapping[str, Any], entries: Sequence[Entry]
    ) -> tuple[list[Entry], dict[str, Any]]:
        there = [_seen(entry.path, self.plans[plan_dir].get(entry.path)) for entry in entries]
        if sum(len(entry.content or b"") for entry in there) > facts["most_bytes"]:
            raise PlanError("large", f"expected at most {facts['most_bytes']} bytes")
        return there, {}

    async def _stage(
        self, plan_dir: str, caller: Caller, facts: Mapping[str, Any], entries: Sequence[Entry]
    ) -> tuple[list[Entry], dict[str, Any]]:
        name = (plan_dir, facts["run"])
        if name in self.staged:
            raise PlanError("fault", f".plugind-{facts['run']}: is there already")
        plan = self.plans[plan_dir]
        staged = Staged({}, {})
        self.known.add((plan_dir, caller.uid))
        self.staged[name] = staged
        for entry in entries:
            await self.step(f"stage {entry.path}")
            assert not path_problem(entry.path), entry.path
            there = plan.get(entry.path)
            if not _is_expected(entry, there):
                del self.staged[name]
                raise PlanError("conflict", f"{entry.path}: somebody else has changed it meanwhile")
            staged.was[entry.path] = there
            gone = bool(entry.facts.get("delete"))
            assert gone == (entry.content is None)
            staged.coming[entry.path] = None if entry.content is None else self._file(entry.content)
        return [_seen(entry.path, staged.was[entry.path]) for entry in entries], {}

    async def _settle(
        self, plan_dir: str, _caller: Caller, facts: Mapping[str, Any], _entries: Sequence[Entry]
    ) -> tuple[list[Entry], dict[str, Any]]:
        staged = self.staged.get((plan_dir, facts["run"]))
        if staged is None:
            return [], {"state": "nothing", "why": ""}
        if staged.state == "staged":
            await (self._forward(plan_dir, staged) if facts["forward"] else self._back(plan_dir, staged, "given up"))
        return [], {"state": staged.state, "why": staged.why}

    async def _forward(self, plan_dir: str, staged: Staged) -> None:
        for path in staged.coming:
            if path in staged.placed:
                continue
            await self.step(f"settle {path}")
            if self.plans[plan_dir].get(path) != staged.was[path]:
                await self._back(plan_dir, staged, f"{path}: somebody else has changed it meanwhile")
                return
            self._put(plan_dir, path, staged.coming[path])
            staged.placed.append(path)
        await self.step("settled")
        staged.state = "committed"

    async def _back(self, plan_dir: str, staged: Staged, why: str) -> None:
        for path in reversed(list(staged.placed)):
            await self.step(f"undo {path}")
            self._put(plan_dir, path, staged.was[path])
            staged.placed.remove(path)
        await self.step("undone")
        staged.state, staged.why = "undone", why

    def _put(self, plan_dir: str, path: str, file: File | None) -> None:
        if file is None:
            self.plans[plan_dir].pop(path, None)
        else:
            self.plans[plan_dir][path] = file

    async def _clean(
        self, plan_dir: str, _caller: Caller, facts: Mapping[str, Any], _entries: Sequence[Entry]
    ) -> tuple[list[Entry], dict[str, Any]]:
        staged = self.staged.get((plan_dir, facts["run"]))
        if staged is not None and staged.state == "staged":
            raise PlanError("fault", f".plugind-{facts['run']}: expected one that is decided")
        self.staged.pop((plan_dir, facts["run"]), None)
        return [], {}


def _seen(path: str, file: File | None) -> Entry:
    return Entry(path) if file is None else Entry(path, file.content, file.mark, file.problem)


def _is_expected(entry: Entry, there: File | None) -> bool:
    if "expected_sha256" in entry.facts:
        now = "" if there is None else hashlib.sha256(there.content).hexdigest()
        return bool(now == entry.facts["expected_sha256"])
    return entry.mark == ("" if there is None else there.mark)
