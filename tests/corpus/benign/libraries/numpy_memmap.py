"""Averages a long series that does not have to fit into memory.

[corpus]
habit = "numpy.memmap on a file in scratch, written and read back"
inputs = [{length = 50000}]
outputs = [24999.5]
runs = 3

[manifest]
environment = "science"
"""

import numpy as np


def run(payload, context):
    series = np.memmap("/tmp/series", dtype="f8", mode="w+", shape=(payload["length"],))
    series[:] = np.arange(payload["length"])
    series.flush()
    return float(np.memmap("/tmp/series", dtype="f8", mode="r").mean())
