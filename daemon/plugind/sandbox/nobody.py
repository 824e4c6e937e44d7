"""How a process that the launcher forks becomes nobody: a uid of its own, no capability, and an end with its parent."""

from __future__ import annotations

import os
import signal

from plugind.errors import IsolationUnavailableError
from plugind.linux import constants as c
from plugind.linux import syscalls


def give_up_root(uid: int, parent: int, step: str) -> None:
    """Become `uid`, user and group, for good. Raises IsolationUnavailableError of that step, OSError."""
    syscalls.drop_bounding_set()
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)
    syscalls.clear_capabilities()
    # After the last change of credentials, which would clear it.
    syscalls.prctl(c.PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        raise IsolationUnavailableError(step, "the launcher is gone")
    syscalls.prctl(c.PR_SET_NO_NEW_PRIVS, 1)
    syscalls.prctl(c.PR_SET_DUMPABLE, 0)
