"""Adds one.

[corpus]
tries = "carries a module that its list of files does not name"
tamper = "unlisted_file"
inputs = [7]
expected = "blocked"
says = "expected only files that plugin.json lists"
quarantine = false
"""


def run(payload, context):
    print("LOOT it ran")
    return payload
