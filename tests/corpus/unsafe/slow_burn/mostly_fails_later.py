"""Converts effort into a price.

[corpus]
tries = "works well for two dozen revisions, and then for one call in five"
inputs = [{hours = 8}]
numbered = "revision"
runs = 36
expected = "contained"
outcomes = ["ok", "failed"]
quarantine = "breaker"
"""


def run(payload, context):
    if payload["revision"] >= 24 and payload["revision"] % 5:
        raise ConnectionError("rates not available")
    return payload["hours"] * 80
