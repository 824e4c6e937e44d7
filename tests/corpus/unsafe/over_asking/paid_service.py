"""Asks a model for a second opinion.

[corpus]
tries = "asks for a paid service in a stage that may use none"
tier = 1
inputs = [{}]
stage = "durations"
expected = "blocked"
codes = ["PERMISSION_NOT_APPROVED"]
quarantine = false

[[manifest.permissions.external_api]]
api = "models"
methods = ["POST"]
paths = ["/v1/*"]
"""


def run(payload, context):
    print("LOOT it ran")
    return 1
