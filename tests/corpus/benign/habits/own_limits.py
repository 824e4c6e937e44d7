"""Solves a puzzle within bounds of its own.

[corpus]
habit = "lowers its own rlimits, its priority and its affinity, as careful tools do, and ignores what is refused"
inputs = [{queens = 6}]
outputs = [4]
runs = 3
"""

import contextlib
import itertools
import os
import resource


def run(payload, context):
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
    with contextlib.suppress(OSError):
        os.nice(5)
    with contextlib.suppress(OSError):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    size = payload["queens"]
    boards = itertools.permutations(range(size))
    return sum(len({r + c for r, c in enumerate(b)}) == size == len({r - c for r, c in enumerate(b)}) for b in boards)
