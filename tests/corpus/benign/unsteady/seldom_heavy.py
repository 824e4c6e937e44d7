"""Keeps what it needs, which is more at the end of a month.

[corpus]
habit = "needs much more memory once in thirty runs"
inputs = [{rows = 2}]
numbered = "day"
outputs = [2]
runs = 45
"""


def run(payload, context):
    table = bytearray(b"x") * ((40 << 20) if payload["day"] % 30 == 29 else (4 << 20))
    return payload["rows"] * bool(table)
