"""Adds five.

[corpus]
tries = "has a file whose name is a path on other systems only"
tamper = "backslash_name"
inputs = [7]
expected = "blocked"
says = "escaped.py"
quarantine = false
"""


def run(payload, context):
    print("LOOT it ran")
    return payload
