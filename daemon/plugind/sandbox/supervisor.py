"""One instance as the launcher sees it: its groups, its limits, why it was killed and how it ended."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from plugind.linux.cgroup import GroupStats, GroupUse
from plugind.model import Limits, Violation
from plugind.sandbox import channel
from plugind.sandbox.grants import OutputFolder
from plugind.sandbox.protocol import Ended, Parked
from plugind.sandbox.template import Kind

SETUP_NS = 10 * 10**9
"""A jail that is not complete by then never will be."""
FOREVER_NS = 2**62
KILL_NS = 5 * 10**9
"""A killed instance that is not gone by then takes its template with it."""
_TICK_NS = 20 * 10**6
_SHORTEST_NS = 2 * 10**6
_CPUS = os.cpu_count() or 1


class InstanceGroup(Protocol):
    """The cgroups of one instance (plugind.linux.cgroup)."""

    def attach(self, pid: int) -> None:
        """Move a process (the host's pid) into the groups."""

    def kill(self) -> None:
        """SIGKILL to every process in them."""

    @property
    def can_freeze(self) -> bool:
        """Whether they can be made to stand still."""
        ...

    def freeze(self, *, frozen: bool) -> None:
        """Have every process stand still, or go on."""

    def tasks(self) -> int:
        """How many processes and threads there are."""
        ...

    def reins(self) -> tuple[int, int] | None:
        """Descriptors that end the groups, and tell whether they are empty."""
        ...

    def stats(self) -> GroupStats:
        """What they have used and refused so far."""
        ...

    def use(self) -> GroupUse:
        """What they have now."""
        ...

    def remove(self) -> None:
        """Remove the empty groups."""


@dataclass(slots=True)
class Ahead:
    """What an instance has that imports ahead: the way its run comes by, and the way its words do."""

    orders: socket.socket
    word: int
    waits: bool = False
    """Whether it is parked."""

    @classmethod
    def make(cls) -> tuple[Ahead, tuple[int, int]]:
        """One, and the instance's two ends. Raises OSError."""
        orders, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        # From there nothing comes, no descriptor either: a socket's queue would take thousands.
        orders.shutdown(socket.SHUT_RD)
        word, said = os.pipe2(os.O_CLOEXEC)
        return cls(orders, word), (theirs.detach(), said)

    def close(self) -> None:
        """It is over."""
        self.orders.close()
        if self.word >= 0:
            os.close(self.word)
            self.word = -1


@dataclass(slots=True)
class Instance:
    """From the Start message to the Ended message. Times are time.monotonic_ns()."""

    run: str
    digest: str
    kind: Kind
    """Of the template that it is a clone of."""
    limits: Limits
    uid: int
    group: InstanceGroup
    owner: int
    """Whose refused system calls are counted there (refusals.py)."""
    control: socket.socket | None = None
    cut: Callable[[], None] | None = None
    """Of one with a network: nothing gets through any more when it returns. Raises OSError."""
    ahead: Ahead | None = None
    """Of one that imports ahead of its run."""
    folder: OutputFolder | None = None
    """Of one that may write: what is there counts only when it has ended (gathering.py)."""
    created_ns: int = field(default_factory=time.monotonic_ns)
    started_ns: int = 0
    """When plugin code began; 0 while the jail is being built."""
    killed_ns: int = 0
    next_check_ns: int = 0
    pidfd: int = -1
    cause: str = ""
    detail: str = ""
    """What there is to say of the cause."""
    violations: tuple[Violation, ...] = ()
    cpu_before_ns: int = 0
    """What its import used, which was told when it was parked."""
    failure: tuple[str, str] = ("setup", "the instance ended before its jail was complete")
    """Step and detail, should it end before it started."""

    def __post_init__(self) -> None:
        self.next_check_ns = self.created_ns + SETUP_NS

    @property
    def tier(self) -> int:
        """Its tier."""
        return self.kind.tier

    @property
    def serves(self) -> bool:
        """Whether it is somebody's run, and does not import ahead or wait."""
        return self.ahead is None or self.ahead.orders.fileno() < 0

    def started(self) -> None:
        """The jail is complete: the clocks of the limits run from here."""
        self.started_ns = time.monotonic_ns()
        self._schedule(self.started_ns, 0)

    def check(self, now_ns: int) -> None:
        """Kill it if it broke a limit; else say when to look again."""
        if self.killed_ns:
            self.next_check_ns = self.killed_ns + KILL_NS
        elif not self.started_ns:
            if now_ns - self.created_ns >= SETUP_NS:
                self.failure = ("setup", f"not complete after {SETUP_NS // 10**9} s")
                self.kill("fault")
        else:
            stats = self.group.stats()
            cause = self._breach(stats, now_ns)
            if cause:
                self.kill(cause)
            else:
                self._schedule(now_ns, stats.cpu_ns - self.cpu_before_ns)

    def park(self) -> Parked:
        """Its import is over: it stands still from here on, and its clocks too. Raises OSError.

        Raises ValueError where it is more than one task: what the others would do meanwhile nobody asked for.
        """
        assert self.ahead is not None  # noqa: S101 - only such a one says so
        self.group.freeze(frozen=True)
        if (tasks := self.group.tasks()) != 1:
            raise ValueError(f"its import left {tasks} processes and threads, and not one")
        stats = self.group.stats()
        wall_ms = (time.monotonic_ns() - self.started_ns) // 10**6
        self.ahead.waits = True
        self.cpu_before_ns, self.next_check_ns = stats.cpu_ns, FOREVER_NS
        return Parked(self.run, wall_ms, stats.cpu_ns // 10**6, stats.memory_peak_bytes)

    def use(self, wall_ms: int, descriptors: Sequence[int]) -> None:
        """Its one run begins. Raises OSError."""
        assert self.ahead is not None  # noqa: S101 - it is parked
        self.ahead.waits = False
        self.limits = replace(self.limits, wall_ms=wall_ms)
        channel.send(self.ahead.orders, b"run", descriptors)
        self.ahead.orders.close()
        self.group.freeze(frozen=False)
        self.started_ns = time.monotonic_ns()
        self._schedule(self.started_ns, 0)

    def done(self) -> Ended:
        """It has said that it is: no code of it runs any more, and its groups go when it is gone. Raises OSError."""
        now_ns = time.monotonic_ns()
        self.group.kill()
        self.killed_ns = self.killed_ns or now_ns
        self.next_check_ns = now_ns + KILL_NS
        return self._ended(0, now_ns)

    def stuck(self, now_ns: int) -> bool:
        """Whether it outlived its own SIGKILL."""
        return bool(self.killed_ns) and now_ns - self.killed_ns >= KILL_NS

    def _schedule(self, now_ns: int, cpu_ns: int) -> None:
        # The tree cannot use its budget up sooner than with all CPUs at once.
        budget_ns = (self.limits.cpu_ms * 10**6 - cpu_ns) // _CPUS
        wall_ns = self.started_ns + self.limits.wall_ms * 10**6 - now_ns
        self.next_check_ns = (
            now_ns + max(_SHORTEST_NS, min(_TICK_NS, budget_ns))
            if wall_ns > _TICK_NS
            else (now_ns + min(max(_SHORTEST_NS, budget_ns), wall_ns))
        )

    def _breach(self, stats: GroupStats, now_ns: int) -> str:
        if stats.oom_kills:
            return "out_of_memory"
        if stats.pids_refused:
            return "pids_exceeded"
        if stats.cpu_ns - self.cpu_before_ns > self.limits.cpu_ms * 10**6:
            return "cpu_exceeded"
        if now_ns - self.started_ns >= self.limits.wall_ms * 10**6:
            return "timeout"
        return ""

    def kill(self, cause: str) -> None:
        """SIGKILL to all of it, by cgroup and by pidfd. The first cause stays. What fails is found by `stuck`."""
        if not self.killed_ns:
            self.cause = cause
            self.killed_ns = time.monotonic_ns()
            self.next_check_ns = self.killed_ns + KILL_NS
        if self.cut is not None:
            with contextlib.suppress(OSError):  # who made it is gone, and then the link is too
                self.cut()  # first: what a dead process has written would still be sent
        with contextlib.suppress(OSError):
            self.group.kill()
        if self.pidfd >= 0:
            with contextlib.suppress(OSError):  # it was gone already
                signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)

    def refuse(self, detail: str) -> None:
        """It made a system call that ends a run."""
        if not self.killed_ns:
            self.detail = detail
        self.kill("violation")

    def _ended(self, exit_code: int, now_ns: int) -> Ended:
        stats = self.group.stats()
        cause = self.cause or (self._breach(stats, now_ns) if self.started_ns else "")
        return Ended(
            run=self.run,
            cause=cause,
            exit_code=exit_code,
            wall_ms=(now_ns - self.started_ns) // 10**6 if self.started_ns else 0,
            cpu_ms=(stats.cpu_ns - self.cpu_before_ns) // 10**6,
            memory_peak_bytes=stats.memory_peak_bytes,
            detail=self.detail,
            violations=self.violations,
        )

    def close_control(self) -> None:
        """The conversation with the instance is over: it started, failed or ended."""
        if self.control is not None:
            self.control.close()
            self.control = None

    def give_folder(self) -> OutputFolder | None:
        """It is another's to close from here on."""
        folder, self.folder = self.folder, None
        return folder

    def finish(self, exit_code: int) -> Ended:
        """Every process is gone: remove the groups, close what is open, say how it ended. Raises OSError."""
        now_ns = time.monotonic_ns()
        self.close_control()
        if self.pidfd >= 0:
            os.close(self.pidfd)
            self.pidfd = -1
        if self.ahead is not None:
            self.ahead.close()
        if self.folder is not None:
            self.folder.close()
        ended = self._ended(exit_code, now_ns)
        self.group.kill()  # that it ended is what the zygote says
        self.group.remove()
        return ended
