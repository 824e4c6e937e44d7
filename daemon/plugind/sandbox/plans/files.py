"""One file in a folder: what it is, whether it stays what it is while it is read, and which one it was."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from dataclasses import dataclass
from typing import Final

from plugind.errors import PlanError
from plugind.sandbox.plans.calls import FILE, Calls
from plugind.sandbox.plans.opening import opened

_READ_TRIES: Final = 3
_FRESH_NS: Final = 50_000_000
_FRESH_TRIES: Final = 10
_KINDS: Final = (
    (stat.S_ISDIR, "folder"),
    (stat.S_ISLNK, "symlink"),
    (stat.S_ISFIFO, "fifo"),
    (stat.S_ISSOCK, "socket"),
    (stat.S_ISBLK, "device"),
    (stat.S_ISCHR, "device"),
)
_REMEDIES: Final = {
    "folder": "name another file, or move the folder away",
    "symlink": "put the file itself there",
    "hard link": "copy it, so that it has only this name",
    "mount": "put the file itself there",
}


@dataclass(frozen=True, slots=True)
class Found:
    """A regular file with one name, as it was read."""

    content: bytes
    status: os.stat_result
    access_list: bytes
    """Its POSIX access list; empty: none but its mode."""

    @property
    def mark(self) -> str:
        """See planfiles.Entry.mark."""
        return mark_of(self.status)

    @property
    def mode(self) -> int:
        """Its permission bits, without set-user-ID and the like."""
        return self.status.st_mode & 0o777

    @property
    def sha256(self) -> str:
        """Of its content."""
        return hashlib.sha256(self.content).hexdigest()


def mark_of(status: os.stat_result) -> str:
    """Which file it is, and in which state: whoever writes, renames or links it makes it another mark."""
    return f"{status.st_dev:x}:{status.st_ino}:{status.st_size}:{status.st_mtime_ns}:{status.st_ctime_ns}"


def problem_of(status: os.stat_result) -> str:
    """Why nobody takes this for a file of a plan; empty: it is a regular file with one name."""
    if not stat.S_ISREG(status.st_mode):
        return next((word for is_kind, word in _KINDS if is_kind(status.st_mode)), "no regular file")
    return "hard link" if status.st_nlink > 1 else ""


def not_taken(path: str, problem: str) -> PlanError:
    """The refusal of a file because of what it is."""
    remedy = _REMEDIES.get(problem, "move it away")
    return PlanError("file", f"{path}: expected a regular file with one name, got a {problem}: {remedy}")


def read_file(calls: Calls, folder: int, name: str, path: str, most_bytes: int) -> Found | None:
    """A file that stays as it is while it is read; None: nothing has this name. `path` is for the texts.

    Raises PlanError "file", "large" (before anything is read) or "denied", OSError.
    """
    for _ in range(_READ_TRIES):
        status = calls.stat(folder, name)
        if status is None:
            return None
        if problem := problem_of(status):
            raise not_taken(path, problem)  # before it is opened: that can do something to a device
        try:
            with opened(calls, folder, name, FILE) as descriptor:
                found = _read(calls, descriptor, path, most_bytes)
        except FileNotFoundError:
            continue
        except OSError as error:
            raise _unreadable(error, path) from error
        if found is not None:
            return found
    raise PlanError("file", f"{path}: expected a file that stays as it is while it is read: try again when it does")


def _unreadable(error: OSError, path: str) -> Exception:
    if error.errno in (errno.EACCES, errno.EPERM):
        return PlanError("denied", f"{path}: the caller may not read it")
    special = {errno.ELOOP: "symlink", errno.EXDEV: "mount", errno.ENXIO: "socket"}
    if error.errno in special:
        return not_taken(path, special[error.errno])
    if error.errno == errno.EAGAIN:
        return PlanError("file", f"{path}: another program holds it (a lease, or renames all the time): try again")
    return error


def _read(calls: Calls, descriptor: int, path: str, most_bytes: int) -> Found | None:
    before = _quiet(calls, descriptor)
    if problem := problem_of(before):
        raise not_taken(path, problem)
    if before.st_size > most_bytes:
        raise PlanError(
            "large",
            f"{path}: expected at most {most_bytes} bytes (what is left of the ceiling for all), got {before.st_size}",
        )
    content = calls.read(descriptor, before.st_size + 1)
    access_list = calls.access_list(descriptor)
    after = calls.fstat(descriptor)
    stayed = mark_of(before) == mark_of(after) and len(content) == before.st_size and after.st_nlink == 1
    return Found(content, after, access_list) if stayed else None


def _quiet(calls: Calls, descriptor: int) -> os.stat_result:
    """Its status, once the tick in which it was last changed is over: a change after that shows in its times."""
    for _ in range(_FRESH_TRIES):
        status = calls.fstat(descriptor)
        if not 0 <= status.st_ctime_ns - calls.now_ns() < _FRESH_NS:  # further ahead: a file server's clock
            return status
        calls.pause()
    return calls.fstat(descriptor)
