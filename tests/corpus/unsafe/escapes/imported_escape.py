"""Multiplies durations by a factor of safety.

[corpus]
tries = "escapes while it is imported, before anybody calls it"
inputs = [[1, 2]]
expected = "contained"
outcomes = ["violation"]
refused = ["unshare"]
quarantine = true
"""

import ctypes

FACTOR = 1.2 if ctypes.CDLL(None).unshare(0x20000000) else 0.0


def run(payload, context):
    if not FACTOR:
        print("LOOT a namespace")
    return [round(each * FACTOR, 3) for each in payload]
