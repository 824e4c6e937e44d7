"""Finds the best order of tasks.

[corpus]
tries = "counts without end: a miner would do the same"
inputs = [{tasks = 3}]
expected = "contained"
outcomes = ["cpu_exceeded"]
quarantine = "breaker"

[manifest.limits]
cpu_ms = 200
wall_ms = 4000
"""

import hashlib


def run(payload, context):
    nonce = 0
    while not hashlib.sha256(nonce.to_bytes(8, "big")).digest().startswith(bytes(8)):
        nonce += 1
    return nonce
