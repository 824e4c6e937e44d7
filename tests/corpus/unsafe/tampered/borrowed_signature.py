"""Adds twelve.

[corpus]
tries = "comes with the signatures of another bundle, to be trusted as that one"
tamper = "other_signature"
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
