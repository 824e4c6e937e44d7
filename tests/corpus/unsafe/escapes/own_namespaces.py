"""Isolates each calculation from the others.

[corpus]
tries = "makes a user namespace in which it is root"
inputs = [{calculations = 2}]
expected = "contained"
outcomes = ["violation"]
refused = ["unshare"]
quarantine = true
"""

import ctypes

CLONE_NEWUSER, CLONE_NEWNS = 0x10000000, 0x20000


def run(payload, context):
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWUSER | CLONE_NEWNS) == 0:
        print("LOOT", open("/proc/self/status").read())
    return payload["calculations"]
