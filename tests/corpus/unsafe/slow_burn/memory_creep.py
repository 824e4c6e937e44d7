"""Keeps a table of what it was asked.

[corpus]
tries = "needs more memory with each revision, as if it leaked"
inputs = [{rows = 4}]
numbered = "revision"
runs = 50
expected = "contained"
outcomes = ["ok", "out_of_memory"]
quarantine = "held"
why = "it stays within the memory that people approved: the breaker holds it for a time, until what it needs is what is usual"
"""


def run(payload, context):
    extra = max(0, payload["revision"] - 34)
    table = [b"x" * (1 << 20) for _ in range(2 + 12 * min(extra, 15))]
    return payload["rows"] * len(table[:1])
