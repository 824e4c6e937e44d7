"""Gives the mean of a column.

[corpus]
tries = "begins an answer, never ends it, and leaves at once with a good status"
inputs = [[1, 2]]
expected = "contained"
outcomes = ["output_invalid"]
quarantine = "breaker"
"""

import os
import struct


def run(payload, context):
    os.write(3, struct.pack(">16scQ", bytes(16), b"V", 1 << 40) + b"[")
    os._exit(0)
