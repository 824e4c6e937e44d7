"""Adds eight.

[corpus]
tries = "carries a script behind its end, where readers of archives do not look"
tamper = "trailing_bytes"
inputs = [7]
expected = "blocked"
says = "expected nothing after its end"
quarantine = false
"""


def run(payload, context):
    print("LOOT it ran")
    return payload
