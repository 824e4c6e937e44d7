"""Who a caller is, as the kernel has it now: the process that connected, its user and groups, and what it sees.

The front names a pid, which can be another process's by now. So that process has to have begun before the connection,
and to be the user's who connected. Sources: proc_pid_stat(5), proc_pid_status(5), proc_pid_root(5).
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Final

from plugind.errors import PlanError

MOST_GROUPS: Final = 4096
MOST_STATUS_BYTES: Final = 64 * 1024
"""Of /proc/PID/status: as many groups as that, with what else is in it."""
_TICKS_A_SECOND: Final = os.sysconf("SC_CLK_TCK")
_START_TIME: Final = 19
"""Field 22 of stat, counted from the state, which is field 3."""
_FIELDS: Final = ("Uid:", "Gid:", "Groups:", "Umask:")
_SEND: Final = "send the files with the request: plugindctl run --send, Client.run(files=…)"


@dataclass(frozen=True, slots=True)
class Identity:
    """Whom a plan helper becomes."""

    uid: int
    gid: int
    groups: tuple[int, ...]
    umask: int
    """As its files are made, so are those that are made for it."""


def open_process(pid: int) -> int:
    """A descriptor of /proc/PID. It goes on to mean this process when the pid is another's. Raises PlanError."""
    try:
        return os.open(f"/proc/{pid}", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise _gone(pid) from error


def look(process: int, pid: int, uid: int, gid: int, since_ns: int) -> Identity:
    """The user and groups of a process (open_process) that connected at `since_ns` (CLOCK_BOOTTIME).

    Reads what the kernel keeps and no file system, so it cannot hang.

    Raises PlanError "caller" when it is not that process any more, or not wholly that user.
    """
    try:
        stat, status = _read(process, "stat"), _read(process, "status")
    except OSError as error:
        raise _gone(pid) from error
    try:
        began_ns = int(stat.rpartition(")")[2].split()[_START_TIME]) * 10**9 // _TICKS_A_SECOND
        # Not splitlines: a process may have more than that takes for an end of line in its name, and words after it.
        fields = dict(line.split(":", 1) for line in status.split("\n") if line.startswith(_FIELDS))
        uids, gids, groups = (tuple(map(int, fields[name].split())) for name in ("Uid", "Gid", "Groups"))
        umask = int(fields["Umask"], 8) & 0o077  # he can always read and write what was made for him
    except (ValueError, IndexError, KeyError) as error:
        raise PlanError("caller", f"process {pid}: expected stat and status as proc(5) has them: {error!r}") from error
    # A tick is 10 ms, and began_ns is rounded down: who begins and connects at once is not later.
    if began_ns > since_ns:
        raise PlanError(
            "caller",
            f"process {pid}: expected the one that connected, got one that began {(began_ns - since_ns) / 10**9:.2f} s"
            " later: connect again",
        )
    # Of a program with set-user-id or set-group-id these differ, and what it may open is not what its user may.
    for name, wanted, found in (("uid", uid, uids), ("gid", gid, gids)):
        if found != (wanted,) * 4:
            shown = " ".join(map(str, found))
            raise PlanError(
                "caller", f"process {pid}: expected {name} {wanted}, which connected, got {shown}: connect again"
            )
    if len(groups) > MOST_GROUPS:
        raise PlanError("caller", f"process {pid}: expected at most {MOST_GROUPS} groups, got {len(groups)}: {_SEND}")
    return Identity(uid, gid, groups, umask)


def check_root(process: int) -> None:
    """Whether a process has our root folder as its own. Raises PlanError "caller", also when it is gone.

    This asks the file system of that root, which can be anybody's: only for a process that may hang.
    """
    try:
        theirs = os.stat("root", dir_fd=process)
    except OSError as error:
        raise PlanError("caller", f"the caller's root folder cannot be seen, it has ended: {error.strerror}") from error
    ours = os.stat("/")
    if (theirs.st_dev, theirs.st_ino) != (ours.st_dev, ours.st_ino):
        raise PlanError(
            "caller",
            "the caller has another root folder than the daemon, as in a container: a folder's name means something"
            f" else there; {_SEND}",
        )


def _gone(pid: int) -> PlanError:
    return PlanError("caller", f"process {pid}: expected the one that connected, got none: it has ended; connect again")


def _read(process: int, name: str) -> str:
    descriptor = os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=process)
    data = b""
    try:
        while (more := os.read(descriptor, MOST_STATUS_BYTES)) and len(data) <= MOST_STATUS_BYTES:
            data += more
    finally:
        os.close(descriptor)
    return data.decode(errors="replace")
