"""The staging of a run, `.plugind-RUN/` in the plan's folder: whose it is, what is in it, and how it goes away."""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, Literal

from plugind.errors import PlanError
from plugind.planfiles import RESERVED
from plugind.sandbox.plans import journal
from plugind.sandbox.plans.calls import FILE, FOLDER, NEW_FILE, Calls
from plugind.sandbox.plans.files import problem_of
from plugind.sandbox.plans.journal import Journal
from plugind.sandbox.plans.opening import Plan, opened

State = Literal["committed", "undone", "nothing"]

_MODE: Final = 0o700
_JOURNAL: Final = "journal.json"
_DECISION: Final = "decision.json"
_DRAFT: Final = "draft"
PROBES: Final = ("probe0", "probe1")
_OURS: Final = re.compile(rf"[fd][0-9]{{1,6}}|{_JOURNAL}|{_DECISION}|{_DRAFT}|{'|'.join(PROBES)}")
_MOST_NAMES: Final = 100_000
_MOST_DECISION_BYTES: Final = 64 * 1024


def name_of(run: str) -> str:
    """The staging's name in the plan's folder."""
    return f"{RESERVED}{run}"


@dataclass(frozen=True, slots=True)
class Staging:
    """A staging that is ours, open and locked: nobody else works on it, not even a helper that was given up."""

    calls: Calls
    run: str
    descriptor: int

    def journal(self) -> Journal | None:
        """What is to be done; None: the staging was never completed. Raises PlanError "fault"."""
        data = self._content(_JOURNAL, journal.MOST_BYTES)
        return None if data is None else journal.decode(data, self.run)

    def put_journal(self, written: Journal) -> None:
        """Complete the staging, durably. Raises PlanError "large"."""
        data = written.encoded()
        if len(data) > journal.MOST_BYTES:
            raise PlanError("large", f"journal: expected at most {journal.MOST_BYTES} bytes, got {len(data)}")
        self._put(_JOURNAL, data)

    def decision(self) -> tuple[State, str] | None:
        """What became of it, and why; None: that is not decided. Raises PlanError "fault"."""
        data = self._content(_DECISION, _MOST_DECISION_BYTES)
        if data is None:
            return None
        try:
            said = json.loads(data)
            state, why = said["state"], said["why"]
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise PlanError("fault", f"staging of {self.run}: expected its decision, got {data!r:.100}") from error
        if state not in ("committed", "undone") or not isinstance(why, str):
            raise PlanError("fault", f"staging of {self.run}: expected its decision, got {data!r:.100}")
        return state, why

    def decide(self, state: State, why: str) -> None:
        """Say for good what became of it. A character takes 12 bytes of JSON at the most."""
        self._put(_DECISION, json.dumps({"state": state, "why": why[: _MOST_DECISION_BYTES // 16]}).encode())

    def _put(self, name: str, data: bytes) -> None:
        if self.calls.stat(self.descriptor, _DRAFT) is not None:
            self.calls.unlink(self.descriptor, _DRAFT)
        with opened(self.calls, self.descriptor, _DRAFT, NEW_FILE, 0o600) as file:
            self.calls.write(file, data)
            self.calls.fsync(file)
        self.calls.rename(self.descriptor, _DRAFT, self.descriptor, name)
        self.calls.fsync(self.descriptor)

    def _content(self, name: str, most_bytes: int) -> bytes | None:
        status = self.calls.stat(self.descriptor, name)
        if status is None:
            return None
        if problem_of(status) or status.st_size > most_bytes:
            raise PlanError("fault", f"staging of {self.run}: {name}: expected a file of up to {most_bytes} bytes")
        with opened(self.calls, self.descriptor, name, FILE) as file:
            return self.calls.read(file, most_bytes)

    def remove(self, plan: Plan) -> None:
        """Take it away, the decision last. Raises PlanError "file" for what cannot be ours."""
        names: list[str] = []
        for name in self.calls.names(self.descriptor):
            if not _OURS.fullmatch(name) or len(names) >= _MOST_NAMES:
                raise PlanError(
                    "file", f"{name_of(self.run)}/{name}: expected what plugind puts there: look at it, remove it"
                )
            names.append(name)
        for name in sorted(names, key=_removed_late):
            self._remove(name)
        self.calls.rmdir(plan.folder(""), name_of(self.run))
        self.calls.fsync(plan.folder(""))

    def _remove(self, name: str) -> None:
        status = self.calls.stat(self.descriptor, name)
        if status is None:
            return
        if stat.S_ISDIR(status.st_mode):
            self.calls.rmdir(self.descriptor, name)
        else:
            self.calls.unlink(self.descriptor, name)


def _removed_late(name: str) -> int:
    """Without journal a staging was never completed, unless there is a decision."""
    return (_JOURNAL, _DECISION).index(name) + 1 if name in (_JOURNAL, _DECISION) else 0


def make(plan: Plan, run: str) -> None:
    """An empty staging. Raises FileExistsError, OSError."""
    plan.calls.mkdir(plan.folder(""), name_of(run), _MODE)


@contextmanager
def staging_opened(plan: Plan, run: str) -> Iterator[Staging | None]:
    """The staging of a run; None: there is none. Raises PlanError "file" where it is not ours, "busy"."""
    status = plan.calls.stat(plan.folder(""), name_of(run))
    if status is None:
        yield None
        return
    if not stat.S_ISDIR(status.st_mode):
        raise _foreign(run, "something that is no folder")
    with opened(plan.calls, plan.folder(""), name_of(run), FOLDER) as descriptor:
        status = plan.calls.fstat(descriptor)
        # Whoever else may write to the plan could have put it there, with a journal of their own.
        if status.st_uid != os.geteuid() or status.st_mode & 0o077:
            raise _foreign(run, f"mode {status.st_mode & 0o7777:04o} of uid {status.st_uid}")
        if not plan.calls.lock(descriptor):
            raise PlanError("busy", f"{name_of(run)}: another helper still works on it: try again when it is gone")
        yield Staging(plan.calls, run, descriptor)


def _foreign(run: str, got: str) -> PlanError:
    return PlanError(
        "file", f"{name_of(run)}: expected a folder of uid {os.geteuid()} that only it can enter, got {got}: look at it"
    )
