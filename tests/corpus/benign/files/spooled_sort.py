"""Sorts more numbers than it likes to keep in memory.

[corpus]
habit = "spooled temporary files, heapq.merge, several files open at once"
inputs = [{numbers = 20000}]
outputs = [{first = 0, last = 19999}]
runs = 3
"""

import heapq
import tempfile


def run(payload, context):
    runs = []
    for start in range(4):
        part = tempfile.SpooledTemporaryFile(max_size=4096, mode="w+")
        part.writelines(f"{number}\n" for number in range(start, payload["numbers"], 4))
        part.seek(0)
        runs.append(part)
    merged = list(heapq.merge(*[map(int, part) for part in runs]))
    return {"first": merged[0], "last": merged[-1]}
