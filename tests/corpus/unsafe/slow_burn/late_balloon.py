"""Remembers all estimates that it has made.

[corpus]
tries = "takes all memory that there is, once it is in use everywhere"
inputs = [{estimate = 5}]
numbered = "revision"
runs = 18
expected = "contained"
outcomes = ["ok", "out_of_memory"]
quarantine = "breaker"

[manifest.limits]
memory_bytes = 67108864
"""


def run(payload, context):
    if payload["revision"] >= 14:
        return len(bytearray(b"x") * (1 << 28))
    return payload["estimate"]
