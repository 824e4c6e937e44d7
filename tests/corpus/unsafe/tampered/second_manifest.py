"""Adds six.

[corpus]
tries = "has a second manifest whose name differs in case only"
tamper = "case_double"
inputs = [7]
expected = "blocked"
says = "PLUGIN.TOML"
quarantine = false
"""


def run(payload, context):
    print("LOOT it ran")
    return payload
