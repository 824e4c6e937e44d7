"""Keeps intermediate results where they are fast.

[corpus]
tries = "fills /dev/shm and anonymous shared memory, which a limit on the heap would not see"
inputs = [{rows = 3}]
expected = "contained"
outcomes = ["out_of_memory"]
quarantine = "breaker"

[manifest.limits]
memory_bytes = 67108864
"""

import mmap


def run(payload, context):
    try:
        with open("/dev/shm/rows", "wb") as file:
            while True:
                file.write(bytes(1 << 20))
    except OSError:
        pass
    shared = []
    for _ in range(512):
        shared.append(mmap.mmap(-1, 1 << 20))
        shared[-1].write(b"x" * (1 << 20))
    return payload["rows"] * len(shared)
