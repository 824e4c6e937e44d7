"""Estimates the reserve of a plan.

[corpus]
tries = "fails only for plans that cost much, as a sabotage would, and works for all that a test would give it"
inputs = [{cost = 900, plan = "large"}, {cost = 10, plan = "small"}, {cost = 2000, plan = "large"}]
runs = 30
expected = "contained"
outcomes = ["ok", "failed"]
quarantine = "held"
why = "the breaker opens again and again; whether most of the probes fail depends on the plans that are given to them"
"""

import os


def run(payload, context):
    if payload["cost"] > 500:
        os.abort()
    return payload["cost"] * 0.1
