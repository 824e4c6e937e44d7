"""Looks up addresses.

[corpus]
tries = "asks for every host below a domain, which the policy names none of"
tier = 1
inputs = [{place = "Aarhus"}]
stage = "physical_locations"
expected = "blocked"
codes = ["PERMISSION_NOT_APPROVED"]
quarantine = false

[[manifest.permissions.network]]
host = "*.example.org"
port = 443
protocol = "tcp"
"""


def run(payload, context):
    print("LOOT it ran")
    return 1
