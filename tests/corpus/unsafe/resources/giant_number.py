"""Counts the ways to staff a project.

[corpus]
tries = "one expression that never ends, and that no signal handler of Python can interrupt"
inputs = [{people = 9, tasks = 10}]
expected = "contained"
outcomes = ["cpu_exceeded", "out_of_memory"]
quarantine = "breaker"

[manifest.limits]
cpu_ms = 200
wall_ms = 4000
memory_bytes = 67108864
"""


def run(payload, context):
    ways = payload["people"] ** payload["tasks"]
    for _ in range(40):
        ways = ways**3
    return ways % 1_000_007
