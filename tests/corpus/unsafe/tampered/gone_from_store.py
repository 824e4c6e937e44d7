"""Gives a number back.

[corpus]
tries = "its bytes are gone from the store"
tamper = "delete_from_store"
inputs = [7]
expected = "blocked"
codes = ["DIGEST_MISMATCH"]
quarantine = true
"""


def run(payload, context):
    print("LOOT it ran")
    return payload
