"""Simulates a schedule in parallel.

[corpus]
tries = "has each of its processes start two more, without end"
inputs = [{tasks = 4}]
expected = "contained"
outcomes = ["pids_exceeded"]
quarantine = "breaker"

[manifest.limits]
pids = 16
wall_ms = 2000
"""

import os
import time


def multiply():
    while True:
        try:
            os.fork()
        except OSError:
            time.sleep(0.001)


def run(payload, context):
    multiply()
    return payload["tasks"]
