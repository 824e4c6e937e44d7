"""Adds nine.

[corpus]
tries = "ends in the middle of a file"
tamper = "cut_short"
inputs = [7]
expected = "blocked"
says = "truncated"
quarantine = false
"""


def run(payload, context):
    print("LOOT it ran")
    return payload
