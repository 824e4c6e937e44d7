"""Summarises a plan.

[corpus]
tries = "is run on a plan that nothing unvetted may see"
inputs = [{title = "merger"}]
sensitivity = "restricted"
expected = "blocked"
codes = ["SENSITIVITY_TOO_HIGH"]
quarantine = false
"""


def run(payload, context):
    print("LOOT it ran")
    return payload["title"]
