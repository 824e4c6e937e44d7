"""Multiplies matrices, natively where it can.

[corpus]
tries = "writes a library into /tmp and has it loaded"
inputs = [[[1, 2], [3, 4]]]
outputs = [[[7, 10], [15, 22]]]
expected = "contained"
outcomes = ["ok"]
quarantine = false
why = "/tmp and /dev/shm are mounted noexec: the loader's error is what it gets on any hardened machine, and native code of its own would be held by the same filter"
"""

import ctypes
import shutil


def run(payload, context):
    with open("/proc/self/maps") as maps:
        source = next(line.split()[-1] for line in maps if "libc.so" in line or "libc-" in line)
    for target in ("/tmp/libfast.so", "/dev/shm/libfast.so"):
        shutil.copy(source, target)
        try:
            ctypes.CDLL(target)
            print("LOOT loaded", target)
        except OSError as error:
            print("slow:", error)
    return [[sum(a * b for a, b in zip(row, column)) for column in zip(*payload)] for row in payload]
