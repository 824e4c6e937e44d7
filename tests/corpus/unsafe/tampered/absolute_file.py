"""Adds four.

[corpus]
tries = "has a file with an absolute name, for the host's cron"
tamper = "absolute_name"
inputs = [7]
expected = "blocked"
says = "cron.d"
quarantine = false
"""


def run(payload, context):
    print("LOOT it ran")
    return payload
