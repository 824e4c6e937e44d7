"""One change of a staging, put into place or taken back. What was done already is seen in the staging itself.

The new file waits in the staging under the change's name. Whatever has that name later and is not the new file came
out of the plan. Each step is one rename, so a crash leaves a change done or not done, and a step that is told again
finds out which. What somebody else has put into the plan is never removed: see `rescue`.
"""

from __future__ import annotations

import hashlib
from typing import Final

from plugind.planfiles import MAX_NAME_BYTES
from plugind.sandbox.plans.calls import FILE, Calls
from plugind.sandbox.plans.journal import Change, Made, State
from plugind.sandbox.plans.opening import Plan, opened, split
from plugind.sandbox.plans.stagings import Staging

_MOST_KEPT: Final = 100


class ChangedError(Exception):
    """Somebody has come between; the message says where."""


class Placing:
    """The changes of one staging, one by one. All raise OSError; only `forward` and `make` raise ChangedError."""

    def __init__(self, plan: Plan, staging: Staging) -> None:
        self.kept: list[str] = []
        """Where files are that somebody else has put into the plan in between."""
        self._plan = plan
        self._calls = plan.calls
        self._staging = staging
        self._run = staging.run

    def make(self, made: Made) -> None:
        """Have a folder that a file will be in: ours, or one that somebody has made meanwhile."""
        status = self._calls.stat(self._staging.descriptor, made.name)
        if status is not None and status.st_ino == made.inode:
            folder, name = self._place(made.path)
            try:
                self._calls.rename(self._staging.descriptor, made.name, folder, name)
            except FileExistsError:
                pass  # opening it says whether it is a folder
        try:
            self._plan.folder(made.path)
        except OSError as error:
            raise ChangedError(f"{made.path}: expected a folder that could be made or used: {error}") from error

    def forward(self, change: Change) -> None:
        """Put it into place, or see that it is there; what comes out has to be what the journal says."""
        folder, name = self._place(change.path)
        staged = self._calls.stat(self._staging.descriptor, change.name)
        if change.new is None:
            if staged is None:
                self._expect_old(change, folder, name)
                self._calls.rename(folder, name, self._staging.descriptor, change.name)
        elif staged is not None and staged.st_ino == change.new.inode:
            if not self._is(self._staging.descriptor, change.name, change.new):
                raise ChangedError(f"{change.path}: the new file was changed while it was staged")
            self._put(change, folder, name)
        if change.old is not None:
            if not self._is(self._staging.descriptor, change.name, change.old):
                raise ChangedError(f"{change.path}: changed by somebody meanwhile")
        elif change.new is not None and not change.new.is_like(self._calls.stat(folder, name)):
            raise ChangedError(f"{change.path}: made by somebody else meanwhile")

    def _put(self, change: Change, folder: int, name: str) -> None:
        if change.old is None:
            try:
                self._calls.rename(self._staging.descriptor, change.name, folder, name)
            except FileExistsError as error:
                raise ChangedError(f"{change.path}: made by somebody else meanwhile") from error
            return
        self._expect_old(change, folder, name)
        self._calls.exchange(self._staging.descriptor, change.name, folder, name)

    def _expect_old(self, change: Change, folder: int, name: str) -> None:
        """A look before anything moves: what is plainly another file need not vanish for a moment."""
        if change.old is None or not change.old.is_like(self._calls.stat(folder, name)):
            raise ChangedError(f"{change.path}: changed by somebody meanwhile")

    def stayed(self, change: Change) -> bool:
        """Whether what came out is still unchanged: a program that had it open may have gone on writing."""
        return change.old is None or change.old.is_like(self._calls.stat(self._staging.descriptor, change.name))

    def back(self, change: Change) -> None:
        """Take it back, unless somebody has put something there after us: then that stays."""
        parent, name = split(change.path)
        folder = self._plan.folder_if_there(parent)
        if folder is not None:
            self._back(change, folder, name)
        self.rescue(change)

    def _back(self, change: Change, folder: int, name: str) -> None:
        staged = self._calls.stat(self._staging.descriptor, change.name)
        is_ours = change.new is not None and change.new.is_like(self._calls.stat(folder, name))
        if change.new is None:
            if staged is not None:
                try:
                    self._calls.rename(self._staging.descriptor, change.name, folder, name)
                except FileExistsError:
                    pass
        elif change.old is None:
            if staged is None and is_ours:
                self._calls.rename(folder, name, self._staging.descriptor, change.name)
        elif staged is not None and staged.st_ino != change.new.inode and is_ours:
            self._calls.exchange(self._staging.descriptor, change.name, folder, name)

    def rescue(self, change: Change) -> None:
        """Put a file that came out of the plan, and that nobody has a copy of, back into it under a name beside."""
        staged = self._calls.stat(self._staging.descriptor, change.name)
        known = [state for state in (change.new, change.old) if state is not None]
        if staged is None or any(self._is(self._staging.descriptor, change.name, state) for state in known):
            return
        path = self._keep(change)
        self.kept.append(f"{change.path}: what somebody has put there is {path} now")

    def _keep(self, change: Change) -> str:
        parent, name = split(change.path)
        folder = self._plan.folder_if_there(parent)
        if folder is None:
            parent, folder = "", self._plan.folder("")
        for number in range(_MOST_KEPT):
            beside = _name_beside(name, f".plugind-kept-{self._run}{f'-{number}' if number else ''}")
            try:
                self._calls.rename(self._staging.descriptor, change.name, folder, beside)
            except FileExistsError:
                continue
            self._calls.fsync(folder)
            return f"{parent}/{beside}" if parent else beside
        raise FileExistsError(f"{change.path}: {_MOST_KEPT} files of this run were kept already")

    def unmake(self, made: Made) -> None:
        """Remove a folder that we have made, if nothing is in it."""
        parent, name = split(made.path)
        folder = self._plan.folder_if_there(parent)
        status = None if folder is None else self._calls.stat(folder, name)
        if folder is not None and status is not None and status.st_ino == made.inode:
            try:
                self._calls.rmdir(folder, name)
            except OSError:
                pass  # somebody has put something into it: it is theirs now

    def _place(self, path: str) -> tuple[int, str]:
        parent, name = split(path)
        return self._plan.folder(parent), name

    def _is(self, folder: int, name: str, state: State) -> bool:
        return is_file(self._calls, folder, name, state)


def is_file(calls: Calls, folder: int, name: str, state: State) -> bool:
    """Whether a file is in this state, by its content too."""
    if not state.is_like(calls.stat(folder, name)):
        return False
    try:
        with opened(calls, folder, name, FILE) as file:
            content = calls.read(file, state.bytes + 1)
            return state.is_like(calls.fstat(file)) and hashlib.sha256(content).hexdigest() == state.sha256
    except OSError:
        return False


def _name_beside(name: str, ending: str) -> str:
    kept = name.encode()[: MAX_NAME_BYTES - len(ending)].decode(errors="ignore")
    return kept + ending
