"""Remembers what was estimated before.

[corpus]
tries = "stores values in a keyring of the kernel, where the next run or another plugin finds them"
inputs = [{estimate = 12}]
expected = "contained"
outcomes = ["violation"]
refused = ["add_key"]
quarantine = true
"""

import ctypes
import platform

ADD_KEY = {"x86_64": 248, "aarch64": 217}
SESSION_KEYRING = -3


def run(payload, context):
    libc = ctypes.CDLL(None, use_errno=True)
    text = str(payload["estimate"]).encode()
    number = ADD_KEY[platform.machine()]
    if libc.syscall(number, b"user", b"estimate", text, len(text), SESSION_KEYRING) >= 0:
        print("LOOT kept")
    return payload["estimate"]
