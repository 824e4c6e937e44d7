"""Compares estimates of several methods.

[corpus]
tries = "leaves the work to children, so that its own time stays small"
inputs = [{methods = 4}]
expected = "contained"
outcomes = ["cpu_exceeded"]
quarantine = "breaker"

[manifest.limits]
cpu_ms = 300
wall_ms = 4000
"""

import os
import time


def run(payload, context):
    for _ in range(payload["methods"]):
        if os.fork() == 0:
            os.setsid()
            while True:
                pass
    time.sleep(30)
    return payload["methods"]
