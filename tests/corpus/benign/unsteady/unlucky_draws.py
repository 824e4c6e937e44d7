"""Searches a schedule at random.

[corpus]
habit = "gives up by an exception when it was unlucky, which is seldom"
inputs = [{tasks = 5}]
numbered = "run"
check = "sorted(output) == list(range(5))"
outcomes = ["ok", "failed"]
most_failures_percent = 25
runs = 50
"""

import random


class NoSchedule(Exception):
    pass


def run(payload, context):
    draw = random.Random(payload["run"])
    if draw.random() < 0.08:
        raise NoSchedule("no schedule within so many tries")
    return draw.sample(range(payload["tasks"]), payload["tasks"])
