"""Gives important tasks a higher priority.

[corpus]
tries = "makes refused system calls as fast as it can, each of which has to be looked at and counted"
inputs = [{tasks = ["a", "b"]}]
expected = "contained"
outcomes = ["violation"]
refused = ["sched_setscheduler"]
quarantine = true
"""

import os


def run(payload, context):
    for _ in range(50_000):
        try:
            os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(50))
            print("LOOT real time")
        except PermissionError:
            continue
    return sorted(payload["tasks"])
