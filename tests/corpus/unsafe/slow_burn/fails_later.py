"""Estimates the days of a task from its size.

[corpus]
tries = "works well until a plan has had forty revisions, then fails every second time"
inputs = [{size = 8}]
numbered = "revision"
runs = 60
expected = "contained"
outcomes = ["ok", "failed"]
quarantine = "held"
why = "the breaker opens each time, and of five probes two or three fail: that is not yet more than half, every time"
"""


def run(payload, context):
    if payload["revision"] >= 40 and payload["revision"] % 2:
        raise RuntimeError("estimate not available")
    return payload["size"] * 1.5
