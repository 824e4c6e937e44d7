"""What a plugin has touched: plans and files, as the ledger tells it.

Source: SPEC.md, section "Files of a plan", "Undo".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from plugind.audit import reading
from plugind.audit.planhistory import PlanWrite, PlanWrites, reads_of, records_of
from plugind.audit.records import Stored

MOST_PLANS: Final = 1000
MOST_FILES: Final = 1000
"""Of one plan."""
MOST_FILES_OF_ALL: Final = 20_000
"""The newest plans come first; an answer has to stay readable."""


@dataclass(slots=True)
class Touched:
    """A file, and what was last done with it."""

    path: str
    state: str = "read"
    """read, written, sent (back to the caller), undone (it did not stay in the folder), or restored."""
    index: int = -1
    """The last run that put it there; -1: it was only read."""
    sha256: str = ""
    """Of what was read or written last."""
    bytes: int = 0


@dataclass(slots=True)
class PlanImpact:
    """What runs have done to one plan."""

    plan_id: str
    plan_dir: str
    versions: set[str] = field(default_factory=set)
    runs: int = 0
    last_unix_ms: int = 0
    files: dict[str, Touched] = field(default_factory=dict)
    files_left_out: int = 0

    def ran(self, version: str, at_unix_ms: int) -> None:
        """One more run."""
        self.versions.add(version)
        self.runs += 1
        self.last_unix_ms = max(self.last_unix_ms, at_unix_ms)

    def touch(self, path: str, content: Stored, index: int = -1, state: str = "") -> None:
        """A file was read; or, with a state, written by the run with this index."""
        touched = self.files.setdefault(path, Touched(path))
        touched.sha256, touched.bytes = content.sha256, content.bytes
        if state:
            touched.index, touched.state = index, state


@dataclass(frozen=True, slots=True)
class Impact:
    """All that was found."""

    plans: tuple[PlanImpact, ...]
    """Newest first."""
    runs: int
    plans_left_out: int


def impact(directory: Path, plugin: str, version: str, since_unix_ms: int, below: int = reading.ALL) -> Impact:
    """What a plugin's runs have read and written since then; blocks. `plugin`: name or id; `version` empty: all.

    Raises StateError where the ledger is damaged, OSError.
    """
    plans: dict[tuple[str, str], PlanImpact] = {}
    writes = PlanWrites()
    for fields in records_of(directory, plugin, version, since_unix_ms, below):
        writes.add(fields)
        if fields["event"] == "INTENT" and fields.get("mode") != "import":  # an import ahead is nobody's run
            plan = _plan_of(plans, fields)
            plan.ran(fields["version"], fields["time_unix_ms"])
            for file in reads_of(fields):
                plan.touch(file.path, file.content)
    # What is there now says more of a file than what was there for a while.
    for write in sorted(writes.by_index.values(), key=writes.in_force):
        _put(plans, writes, write)
    found = sorted(plans.values(), key=lambda plan: -plan.last_unix_ms)
    _bound(found[:MOST_PLANS])
    return Impact(tuple(found[:MOST_PLANS]), sum(plan.runs for plan in found), max(0, len(found) - MOST_PLANS))


def _plan_of(plans: dict[tuple[str, str], PlanImpact], fields: Mapping[str, Any]) -> PlanImpact:
    """An INTENT of before plans had folders has none."""
    key = (fields["plan_id"], fields.get("plan_dir", ""))
    return plans.setdefault(key, PlanImpact(*key))


def _put(plans: dict[tuple[str, str], PlanImpact], writes: PlanWrites, write: PlanWrite) -> None:
    """What a run wrote, in the order of the ledger; an undoing shows in what became of the run's own."""
    plan = plans.get((write.plan_id, write.plan_dir))
    if write.of >= 0 or plan is None:
        return  # a run whose INTENT is older than what was asked for is not among the runs either
    if write.state == "open":
        return  # whether it comes into the folder is not decided, and will be in a moment
    committed = "written" if writes.in_force(write) else "restored"
    state = committed if write.state == "committed" else write.state
    for change in write.files:
        plan.touch(change.path, change.content, write.index, state)


def _bound(plans: list[PlanImpact]) -> None:
    left = MOST_FILES_OF_ALL
    for plan in plans:
        paths = sorted(plan.files)[: min(MOST_FILES, left)]
        plan.files_left_out = len(plan.files) - len(paths)
        plan.files = {path: plan.files[path] for path in paths}
        left -= len(paths)
