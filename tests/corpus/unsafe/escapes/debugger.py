"""Traces how an estimate came about.

[corpus]
tries = "attaches to its parent as a debugger"
inputs = [{steps = 3}]
expected = "contained"
outcomes = ["violation"]
refused = ["ptrace"]
quarantine = true
"""

import ctypes
import os

PTRACE_ATTACH = 16


def run(payload, context):
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.ptrace(PTRACE_ATTACH, os.getppid() or 1, 0, 0) == 0:
        print("LOOT attached")
    return payload["steps"]
