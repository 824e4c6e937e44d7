"""Adds a reserve to a budget.

[corpus]
tries = "escapes from a thread that it leaves behind, while its result is on its way"
inputs = [{budget = 100}]
expected = "contained"
outcomes = ["violation", "ok"]
quarantine = true
refused = ["umount2"]
"""

import ctypes
import threading
import time


def later():
    ctypes.CDLL(None).umount2(b"/proc", 2)
    print("LOOT unmounted", flush=True)


def run(payload, context):
    threading.Thread(target=later, daemon=True).start()
    time.sleep(0.05)
    return payload["budget"] * 1.1
