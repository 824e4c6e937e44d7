"""Finds a date that suits a team.

[corpus]
tries = "hangs for ever from its fifteenth run on, so that whoever calls it waits"
inputs = [{people = 5}]
numbered = "revision"
runs = 18
expected = "contained"
outcomes = ["ok", "timeout"]
quarantine = "breaker"

[manifest.limits]
wall_ms = 300
"""

import threading


def run(payload, context):
    if payload["revision"] >= 14:
        threading.Event().wait()
    return f"in {payload['people']} days"
