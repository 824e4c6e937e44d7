"""Adds a reserve to a cost.

[corpus]
tries = "is handed an input that its schema does not know, to reach code that nobody tested"
inputs = [{cost = "5; import os"}]
expected = "blocked"
codes = ["INPUT_INVALID"]
quarantine = false

[input_schema]
type = "object"
properties.cost.type = "number"
"""


def run(payload, context):
    print("LOOT it ran")
    return eval(f"{payload['cost']} * 1.1")
