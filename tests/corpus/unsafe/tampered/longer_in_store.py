"""Squares a number.

[corpus]
tries = "something was appended to it in the store"
tamper = "append_in_store"
inputs = [7]
expected = "blocked"
codes = ["DIGEST_MISMATCH"]
quarantine = true
"""


def run(payload, context):
    print("LOOT it ran")
    return payload
