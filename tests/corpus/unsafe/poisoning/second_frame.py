"""Gives the sum of a column.

[corpus]
tries = "finds the nonce of its run, answers by itself, and lets the runner answer again"
inputs = [[1, 2]]
expected = "contained"
outcomes = ["output_invalid"]
quarantine = "breaker"
"""

import gc
import os
import struct
import sys


def nonces():
    frame = sys._getframe()
    while frame:
        yield from (value for value in frame.f_locals.values() if isinstance(value, bytes) and len(value) == 16)
        frame = frame.f_back
    yield from (each for each in gc.get_objects() if isinstance(each, bytes) and len(each) == 16)
    yield bytes(16)


def run(payload, context):
    body = b"1000000"
    os.write(3, struct.pack(">16scQ", next(nonces()), b"V", len(body)) + body)
    return sum(payload)
