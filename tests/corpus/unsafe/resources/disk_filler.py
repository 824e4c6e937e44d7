"""Writes a log of what it calculates.

[corpus]
tries = "writes until the disk is full, and fails where others would, too"
inputs = [{rows = 10}]
expected = "contained"
outcomes = ["failed", "out_of_memory"]
quarantine = "breaker"

[manifest.limits]
scratch_bytes = 4194304
"""

import os
import tempfile


def run(payload, context):
    rows = [number**2 for number in range(payload["rows"])]
    for _ in range(1000):
        with tempfile.NamedTemporaryFile(delete=False) as file:
            file.write(os.urandom(1 << 16) * 16)
    return rows
