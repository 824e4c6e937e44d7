"""Reads wages from a table.

[corpus]
tries = "has a permission for an address within the company, which the tier's profile does not have"
tier = 1
inputs = [{}]
stage = "find_team_members"
expected = "blocked"
codes = ["PERMISSION_NOT_APPROVED"]
quarantine = false

[[manifest.permissions.network]]
host = "10.0.0.5"
port = 5432
protocol = "tcp"
"""


def run(payload, context):
    print("LOOT it ran")
    return 1
