"""Adds thirteen.

[corpus]
tries = "is signed, by keys that nobody here trusts"
tamper = "stranger"
tier = 1
inputs = [7]
expected = "blocked"
codes = ["CONFLICT"]
says = "as the evidence gives"
quarantine = false
"""


def run(payload, context):
    print("LOOT it ran")
    return payload
