"""Answers short questions and long ones.

[corpus]
habit = "has two kinds of calls, of which one takes five times as long and answers ten times as much"
inputs = [{long = false}, {long = true}]
check = "len(output) == (500 if payload['long'] else 50)"
runs = 50
"""

import time


def run(payload, context):
    time.sleep(0.05 if payload["long"] else 0.01)
    return "x" * (500 if payload["long"] else 50)
