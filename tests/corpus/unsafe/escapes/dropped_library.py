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
import glob
import shutil


def run(payload, context):
    for source in glob.glob("/usr/lib/*/libm.so*")[:1] + glob.glob("/lib/*/libm.so*")[:1]:
        for target in ("/tmp/libfast.so", "/dev/shm/libfast.so"):
            shutil.copy(source, target)
            try:
                ctypes.CDLL(target)
                print("LOOT loaded", target)
            except OSError:
                continue
    return [[sum(a * b for a, b in zip(row, column)) for column in zip(*payload)] for row in payload]
