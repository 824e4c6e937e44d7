"""Averages two numbers.

[corpus]
tries = "asks for more memory, time and processes than its tier can have"
inputs = [[1, 2]]
expected = "blocked"
codes = ["LIMIT_ABOVE_CEILING"]
quarantine = false

[manifest.limits]
memory_bytes = 17179869184
wall_ms = 86400000
pids = 100000
"""


def run(payload, context):
    print("LOOT it ran")
    return sum(payload) / 2
