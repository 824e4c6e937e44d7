"""Looks up how long a task took in the past.

[corpus]
tries = "becomes more than ten times slower once it is relied upon"
inputs = [{task = "roof"}]
numbered = "revision"
runs = 50
expected = "contained"
outcomes = ["ok"]
quarantine = "breaker"
"""

import time


def run(payload, context):
    time.sleep(0.02 if payload["revision"] < 35 else 0.6)
    return {"task": payload["task"], "days": 12}
