"""Halves a number.

[corpus]
tries = "one bit of its code was changed in the store after it was approved"
tamper = "flip_in_store"
inputs = [7]
expected = "blocked"
codes = ["DIGEST_MISMATCH"]
quarantine = true
"""


def run(payload, context):
    print("LOOT it ran")
    return payload
