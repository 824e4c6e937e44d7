"""read: copy what the patterns of a plugin mean, and nothing else."""

from __future__ import annotations

import errno
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from plugind.errors import PlanError
from plugind.planfiles import MAX_DEPTH, Entry, part_matches, path_problem
from plugind.sandbox.plans.calls import FOLDER
from plugind.sandbox.plans.files import mark_of, not_taken, problem_of, read_file
from plugind.sandbox.plans.opening import Plan, opened, refusal
from plugind.sandbox.plans.orders import count_of, texts_of

MOST_LISTED: Final = 100_000
"""Names in all folders that are looked into, together."""
MOST_MARKED: Final = 10_000
"""Files that are only looked at: the index of an answer holds their marks."""
_EVERYTHING: Final = tuple("/".join(["*"] * depth) for depth in range(1, MAX_DEPTH + 1))

Patterns = Sequence[Sequence[str]]


def read(plan: Plan, facts: Mapping[str, Any]) -> list[Entry]:
    """What `read` means, with content; of what else `write` means, the mark. Ordered by path.

    Facts: `read`, `write`, `read_files`, `read_bytes`; `all`: everything but dot files, and what nobody takes is told
    by `problem` instead of refused. Raises PlanError "file", "large" or "denied".
    """
    everything = facts.get("all") is True
    patterns = _EVERYTHING if everything else texts_of(facts, "read")
    walk = _Walk(plan, count_of(facts, "read_files"), count_of(facts, "read_bytes"), lenient=everything)
    walk.into(plan.folder(""), "", _parts(patterns), _parts(texts_of(facts, "write")))
    return sorted(walk.entries, key=lambda entry: entry.path)


def _parts(patterns: Sequence[str]) -> Patterns:
    return [pattern.split("/") for pattern in patterns]


def _beneath(name: str, patterns: Patterns) -> Patterns:
    """What is left of the patterns within a folder of this name."""
    return [pattern[1:] for pattern in patterns if len(pattern) > 1 and part_matches(name, pattern[0])]


def _means(name: str, patterns: Patterns) -> bool:
    return any(len(pattern) == 1 and part_matches(name, pattern[0]) for pattern in patterns)


@dataclass(slots=True)
class _Walk:
    plan: Plan
    most_files: int
    most_bytes: int
    lenient: bool
    entries: list[Entry] = field(default_factory=list)
    listed: int = 0
    read_files: int = 0
    read_bytes: int = 0

    def into(self, folder: int, prefix: str, read: Patterns, write: Patterns) -> None:
        """Take what the patterns mean in one folder, and go on into its folders."""
        for name in self._names(folder, prefix):
            below_read, below_write = _beneath(name, read), _beneath(name, write)
            reads, writes = _means(name, read), _means(name, write)
            if reads or writes or below_read or below_write:
                self._take(folder, prefix, name, (reads, writes), (below_read, below_write))

    def _names(self, folder: int, prefix: str) -> list[str]:
        """All at once: what is made in the folder meanwhile does not make the list longer."""
        names = []
        for name in self.plan.calls.names(folder):
            self.listed += 1
            if self.listed > MOST_LISTED:
                raise PlanError("large", f"{prefix or '.'}: expected at most {MOST_LISTED} names in a plan's folders")
            names.append(name)
        return sorted(names)

    def _take(
        self, folder: int, prefix: str, name: str, meant: tuple[bool, bool], below: tuple[Patterns, Patterns]
    ) -> None:
        reads, writes = meant
        path = prefix + name
        status = self.plan.calls.stat(folder, name)
        if status is None:
            return  # gone since it was listed
        if stat.S_ISDIR(status.st_mode):
            if below[0] or below[1]:
                self._enter(folder, path, name, *below)
            return
        if below[0] and stat.S_ISLNK(status.st_mode) and not reads:
            self._not_taken(path, "symlink")  # nobody can say what would be meant behind it
        elif reads:
            self._read(folder, name, path, problem_of(status))
        elif writes and not path_problem(path):
            self._note(Entry(path, None, "" if problem_of(status) else mark_of(status), problem_of(status)))

    def _enter(self, folder: int, path: str, name: str, read: Patterns, write: Patterns) -> None:
        try:
            with opened(self.plan.calls, folder, name, FOLDER) as descriptor:
                self.into(descriptor, f"{path}/", read, write)
        except FileNotFoundError:
            return  # gone since it was listed
        except OSError as error:
            if not read:
                return  # whoever writes there is refused then
            problem = {errno.EXDEV: "mount", errno.ELOOP: "symlink", errno.EACCES: "denied"}.get(error.errno or 0)
            if problem is None or (problem == "denied" and not self.lenient):
                raise refusal(error, path) from error
            self._not_taken(path, problem)

    def _read(self, folder: int, name: str, path: str, problem: str) -> None:
        if expected := path_problem(path):
            if self.lenient:
                return  # no entry can have it for a path
            raise PlanError("file", f"{path!r}: expected {expected}: give it another name")
        if problem:
            self._not_taken(path, problem)
            return
        if self.read_files >= self.most_files:
            raise PlanError("large", f"{path}: expected at most {self.most_files} files to read")
        try:
            found = read_file(self.plan.calls, folder, name, path, self.most_bytes - self.read_bytes)
        except PlanError as error:
            if not self.lenient or error.code == "large":
                raise
            self._not_taken(path, "denied" if error.code == "denied" else "changing")
            return
        if found is None:
            return
        self.read_files += 1
        self.read_bytes += len(found.content)
        self.entries.append(Entry(path, found.content, found.mark, facts={"mode": found.mode}))

    def _not_taken(self, path: str, problem: str) -> None:
        if not self.lenient:
            raise not_taken(path, problem)
        if not path_problem(path):
            self._note(Entry(path, problem=problem))

    def _note(self, entry: Entry) -> None:
        self.entries.append(entry)
        if len(self.entries) - self.read_files > MOST_MARKED:
            raise PlanError("large", f"{entry.path}: expected at most {MOST_MARKED} files that patterns mean")
