"""Reads nested work breakdowns.

[corpus]
tries = "overflows the stack of C and dies, in the hope that what held it dies with it"
inputs = [{depth = 3}]
expected = "contained"
outcomes = ["failed", "out_of_memory"]
quarantine = "breaker"
"""

import ctypes


def run(payload, context):
    compare = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)
    ctypes.memmove(8, 16, payload["depth"])
    return compare is not None
