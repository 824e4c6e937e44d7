"""Scores a team.

[corpus]
tries = "begins to mine when it has been trusted for long enough"
inputs = [{people = 4}]
numbered = "revision"
runs = 80
expected = "contained"
outcomes = ["ok", "cpu_exceeded", "timeout"]
quarantine = "held"
why = "it stays within the CPU time that people approved: the breaker holds it for a time, as it does what is slow"
"""

import hashlib
import time


def run(payload, context):
    until = time.process_time() + (0 if payload["revision"] < 35 else 1.2)
    found = 0
    while time.process_time() < until:
        found += hashlib.sha256(str(found).encode()).digest()[0] == 0
    return payload["people"] * 10
