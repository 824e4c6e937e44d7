"""The way into a plan's folder: no link followed, no mount crossed, from the plan root down to every file."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from plugind.errors import PlanError
from plugind.planfiles import RESERVED, is_root
from plugind.sandbox.plans.calls import FOLDER, Calls

_NOT_THERE: Final = {
    errno.ENOENT: "no such folder",
    errno.ENOTDIR: "something that is no folder",
    errno.ELOOP: "a link, which is not followed",
    errno.EXDEV: "another mount, which is not entered",
}
_DENIED: Final = (errno.EACCES, errno.EPERM)


def refusal(error: OSError, what: str) -> PlanError:
    """What a failed system call means for whoever asked, when nothing better is known of it."""
    if error.errno in _DENIED:
        return PlanError("denied", f"{what}: the caller may not: {error}")
    if error.errno in (errno.ELOOP, errno.EXDEV, errno.ENOTDIR):
        return PlanError("file", f"{what}: expected a folder or file of the plan itself, got {_NOT_THERE[error.errno]}")
    return PlanError("fault", f"{what}: {error}")


def _opening(error: OSError, path: str) -> PlanError:
    if error.errno in _NOT_THERE:
        return PlanError("open", f"{path}: expected a folder, got {_NOT_THERE[error.errno]}: name the folder itself")
    return refusal(error, path)


@contextmanager
def opened(calls: Calls, folder: int, path: str, flags: int, mode: int = 0) -> Iterator[int]:
    """A descriptor of what is beneath a folder, for as long as it is needed."""
    descriptor = calls.open(folder, path, flags, mode)
    try:
        yield descriptor
    finally:
        calls.close(descriptor)


class Plan:
    """A plan's folder and those beneath it that were opened. Each stays the same folder for one piece of work."""

    def __init__(self, calls: Calls, descriptor: int) -> None:
        """`descriptor`: of the plan's folder. It is closed with the others."""
        self.calls = calls
        self._open = {"": descriptor}

    def folder(self, path: str) -> int:
        """A descriptor of the folder of this path; empty: of the plan itself. Raises OSError as Calls.open."""
        if path not in self._open:
            self._open[path] = self.calls.open(self._open[""], path, FOLDER)
        return self._open[path]

    def folder_if_there(self, path: str) -> int | None:
        """The same; None: somebody has taken it away, or put something else in its place. Raises OSError."""
        try:
            return self.folder(path)
        except OSError as error:
            if error.errno in _NOT_THERE:
                return None
            raise  # it may be there, with something of ours in it

    def has_moved(self, path: str) -> bool:
        """Whether another folder has this path now than the one that was opened."""
        was = self.calls.fstat(self.folder(path))
        try:
            with opened(self.calls, self._open[""], path, FOLDER) as descriptor:
                return not os.path.samestat(was, self.calls.fstat(descriptor))
        except OSError:
            return True

    @property
    def folders(self) -> dict[str, int]:
        """The descriptors of all that were opened, by path."""
        return dict(self._open)

    def close(self) -> None:
        """Close all of them."""
        for descriptor in self._open.values():
            self.calls.close(descriptor)
        self._open.clear()


@contextmanager
def plan_opened(calls: Calls, root: str, plan_dir: str) -> Iterator[Plan]:
    """The plan's folder below its root. Raises PlanError "root", "open" or "denied"."""
    below = plan_dir.removeprefix(f"{root}/")
    if not is_root(root) or not is_root(plan_dir) or below == plan_dir:
        raise PlanError("root", f"{plan_dir}: expected an absolute path below {root}, with nothing to resolve in it")
    if any(part.startswith(RESERVED) for part in below.split("/")):
        raise PlanError("open", f"{plan_dir}: expected a plan, got a folder of plugind's own ({RESERVED}…)")
    try:
        top = calls.open_root(root)
    except OSError as error:
        raise _opening(error, root) from error
    try:
        plan = Plan(calls, calls.open(top, below, FOLDER))
    except OSError as error:
        raise _opening(error, plan_dir) from error
    finally:
        calls.close(top)
    try:
        yield plan
    finally:
        plan.close()


def split(path: str) -> tuple[str, str]:
    """The folder that a path is in (empty: the plan itself), and its name there."""
    parent, _, name = path.rpartition("/")
    return parent, name
