"""What instances use now, told to the front when it asks for it: bounded in size, and in how often.

A front may have been taken over: however often it asks, it gets one message at a time, not more than every EVERY_NS,
and the launcher spends not more than a twentieth of its time on it. An instance costs three short reads.
"""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Callable, Sequence
from typing import Final

from plugind.linux import cgroupfs
from plugind.sandbox.instances import Instances
from plugind.sandbox.protocol import InstanceUse, ParkedUse, ProcessUse, Sampled
from plugind.sandbox.supervisor import FOREVER_NS, Instance
from plugind.sandbox.tries import Tries

MOST: Final = 80
"""Instances in one message: with the longest names and numbers they fit into its 16 KiB."""
EVERY_NS: Final = 100 * 10**6
_TIMES_AS_LONG: Final = 20
"""What follows an answer is not less than so many times as long as it took."""
_PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")


class Sampler:
    """Of all instances. `tell` says it to the front."""

    def __init__(
        self,
        instances: Instances,
        tries: Tries,
        tell: Callable[[Sampled], None],
        now_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self._instances = instances
        self._tries = tries
        self._tell = tell
        self._now_ns = now_ns
        self._asked = False
        self._due_ns = 0
        self._left: list[str] = []
        """Runs that are still to be told of in this round."""

    def ask(self) -> None:
        """The front wants to know. Asked twice before the answer is asked once."""
        self._asked = True

    def next_check_ns(self) -> int:
        """When `answer` has something to do."""
        return self._due_ns if self._asked else FOREVER_NS

    def answer(self) -> None:
        """Tell it, if it was asked for and not just told."""
        began_ns = self._now_ns()
        if not self._asked or began_ns < self._due_ns:
            return
        self._asked = False
        self._tell(self._sampled())
        now_ns = self._now_ns()
        self._due_ns = now_ns + max(EVERY_NS, _TIMES_AS_LONG * (now_ns - began_ns))

    def _sampled(self) -> Sampled:
        left = self._left or [each.run for each in self._instances if each.serves]
        self._left = left[MOST:]
        found = [instance for run in left[:MOST] if (instance := self._instances.get(run))]
        return Sampled(tuple(map(self._use, found)), self._parked(), _own_use(), len(self._left))

    def _use(self, instance: Instance) -> InstanceUse:
        use = instance.group.use()
        cpu_ms = max(0, use.cpu_ns - instance.cpu_before_ns) // 10**6 if use.cpu_ns >= 0 else -1
        return InstanceUse(instance.run, cpu_ms, use.memory_bytes, use.pids, self._tries.so_far(instance.owner))

    def _parked(self) -> tuple[ParkedUse, ...]:
        found: dict[int, list[int]] = {}
        for each in self._instances:
            if not each.serves:
                found.setdefault(each.tier, []).append(each.group.use().memory_bytes)
        return tuple(ParkedUse(tier, len(sizes), _sum(sizes)) for tier, sizes in sorted(found.items()))


def _sum(sizes: Sequence[int]) -> int:
    """Of all; -1 where one is not known."""
    return -1 if min(sizes) < 0 else sum(sizes)


def _own_use() -> ProcessUse:
    used = resource.getrusage(resource.RUSAGE_SELF)
    memory = cgroupfs.figure(lambda: int(cgroupfs.read("/proc/self/statm").split()[1]) * _PAGE_BYTES)
    open_files = cgroupfs.figure(lambda: len(os.listdir("/proc/self/fd")) - 1)  # the one of this look
    return ProcessUse(os.getpid(), round((used.ru_utime + used.ru_stime) * 1000), memory, open_files)
