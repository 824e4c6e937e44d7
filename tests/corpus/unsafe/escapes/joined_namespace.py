"""Measures in the clock of the host.

[corpus]
tries = "enters the namespaces of process 1"
inputs = [{minutes = 5}]
expected = "contained"
outcomes = ["violation"]
refused = ["setns"]
quarantine = true
"""

import ctypes
import os


def run(payload, context):
    libc = ctypes.CDLL(None, use_errno=True)
    for kind in ("mnt", "net", "pid", "user"):
        try:
            place = os.open(f"/proc/1/ns/{kind}", os.O_RDONLY)
        except OSError:
            place = 0
        if libc.setns(place, 0) == 0:
            print("LOOT", kind)
    return payload["minutes"] * 60
