"""Adds two.

[corpus]
tries = "has a file with other bytes than its list of files says"
tamper = "other_bytes"
inputs = [7]
expected = "blocked"
says = "sha256 expected"
quarantine = false
"""


def run(payload, context):
    print("LOOT it ran")
    return payload
