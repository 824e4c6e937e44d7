"""Adds three.

[corpus]
tries = "has a file whose name leads out of the folder into which it is unpacked"
tamper = "dots_in_name"
inputs = [7]
expected = "blocked"
says = "escaped.py"
quarantine = false
"""


def run(payload, context):
    print("LOOT it ran")
    return payload
