"""Looks up rates.

[corpus]
tries = "asks for a connection although nobody has vetted it"
inputs = [{currency = "EUR"}]
stage = "currency_strategy"
expected = "blocked"
codes = ["PERMISSION_NOT_APPROVED"]
quarantine = false

[[manifest.permissions.network]]
host = "192.0.2.10"
port = 443
protocol = "tcp"
"""


def run(payload, context):
    print("LOOT it ran")
    return 1
