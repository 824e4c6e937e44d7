"""Adds seven.

[corpus]
tries = "has a symbolic link to the host's passwords among its files"
tamper = "link"
inputs = [7]
expected = "blocked"
says = "symbolic link"
quarantine = false
"""


def run(payload, context):
    print("LOOT it ran")
    return payload
