"""The keeper of networks: a process that owns the router and all slots, and the launcher's end of it.

It alone loads pyroute2 and libnftables (0.1 s, 33 MiB), after the fork. When it is killed, its router goes, and every
link with it, as soon as the launcher has closed its own socket into that namespace, which receive() does when it
notices; until then every rule stays in force. What it has changed on the host is undone by the next start, or by
sweep().
"""

from __future__ import annotations

import contextlib
import gc
import os
import select
import signal
import socket
from collections.abc import Sequence
from typing import Any, Final, NoReturn

from plugind.addresses import Endpoint
from plugind.errors import IsolationUnavailableError
from plugind.linux import constants as c
from plugind.linux import netlink, rtnetlink, syscalls
from plugind.linux.cgroup import Group, GroupLimits
from plugind.sandbox import channel, forked
from plugind.sandbox.forked import Forked
from plugind.sandbox.network import words
from plugind.sandbox.network.words import Caps, Failed, Given, Settings, Used
from plugind.sandbox.words import log

BUDGET: Final = GroupLimits(memory_bytes=192 * 1024 * 1024, pids=4, cpu_percent=100)
START_TIMEOUT_S: Final = 15.0
END_TIMEOUT_S: Final = 10.0


class Keeper:
    """The launcher's end. `sock` becomes readable when it has said something, or is gone; `link` is in its router."""

    def __init__(self, process: Forked, link: socket.socket, settings: Settings) -> None:
        self.sock = process.sock
        self.link = link
        self.process = process
        self._settings = settings

    def expect(self, key: str, user_namespace: int) -> None:
        """Have networks made ahead for a template. Raises OSError."""
        self._say(words.Expect(key), [user_namespace])

    def take(
        self, run: str, key: str, user_namespace: int, digest: str, endpoints: Sequence[Endpoint], caps: Caps
    ) -> None:
        """Ask for a run's network: Given or Failed will come. Raises OSError, ValueError."""
        self._say(words.Take(run, key, digest, tuple(endpoints), caps), [user_namespace])

    def release(self, run: str) -> None:
        """No process of the run is left: Used or Failed will come, and nothing passes any more. Raises OSError."""
        self._say(words.Release(run))

    def forget(self, key: str) -> None:
        """A template is gone. Raises OSError."""
        self._say(words.Forget(key))

    def cut(self, ifindex: int) -> None:
        """When this returns nothing of that network passes any more: some 0.1 ms. Raises OSError."""
        rtnetlink.link_down(self.link, ifindex)

    def receive(self) -> Given | Used | Failed | None:
        """What it says, None where there is nothing. Raises EOFError when it is gone, or says what it may not."""
        try:
            data, descriptors, cut = channel.receive(self.sock, words.MAX_MESSAGE_BYTES, 1)
        except BlockingIOError:
            return None
        except OSError:
            data, descriptors, cut = b"", [], False
        try:
            message = words.decode(data)
            if cut or len(descriptors) != words.DESCRIPTORS.get(type(message), 0):
                raise ValueError(f"{type(message).__name__}: cut off, or with {len(descriptors)} descriptors")
        except ValueError as error:
            channel.close(descriptors)
            self.link.close()
            raise EOFError("the keeper of networks is gone" if not data else str(error)) from None
        if isinstance(message, Given):
            return Given(message.run, message.ifindex, descriptors[0])
        if isinstance(message, (Used, Failed)):
            return message
        self.link.close()
        raise EOFError(f"{type(message).__name__}: only the launcher says that")

    def end(self, patience_s: float = END_TIMEOUT_S) -> None:
        """Have it take everything back; SIGKILL, and a sweep, if it does not in time. Raises OSError."""
        with contextlib.suppress(OSError):
            self._say(words.End())
        self.link.close()
        self.sock.close()
        pidfd = os.pidfd_open(self.process.pid)  # our own unreaped child: the pid cannot have been reused
        try:
            obeyed = bool(select.select([pidfd], [], [], patience_s)[0])
        finally:
            os.close(pidfd)
        if not obeyed:
            os.kill(self.process.pid, signal.SIGKILL)
        failed = os.waitpid(self.process.pid, 0)[1] != 0
        self.process.group.remove()
        if failed:
            sweep(self._settings)

    def _say(self, message: words.ToKeeper, descriptors: Sequence[int] = ()) -> None:
        channel.send(self.sock, words.encode(message), descriptors)


def start(settings: Settings, group: Group) -> Keeper:
    """Start the process, and undo first what an earlier one left. Raises IsolationUnavailableError, OSError."""

    def work(launcher: socket.socket, parent: int) -> None:
        try:
            _work(settings, launcher, parent)
        except BaseException as error:
            log(f"the keeper of networks: {type(error).__name__}: {error}")
            raise

    process, descriptors = forked.start("plugind-network", "network", group, BUDGET, work, START_TIMEOUT_S)
    try:
        return Keeper(process, netlink.adopt(descriptors.pop()), settings)
    except BaseException:
        process.end()
        raise


def sweep(settings: Settings) -> None:
    """Undo what a killed keeper left on the host, in a child: the caller stays small. Raises OSError."""
    pid = os.fork()
    if pid == 0:
        _sweep(settings)
    if os.waitpid(pid, 0)[1] != 0:
        raise OSError(0, "what an earlier keeper of networks left could not be undone")


def _sweep(settings: Settings) -> NoReturn:
    code = 1
    try:
        gc.freeze()  # as in forked.py
        signal.set_wakeup_fd(-1)
        _serving().sweep(settings)
        code = 0
    except BaseException as error:  # noqa: BLE001 - whatever it is, somebody is to know
        log(f"the networks of an earlier start: {type(error).__name__}: {error}")
    finally:
        os._exit(code)


def _work(settings: Settings, launcher: socket.socket, parent: int) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)  # they are the launcher's, which then says that it is over
    syscalls.close_all_but({2, launcher.fileno()})
    # Not SIGKILL: it is to take back what is on the host. As if the launcher had closed its end, at any moment.
    signal.signal(signal.SIGUSR1, lambda *_: launcher.shutdown(socket.SHUT_RDWR))
    syscalls.prctl(c.PR_SET_PDEATHSIG, signal.SIGUSR1)
    if os.getppid() != parent:
        raise IsolationUnavailableError("network", "the launcher is gone")
    syscalls.prctl(c.PR_SET_NO_NEW_PRIVS, 1)
    syscalls.prctl(c.PR_SET_DUMPABLE, 0)
    _serving().serve(settings, launcher)


def _serving() -> Any:
    from plugind.sandbox.network import serving  # noqa: PLC0415 - what it loads is for the child only

    return serving
