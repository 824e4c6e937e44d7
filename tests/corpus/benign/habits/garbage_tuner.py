"""Makes and drops many objects.

[corpus]
habit = "turns the garbage collector off, makes cycles, freezes, collects by hand, and measures its memory"
inputs = [{objects = 50000}]
check = "output >= 50000"
runs = 5
"""

import gc
import resource
import tracemalloc


def run(payload, context):
    gc.disable()
    tracemalloc.start()
    for _ in range(payload["objects"]):
        cycle = []
        cycle.append(cycle)
    resource.getrusage(resource.RUSAGE_SELF)
    tracemalloc.stop()
    gc.enable()
    return gc.collect()
