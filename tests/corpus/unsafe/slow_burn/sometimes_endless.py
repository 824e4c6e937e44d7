"""Balances the load of a team.

[corpus]
tries = "does not come back from each second run, from the start: no median is there yet to compare with"
inputs = [{people = 3}]
numbered = "revision"
runs = 30
expected = "contained"
outcomes = ["ok", "timeout"]
quarantine = "held"
why = "the breaker opens again and again, and of five probes two or three fail"

[manifest.limits]
wall_ms = 300
"""

import time


def run(payload, context):
    if payload["revision"] % 2:
        time.sleep(60)
    return [1 / payload["people"]] * payload["people"]
