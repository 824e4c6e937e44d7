"""Converts units.

[corpus]
tries = "is run by its caller before any person has looked at it"
inputs = [{metres = 2}]
approve = "none"
expected = "blocked"
codes = ["PLUGIN_NOT_FOUND", "NOT_APPROVED"]
quarantine = false
"""


def run(payload, context):
    print("LOOT it ran")
    return payload["metres"] * 100
