"""How a process that the launcher forks gives root up: another uid, no capability, and an end with its parent."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence

from plugind.errors import IsolationUnavailableError
from plugind.linux import constants as c
from plugind.linux import syscalls


def give_up_root(uid: int, parent: int, step: str) -> None:
    """Become `uid`, user and group, for good: nobody. Raises IsolationUnavailableError of that step, OSError."""
    become(uid, uid, (), parent, step)


def become(uid: int, gid: int, groups: Sequence[int], parent: int, step: str) -> None:
    """The same for somebody, with his groups."""
    syscalls.drop_bounding_set()
    os.setgroups(groups)
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)
    syscalls.clear_capabilities()
    # After the last change of credentials, which would clear it.
    syscalls.prctl(c.PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        raise IsolationUnavailableError(step, "the launcher is gone")
    syscalls.prctl(c.PR_SET_NO_NEW_PRIVS, 1)
    syscalls.prctl(c.PR_SET_DUMPABLE, 0)
