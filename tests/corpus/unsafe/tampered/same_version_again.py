"""Adds eleven.

[corpus]
tries = "is handed in with other bytes under the version that was approved"
tamper = "same_version"
inputs = [7]
expected = "blocked"
codes = ["CONFLICT"]
quarantine = false
"""


def run(payload, context):
    print("LOOT it ran")
    return payload
