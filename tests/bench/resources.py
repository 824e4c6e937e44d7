"""CPU time and memory of process trees."""

from __future__ import annotations

import contextlib
import os
import resource
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

from plugind.linux import syscalls
from tests.bench.figures import pss_bytes

PR_SET_CHILD_SUBREAPER = 36
ORPHANS_S = 0.1


def tree(pid: int) -> list[psutil.Process]:
    """A process and all below it."""
    root = psutil.Process(pid)
    return [root, *root.children(recursive=True)]


def tree_cpu_ms(pid: int) -> float:
    """User and system time of a tree so far, with that of children that were waited for.

    In ticks of 10 ms: take differences over many runs. What dies between two looks is counted at its parent.
    """
    total = 0.0
    for process in tree(pid):
        with contextlib.suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            total += times.user + times.system + times.children_user + times.children_system
    return total * 1000


def children_cpu_ms() -> float:
    """Of the commands that this process ran and waited for, within `adopting` also of what they left behind.

    Source: getrusage(2).
    """
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return (used.ru_utime + used.ru_stime) * 1000


@contextlib.contextmanager
def adopting() -> Iterator[None]:
    """Orphans of the commands that are run in here become children of this process, which waits for them.

    bwrap does not wait for what it ran: nobody would count that. Source: PR_SET_CHILD_SUBREAPER(2const).
    """
    syscalls.prctl(PR_SET_CHILD_SUBREAPER, 1)
    try:
        yield
        time.sleep(ORPHANS_S)
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
    finally:
        syscalls.prctl(PR_SET_CHILD_SUBREAPER, 0)


def own_cpu_ms() -> float:
    """Of this process, all threads."""
    return time.process_time() * 1000


def tree_pss_bytes(pid: int) -> int:
    """The proportional set size of a tree: what it shares with others counts by its share."""
    total = 0
    for process in tree(pid):
        with contextlib.suppress(OSError, psutil.NoSuchProcess):
            total += pss_bytes(Path(f"/proc/{process.pid}/smaps_rollup").read_text())
    return total


def allow_descriptors(count: int) -> None:
    """For this process and those it starts. Raises OSError, ValueError."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < count:
        resource.setrlimit(resource.RLIMIT_NOFILE, (count, max(hard, count)))
