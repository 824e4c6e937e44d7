"""Adds ten.

[corpus]
tries = "asks for files in plugin.toml and for nothing in plugin.json, which an approver sees"
tamper = "other_manifest"
inputs = [7]
expected = "blocked"
says = "manifest: expected what plugin.toml says"
quarantine = false

[[manifest.permissions.file_read]]
path = "*"
"""


def run(payload, context):
    print("LOOT it ran")
    return payload
