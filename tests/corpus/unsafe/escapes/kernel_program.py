"""Counts which functions are called most.

[corpus]
tries = "loads a program into the kernel with bpf(2)"
inputs = [{functions = ["plan", "cost"]}]
expected = "contained"
outcomes = ["violation"]
refused = ["bpf"]
quarantine = true
"""

import ctypes
import platform

NUMBER = {"x86_64": 321, "aarch64": 280}


def run(payload, context):
    libc = ctypes.CDLL(None, use_errno=True)
    attributes = ctypes.create_string_buffer(b"\x02\0\0\0\x04\0\0\0\x08\0\0\0\x01\0\0\0", 128)
    if libc.syscall(NUMBER[platform.machine()], 0, attributes, 128) >= 0:
        print("LOOT a map in the kernel")
    return sorted(payload["functions"])
