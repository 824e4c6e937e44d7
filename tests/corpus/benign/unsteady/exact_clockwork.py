"""Gives the same each time.

[corpus]
habit = "has no spread at all in what it uses: a median absolute deviation of nearly zero, which any noise exceeds"
inputs = [{a = 1}]
outputs = [[1, 2, 3]]
runs = 60
"""


def run(payload, context):
    return [payload["a"], 2, 3]
