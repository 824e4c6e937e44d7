"""Exports a schedule.

[corpus]
tries = "declares that it writes into the plan, and was approved without it"
tier = 1
inputs = [{}]
stage = "create_schedule"
approve = "nothing"
expected = "blocked"
codes = ["PERMISSION_NOT_APPROVED"]
quarantine = false

[[manifest.permissions.file_write]]
path = "export/*.csv"
"""


def run(payload, context):
    print("LOOT it ran")
    return 1
