"""How slow this machine is: the only place that reads PLUGIND_TEST_SLOWNESS.

1 is hardware. A virtual machine that is emulated in software says how many times longer everything takes there: deadlines of
tests are stretched by it, and no bound is loosened for machines that are fast.
"""

import os

SLOWNESS = float(os.environ.get("PLUGIND_TEST_SLOWNESS", "1"))


def stretched(seconds: float) -> float:
    """So many seconds of hardware."""
    return seconds * SLOWNESS
