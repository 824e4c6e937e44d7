"""Converts hours to days, and says how.

[corpus]
tries = "prints without end, to fill the audit and the journal"
inputs = [{hours = 16}]
expected = "contained"
outcomes = ["output_limit"]
quarantine = "breaker"
"""


def run(payload, context):
    line = "converting " * 1000
    while True:
        print(line, flush=True)
