"""Processes that the launcher forks for itself (notifier, resolver, keeper): how they begin, and how they end."""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, NoReturn

from plugind.errors import IsolationUnavailableError
from plugind.linux import syscalls
from plugind.linux.cgroup import Group, GroupLimits
from plugind.sandbox import channel

READY: Final = b"ready"
"""What such a process says when it is, perhaps with a descriptor."""

Work = Callable[[socket.socket, int], None]
"""What it does: with its socket to the launcher, and the launcher's pid. It says READY, and returns when it is over."""


@dataclass(frozen=True, slots=True)
class Forked:
    """One of them, as the launcher has it."""

    sock: socket.socket
    pid: int
    group: Group

    def end(self) -> None:
        """SIGKILL, and nothing of it is left. Raises OSError."""
        self.sock.close()
        os.kill(self.pid, signal.SIGKILL)  # our own unreaped child: the pid cannot have been reused
        os.waitpid(self.pid, 0)
        self.group.remove()


def start(
    name: str, step: str, group: Group, budget: GroupLimits, work: Work, timeout_s: float
) -> tuple[Forked, list[int]]:
    """Start one in its group, and wait until it is ready. With the descriptors that it hands over.

    Raises IsolationUnavailableError with `step`, OSError; then nothing of it is left.
    """
    group.set_limits(budget)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    parent = os.getpid()
    pid = os.fork()
    if pid == 0:
        _become(name, theirs, parent, work)
    theirs.close()
    forked, descriptors = Forked(ours, pid, group), list[int]()
    try:
        group.attach(pid)
        ours.settimeout(timeout_s)
        ours.send(READY)
        told, descriptors, _, _ = socket.recv_fds(ours, 1024, 1)
        if told != READY:
            raise IsolationUnavailableError(step, told.decode(errors="replace") or "it ended")
        ours.settimeout(None)
    except BaseException:
        channel.close(descriptors)
        forked.end()
        raise
    return forked, descriptors


def _become(name: str, launcher: socket.socket, parent: int, work: Work) -> NoReturn:
    try:
        gc.freeze()  # what was garbage before the fork would close descriptors by numbers that are ours by then
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_DFL)
        syscalls.set_name(name)
        launcher.recv(64)  # it is in its group
        work(launcher, parent)
        os._exit(0)
    except BaseException as error:  # noqa: BLE001 - whatever it is, the launcher is to know
        with contextlib.suppress(OSError):  # the launcher is gone
            launcher.send(f"{type(error).__name__}: {error}".encode()[:1000])
    finally:
        os._exit(1)
