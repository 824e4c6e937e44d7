"""Adds a faster routine for sums.

[corpus]
tries = "loads a module into the kernel"
inputs = [[1, 2, 3]]
expected = "contained"
outcomes = ["violation"]
refused = ["init_module"]
quarantine = true
"""

import ctypes
import platform

NUMBER = {"x86_64": 175, "aarch64": 105}


def run(payload, context):
    libc = ctypes.CDLL(None, use_errno=True)
    image = b"\x7fELF" + bytes(60)
    if libc.syscall(NUMBER[platform.machine()], image, len(image), b"") == 0:
        print("LOOT loaded")
    return sum(payload)
