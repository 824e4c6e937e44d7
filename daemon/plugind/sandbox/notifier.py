"""The notifier: a process that answers for every system call that no filter of an instance allows.

It names the call, counts it (refusals.py), and refuses it with an errno; for a dangerous one, or one too many, it tells
the launcher, which ends the run, and lets the call wait until then. It has a group of its own, so that a plugin that
tries without end burns the notifier's time and nobody else's; and one call of each instance is answered in turn.
It sees numbers only: the memory of an instance is not its business. When it ends, everything it watched ends too.
"""

from __future__ import annotations

import os
import select
import socket
import struct
from collections.abc import Callable
from typing import Final, NoReturn

from plugind.linux import seccomp, seccomp_notify, syscalls
from plugind.linux.cgroup import Group, GroupLimits
from plugind.sandbox import channel, forked, nobody, uids
from plugind.sandbox.forked import Forked
from plugind.sandbox.refusals import Table

BUDGET: Final = GroupLimits(memory_bytes=64 * 1024 * 1024, pids=1, cpu_percent=50)
DANGEROUS, TOO_MANY = 1, 2
"""Why a run is to end."""
START_TIMEOUT_S: Final = 10.0
_WATCH: Final = struct.Struct("<QQ")  # owner, most refused calls; with the listener
_END: Final = struct.Struct("<QI")  # owner, why
_LISTENER: Final = "anon_inode:seccomp notify"


class Notifier:
    """The launcher's end. `sock` becomes readable when a run is to end, or when the notifier is gone."""

    def __init__(self, process: Forked) -> None:
        self.process = process
        self.sock = process.sock

    def watch(self, owner: int, most: int, listener: int) -> None:
        """Answer for an instance from now on. Raises OSError, also where that is no listener."""
        if os.readlink(f"/proc/self/fd/{listener}") != _LISTENER:
            raise OSError(0, "expected the listener of a seccomp filter")
        channel.send(self.sock, _WATCH.pack(owner, most), [listener])

    def receive(self) -> tuple[int, int] | None:
        """The owner that is to end, and why; None where there is nothing to read. Raises EOFError when it is gone."""
        try:
            data, _, _ = channel.receive(self.sock, 64)
        except BlockingIOError:
            return None
        except OSError:
            data = b""
        if len(data) != _END.size:
            raise EOFError
        owner, why = _END.unpack(data)
        return owner, why

    def end(self) -> None:
        """SIGKILL, and nothing of it is left. Raises OSError."""
        self.process.end()


def start(table: Table, group: Group) -> Notifier:
    """Start the process. Raises IsolationUnavailableError, OSError."""

    def work(launcher: socket.socket, parent: int) -> None:
        rules = seccomp_notify.Rules()
        program = seccomp.notifier_filter()
        poll = select.epoll()
        syscalls.close_all_but({2, launcher.fileno(), poll.fileno()})
        nobody.give_up_root(uids.NOTIFIER, parent, "notifier")
        syscalls.seccomp_load(program)
        launcher.send(forked.READY)
        _Watch(table, rules, launcher, poll).serve()

    process, _ = forked.start("plugind-notify", "notifier", group, BUDGET, work, START_TIMEOUT_S)
    return Notifier(process)


class _Watch:
    """The notifier's loop."""

    def __init__(self, table: Table, rules: seccomp_notify.Rules, launcher: socket.socket, poll: select.epoll) -> None:
        self._table = table
        self._rules = rules
        self._launcher = launcher
        self._poll = poll
        self._left: dict[int, tuple[int, int]] = {}
        """listener → owner, how many more calls it may have refused."""
        poll.register(launcher.fileno(), select.EPOLLIN)

    def serve(self) -> NoReturn:
        """Until the launcher is gone."""
        launcher = self._launcher.fileno()
        while True:
            for descriptor, events in self._poll.poll():
                if descriptor == launcher:
                    self._begin()
                elif events & select.EPOLLIN:
                    self._answer(descriptor)
                elif events & (select.EPOLLHUP | select.EPOLLERR):  # every process that had this filter is gone
                    self._poll.unregister(descriptor)
                    os.close(descriptor)
                    del self._left[descriptor]

    def _begin(self) -> None:
        data, descriptors, _ = channel.receive(self._launcher, 64, 1)
        if not data:
            os._exit(0)
        owner, most = _WATCH.unpack(data)
        self._left[descriptors[0]] = (owner, most)
        self._poll.register(descriptors[0], select.EPOLLIN)

    def _answer(self, listener: int) -> None:
        notification = self._rules.receive(listener)
        if notification is None:
            return
        owner, left = self._left[listener]
        dangerous = self._rules.dangerous(notification.call)
        self._table.count(owner, notification.call, dangerous=dangerous)
        self._left[listener] = (owner, left - 1)
        if dangerous or left <= 0:
            # Not answered: it waits for its death, and never learns what it would have got.
            self._launcher.send(_END.pack(owner, DANGEROUS if dangerous else TOO_MANY))
        else:
            seccomp_notify.refuse(listener, notification, self._rules.error(notification.call))


Start = Callable[[Table, Group], Notifier]
