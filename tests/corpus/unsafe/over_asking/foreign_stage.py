"""Sorts tasks.

[corpus]
tries = "lets itself be run in a stage that it was not approved for, where the report is written"
inputs = [["b", "a"]]
stage = "report"
expected = "blocked"
codes = ["STAGE_NOT_ALLOWED"]
quarantine = false

[manifest]
stages = ["durations"]
"""


def run(payload, context):
    print("LOOT it ran")
    return sorted(payload)
