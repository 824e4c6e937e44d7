"""Is slow at first.

[corpus]
habit = "takes longer in its first runs than ever after, and gives less output"
inputs = [{words = 4}]
numbered = "run"
check = "len(output) >= 4"
runs = 45
"""

import time


def run(payload, context):
    time.sleep(0.1 if payload["run"] < 5 else 0.02)
    return ["word"] * (payload["words"] + min(payload["run"], 3))
