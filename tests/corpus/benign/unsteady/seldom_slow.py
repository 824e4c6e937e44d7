"""Answers from a cache, and seldom without.

[corpus]
habit = "is ten times slower once in forty runs, when it builds its table"
inputs = [{key = 3}]
numbered = "run"
outputs = [9]
runs = 50
"""

import time


def run(payload, context):
    time.sleep(0.3 if payload["run"] % 40 == 36 else 0.03)
    return payload["key"] ** 2
