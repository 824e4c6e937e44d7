"""Checks a plan for gaps.

[corpus]
tries = "writes warnings until the disk of the log is full, from several processes"
inputs = [{steps = [1, 2, 4]}]
expected = "contained"
outcomes = ["output_limit"]
quarantine = "breaker"
"""

import os


def run(payload, context):
    for _ in range(3):
        if os.fork() == 0:
            break
    while True:
        os.write(2, b"warning: there may be a gap\n" * 2000)
