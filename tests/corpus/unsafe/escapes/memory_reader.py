"""Verifies that a number is finite.

[corpus]
tries = "reads the memory of other processes"
inputs = [3.5]
expected = "contained"
outcomes = ["violation"]
refused = ["process_vm_readv"]
quarantine = true
"""

import ctypes
import math


class Range(ctypes.Structure):
    _fields_ = [("base", ctypes.c_void_p), ("length", ctypes.c_size_t)]


def run(payload, context):
    libc = ctypes.CDLL(None, use_errno=True)
    kept = ctypes.create_string_buffer(4096)
    here, there = Range(ctypes.addressof(kept), 4096), Range(0x400000, 4096)
    for pid in range(1, 40):
        if libc.process_vm_readv(pid, ctypes.byref(here), 1, ctypes.byref(there), 1, 0) > 0:
            print("LOOT", pid, kept.raw[:64])
    return math.isfinite(payload)
