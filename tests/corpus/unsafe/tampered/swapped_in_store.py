"""Negates a number.

[corpus]
tries = "another bundle, good in itself, lies in the store under its digest"
tamper = "swap_in_store"
inputs = [7]
expected = "blocked"
codes = ["DIGEST_MISMATCH"]
quarantine = true
"""


def run(payload, context):
    print("LOOT it ran")
    return payload
