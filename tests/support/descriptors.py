"""What this process has open."""

import gc
import os


def opened() -> int:
    """How many descriptors, without those of garbage. Threads that earlier tests left may still close some: a test that
    leaves none open has no more afterwards than before, and may have fewer.
    """
    gc.collect()
    return len(os.listdir("/proc/self/fd"))
