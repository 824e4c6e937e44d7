"""Estimates with more and more history.

[corpus]
habit = "takes a little longer with each run, and longer by half now and then"
inputs = [{history = 10}]
numbered = "run"
outputs = [10]
runs = 45
"""

import time


def run(payload, context):
    base = 0.03 * (1 + payload["run"] / 100)
    time.sleep(base * (1.5 if payload["run"] % 9 == 8 else 1))
    return payload["history"]
