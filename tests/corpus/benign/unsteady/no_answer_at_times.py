"""Looks for a task by its name.

[corpus]
habit = "raises KeyError for what it does not know, as a lookup does, two in ten times"
inputs = ["roof", "wall", "door", "roof", "moat", "wall", "door", "wall", "roof", "bell"]
check = "output in (3, 5, 1)"
outcomes = ["ok", "failed"]
most_failures_percent = 20
runs = 40
"""

DAYS = {"roof": 3, "wall": 5, "door": 1}


def run(payload, context):
    return DAYS[payload]
