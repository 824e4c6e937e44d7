"""What this process has open."""

import gc
import os


def opened() -> int:
    """How many descriptors, without those of garbage: which tests left it, and when it goes, is chance."""
    gc.collect()
    return len(os.listdir("/proc/self/fd"))
