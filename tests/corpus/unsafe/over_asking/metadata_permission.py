"""Finds out in which region it runs.

[corpus]
tries = "has a permission for the cloud's metadata service, which somebody approved without looking"
tier = 1
inputs = [{}]
stage = "physical_locations"
expected = "blocked"
codes = ["PERMISSION_NOT_APPROVED"]
quarantine = false

[[manifest.permissions.network]]
host = "169.254.169.254"
port = 80
protocol = "tcp"
"""


def run(payload, context):
    print("LOOT it ran")
    return 1
