"""Doubles a number.

[corpus]
tries = "half of it is missing in the store"
tamper = "truncate_in_store"
inputs = [7]
expected = "blocked"
codes = ["DIGEST_MISMATCH"]
quarantine = true
"""


def run(payload, context):
    print("LOOT it ran")
    return payload
