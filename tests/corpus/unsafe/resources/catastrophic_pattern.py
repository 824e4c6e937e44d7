"""Recognises codes of work packages.

[corpus]
tries = "has a pattern that takes exponential time for a text that an attacker chose"
inputs = ["aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa!"]
expected = "contained"
outcomes = ["cpu_exceeded"]
quarantine = "breaker"

[manifest.limits]
cpu_ms = 200
wall_ms = 4000
"""

import re

CODE = re.compile(r"^(?:[a-z]+)+$")


def run(payload, context):
    return bool(CODE.match(payload))
