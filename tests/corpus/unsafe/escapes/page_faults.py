"""Reads a table page by page.

[corpus]
tries = "handles page faults itself, as exploits of races in the kernel do"
inputs = [{pages = 2}]
expected = "contained"
outcomes = ["violation"]
refused = ["userfaultfd"]
quarantine = true
"""

import ctypes
import platform

NUMBER = {"x86_64": 323, "aarch64": 282}


def run(payload, context):
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.syscall(NUMBER[platform.machine()], 0) >= 0:
        print("LOOT a descriptor of faults")
    return payload["pages"] * 4096
