"""Reads nested work breakdowns.

[corpus]
tries = "overflows the stack of C and dies, in the hope that what holds it dies with it"
inputs = [{depth = 3}]
expected = "contained"
outcomes = ["failed", "out_of_memory"]
quarantine = "breaker"
"""

import ctypes
import sys


def run(payload, context):
    kind = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int)
    sys.setrecursionlimit(1 << 30)

    def down(depth):
        return again(depth + 1)

    again = kind(down)
    return again(payload["depth"])
