"""Gives the share of each cost.

[corpus]
tries = "gives NaN and infinity, which compare with nothing, as costs"
inputs = [[0, 0]]
expected = "contained"
outcomes = ["output_invalid"]
quarantine = "breaker"
"""

import math


def run(payload, context):
    total = sum(payload)
    return [each / total if total else math.nan for each in payload] + [math.inf]
