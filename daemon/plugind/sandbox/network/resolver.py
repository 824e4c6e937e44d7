"""The resolver: a process that asks name servers for the launcher, which never reads a byte of theirs.

It is nobody (a uid of its own, no capability, a filter of system calls), has a group of its own, and no say: what it
answers is held to what was asked (questions.py), and judged afterwards (plugind.addresses). Started when a run first
needs a name. What it knows is kept in it, and gone with it.
"""

from __future__ import annotations

import errno
import os
import resource
import signal
import socket
import time
from collections.abc import Callable, Sequence
from typing import Final, NoReturn

from plugind.errors import IsolationUnavailableError
from plugind.linux import seccomp, syscalls
from plugind.linux.cgroup import Group, GroupLimits
from plugind.sandbox import channel, nobody, uids
from plugind.sandbox.network.questions import MAX_MESSAGE_BYTES, Answer, decode_answer, encode_request
from plugind.sandbox.network.servers import Server, Servers, parse

BUDGET: Final = GroupLimits(memory_bytes=96 * 1024 * 1024, pids=1, cpu_percent=50)
START_TIMEOUT_S: Final = 10.0
OVERDUE_NS: Final = 8 * 10**9
"""It answers within 5 s, whatever name servers do."""
NEVER_NS: Final = 2**63 - 1
_MOST_OPEN: Final = 1024
_READY: Final = b"ready"

__all__ = ["Answer", "Resolver", "Start", "start"]


class Resolver:
    """The launcher's end. `sock` becomes readable when it has said something, or is gone."""

    def __init__(self, sock: socket.socket, pid: int, group: Group) -> None:
        self.sock = sock
        self._pid = pid
        self._group = group
        self._asked: dict[str, frozenset[str]] = {}
        self._due_ns: dict[str, int] = {}

    def ask(self, token: str, names: Sequence[str]) -> None:
        """Have names resolved, for whoever `token` stands for. Never waits.

        Raises OSError where it is gone or has too much to do, and for what is no name, too many, or a token in use.
        """
        if token in self._asked:
            raise OSError(errno.EINVAL, f"token: expected a new one, got {token!r}")
        try:
            request = encode_request(token, names)
        except ValueError as error:
            raise OSError(errno.EINVAL, str(error)) from error
        channel.send(self.sock, request)
        self._asked[token] = frozenset(names)
        self._due_ns[token] = time.monotonic_ns() + OVERDUE_NS

    def receive(self) -> Answer | None:
        """An answer, checked; None where there is none. Raises EOFError when it is gone, or is not itself any more."""
        try:
            data, _, cut = channel.receive(self.sock, MAX_MESSAGE_BYTES)
        except BlockingIOError:
            return None
        except OSError:
            data, cut = b"", False
        if not data or cut:
            raise EOFError("an answer that is too long" if cut else "it ended")
        try:
            answer = decode_answer(data, self._asked)
        except ValueError as error:
            raise EOFError(f"not an answer: {error}") from error
        if answer is not None:
            del self._asked[answer.token], self._due_ns[answer.token]
        return answer

    def due_ns(self) -> int:
        """When (monotonic clock) the next answer is overdue, and it counts as gone; NEVER_NS when none is awaited."""
        return next(iter(self._due_ns.values()), NEVER_NS)

    def end(self) -> None:
        """SIGKILL, and nothing of it is left. Raises OSError."""
        self.sock.close()
        os.kill(self._pid, signal.SIGKILL)  # our own unreaped child: the pid cannot have been reused
        os.waitpid(self._pid, 0)
        self._group.remove()


def start(group: Group, nameservers: Sequence[str]) -> Resolver:
    """Start the process. Without name servers those of /etc/resolv.conf are asked.

    Raises ConfigError for what is no name server, IsolationUnavailableError, OSError.
    """
    servers = [parse(text) for text in nameservers]
    group.set_limits(BUDGET)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    parent = os.getpid()
    pid = os.fork()
    if pid == 0:
        _become_resolver(servers, theirs, parent)
    theirs.close()
    resolver = Resolver(ours, pid, group)
    try:
        group.attach(pid)
        ours.settimeout(START_TIMEOUT_S)
        ours.send(_READY)
        if (told := ours.recv(1024)) != _READY:
            raise IsolationUnavailableError("resolver", told.decode(errors="replace") or "it ended")
        ours.settimeout(None)
    except BaseException:
        resolver.end()
        raise
    return resolver


def _become_resolver(servers: Sequence[Server], launcher: socket.socket, parent: int) -> NoReturn:
    try:
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_DFL)
        syscalls.set_name("plugind-resolve")
        program = seccomp.resolver_filter()
        launcher.recv(64)  # it is in its group
        syscalls.close_all_but({2, launcher.fileno()})
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        most = _MOST_OPEN if hard == resource.RLIM_INFINITY else min(_MOST_OPEN, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
        # Only in here, and while the files can still be read: in the launcher they would be code that is root.
        import asyncio  # noqa: PLC0415

        from plugind.sandbox.network.cache import Cache  # noqa: PLC0415
        from plugind.sandbox.network.lookup import Lookup  # noqa: PLC0415
        from plugind.sandbox.network.resolving import Resolving  # noqa: PLC0415

        loop = asyncio.new_event_loop()
        nobody.give_up_root(uids.RESOLVER, parent, "resolver")
        syscalls.seccomp_load(program)
        launcher.setblocking(False)
        launcher.send(_READY)
        lookup = Lookup(Servers(servers).now)
        loop.run_until_complete(Resolving(launcher, lookup.find, Cache()).serve())
        os._exit(0)
    except BaseException as error:  # noqa: BLE001 - whatever it is, the launcher is to know
        try:
            launcher.send(f"{type(error).__name__}: {error}".encode()[:1000])
        except OSError:
            pass  # the launcher is gone
    finally:
        os._exit(1)


Start = Callable[[Group, Sequence[str]], Resolver]
