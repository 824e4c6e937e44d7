"""The resolver: a process that asks name servers for the launcher, which never reads a byte of theirs.

It is nobody (a uid of its own, no capability, a filter of system calls), has a group of its own, and no say: what it
answers is held to what was asked (questions.py), and judged afterwards (plugind.addresses). Started when a run first
needs a name. What it knows is kept in it, and gone with it.
"""

from __future__ import annotations

import errno
import resource
import socket
import time
from collections.abc import Callable, Sequence
from typing import Final

from plugind.linux import seccomp, syscalls
from plugind.linux.cgroup import Group, GroupLimits
from plugind.sandbox import channel, forked, nobody, uids
from plugind.sandbox.forked import Forked
from plugind.sandbox.network.questions import MAX_MESSAGE_BYTES, Answer, decode_answer, encode_request
from plugind.sandbox.network.servers import Server, Servers, parse

BUDGET: Final = GroupLimits(memory_bytes=96 * 1024 * 1024, pids=1, cpu_percent=50)
START_TIMEOUT_S: Final = 10.0
OVERDUE_NS: Final = 8 * 10**9
"""It answers within 5 s, whatever name servers do."""
NEVER_NS: Final = 2**63 - 1
_MOST_OPEN: Final = 1024

__all__ = ["Answer", "Resolver", "Start", "start"]


class Resolver:
    """The launcher's end. `sock` becomes readable when it has said something, or is gone."""

    def __init__(self, process: Forked) -> None:
        self.process = process
        self.sock = process.sock
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
        self.process.end()


def start(group: Group, nameservers: Sequence[str]) -> Resolver:
    """Start the process. Without name servers those of /etc/resolv.conf are asked.

    Raises ConfigError for what is no name server, IsolationUnavailableError, OSError.
    """
    servers = [parse(text) for text in nameservers]

    def work(launcher: socket.socket, parent: int) -> None:
        _work(servers, launcher, parent)

    process, _ = forked.start("plugind-resolve", "resolver", group, BUDGET, work, START_TIMEOUT_S)
    return Resolver(process)


def _work(servers: Sequence[Server], launcher: socket.socket, parent: int) -> None:
    program = seccomp.resolver_filter()
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
    launcher.send(forked.READY)
    lookup = Lookup(Servers(servers).now)
    loop.run_until_complete(Resolving(launcher, lookup.find, Cache()).serve())


Start = Callable[[Group, Sequence[str]], Resolver]
