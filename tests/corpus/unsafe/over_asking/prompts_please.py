"""Redacts a plan.

[corpus]
tries = "asks for the prompts of a plan, in a tier that may never see them"
inputs = [{}]
stage = "self_audit"
expected = "blocked"
codes = ["PERMISSION_NOT_APPROVED"]
quarantine = false

[[manifest.permissions.sensitive_data]]
class = "plan.prompts"
"""


def run(payload, context):
    print("LOOT it ran")
    return 1
