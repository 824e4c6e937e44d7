"""What runs put into a plan beside what is there now, and what of it there is to be undone.

Source: SPEC.md, section "Files of a plan", "Undo".
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from plugind.audit import payloads
from plugind.audit.planhistory import PlanWrite, PlanWrites
from plugind.audit.records import PlanChange
from plugind.errors import StateError
from plugind.planfiles import Entry, path_problem
from plugind.plans.difference import difference

State = Literal["restored", "would_restore", "conflict", "nothing", "failed"]
MOST_KEPT: Final = 99
"""Of one file for one run: whoever forces it so often has kept enough."""
MOST_DIFFERENCES_BYTES: Final = 1024 * 1024
"""Of all that one call shows: an answer has to stay readable."""

_NOT_THERE: Final[Mapping[str, tuple[State, str]]] = {
    "sent": ("nothing", "its files went back to its caller, and no plan was changed"),
    "undone": ("nothing", "its files did not stay in the plan's folder"),
    "open": ("failed", "its files are still on their way into the plan's folder: try it again"),
}


@dataclass(frozen=True, slots=True)
class Compared:
    """A file of a write, as it was to become and as it is."""

    change: PlanChange
    found: Entry
    found_sha256: str
    """Of what is there now; empty: nothing. A file without a byte has a digest, as others do."""

    @classmethod
    def of(cls, change: PlanChange, found: Entry) -> Compared:
        """Of a file and what was found there; blocks for as long as its digest takes."""
        return cls(change, found, "" if found.content is None else hashlib.sha256(found.content).hexdigest())

    @property
    def unchanged(self) -> bool:
        """Whether what is there now is what was put there."""
        return not self.found.problem and self.found_sha256 == self.change.content.sha256

    @property
    def as_before(self) -> bool:
        """Whether what is there now is what was there before, so that nothing needs to be done."""
        return not self.found.problem and self.found_sha256 == self.change.replaced.sha256

    @property
    def to_keep(self) -> bool:
        """Whether something is there now that no record has."""
        return self.found.content is not None and not self.unchanged and not self.as_before


@dataclass(frozen=True, slots=True)
class RestoredFile:
    """What is to be told of a file. Digests: sha256 in hex; empty: there is none."""

    path: str
    written_sha256: str
    found_sha256: str
    restored_sha256: str
    unchanged: bool
    difference: str = ""
    kept_as: str = ""
    problem: str = ""
    """What is there now and no regular file."""


@dataclass(frozen=True, slots=True)
class Restored:
    """What became of the undoing of one write."""

    write: PlanWrite
    state: State
    detail: str = ""
    files: tuple[RestoredFile, ...] = ()
    record: int = -1
    """The RESTORE; -1: there is none."""


def why_not(writes: PlanWrites, write: PlanWrite) -> tuple[State, str] | None:
    """What there is to say instead of undoing it, by the ledger alone; None: it may be undone."""
    if not write.files:
        return "nothing", "it has written no file of a plan"
    if write.state != "committed":
        state, said = _NOT_THERE[write.state]
        return state, f"{said}: {write.why}" if write.why else said
    if undoing := writes.being_undone(write.index):
        return "failed", f"{undoing.log_id} is on its way to undo it: try it again"
    if undone := writes.undone_by(write.index):
        return "nothing", f"{undone.log_id} has undone it already; to undo that, restore {undone.log_id}"
    return None


def kept_name(path: str, index: int, number: int) -> str:
    """Where what is there now is kept: the first, second, … name to try. It begins as the file's own does."""
    return f"{path}.plugind-kept-log_{index}" + (f"-{number}" if number > 1 else "")


def kept_name_problem(path: str, index: int) -> str:
    """Why nothing can be kept beside this file; empty: it can."""
    expected = path_problem(kept_name(path, index, MOST_KEPT))
    return f"{path}: what is there now cannot be kept beside it: expected {expected}" if expected else ""


class Differences:
    """Tells of files with how they differ, as much as one answer has room for."""

    def __init__(self, directory: Path) -> None:
        """`directory`: the ledger's."""
        self._directory = directory
        self._left_bytes = MOST_DIFFERENCES_BYTES

    def told(self, write: PlanWrite, compared: Sequence[Compared], kept: Mapping[str, str]) -> tuple[RestoredFile, ...]:
        """What is to be told of each file; blocks. `kept`: by path, where what is there now will be."""
        return tuple(
            RestoredFile(
                path=each.change.path,
                written_sha256=each.change.content.sha256,
                found_sha256=each.found_sha256,
                restored_sha256=each.change.replaced.sha256,
                unchanged=each.unchanged,
                difference="" if each.unchanged else self._difference(write, each),
                kept_as=kept.get(each.change.path, ""),
                problem=each.found.problem,
            )
            for each in compared
        )

    def _difference(self, write: PlanWrite, compared: Compared) -> str:
        content, found = compared.change.content, compared.found.content
        if self._left_bytes <= 0 or not content.sha256 or found is None:
            return ""
        try:
            written = payloads.read(self._directory, content)
        except StateError:
            return ""  # what comes back is another payload, and is checked by itself
        path = compared.change.path
        text = difference(written, found, f"{path} ({write.log_id})", f"{path} (now)")
        self._left_bytes -= len(text.encode())
        return text
