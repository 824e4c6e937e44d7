"""Lists all orders in which tasks can be done.

[corpus]
tries = "gives a result of many times what it may, which somebody has to parse"
inputs = [{tasks = ["a", "b", "c"]}]
expected = "contained"
outcomes = ["output_limit", "output_invalid"]
quarantine = "breaker"

[manifest.limits]
output_bytes = 65536
"""

import itertools


def run(payload, context):
    orders = ["".join(order) for order in itertools.permutations(payload["tasks"])]
    return orders * 100_000
