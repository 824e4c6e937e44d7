"""Averages samples of a distribution.

[corpus]
tries = "takes memory until others are pushed out"
inputs = [{samples = 1000}]
expected = "contained"
outcomes = ["out_of_memory"]
quarantine = "breaker"

[manifest.limits]
memory_bytes = 67108864
"""

import random


def run(payload, context):
    samples = [random.random() for _ in range(payload["samples"])]
    hoard = []
    while True:
        hoard.append(bytearray(b"x" * (1 << 20)))
        if len(hoard) > 4096:
            return sum(samples) / len(samples)
