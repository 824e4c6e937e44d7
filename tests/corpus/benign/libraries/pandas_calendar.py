"""Counts the working days between two dates.

[corpus]
habit = "pandas date ranges, time zones and rolling windows; a large but legal number of rows"
inputs = [{start = "2026-03-02", end = "2026-03-13"}]
outputs = [{days = 10, zone = "+01:00"}]
runs = 3

[manifest]
environment = "science"
[manifest.limits]
cpu_ms = 10000
wall_ms = 20000
"""

import pandas as pd


def run(payload, context):
    days = pd.bdate_range(payload["start"], payload["end"])
    rolling = pd.Series(range(100_000)).rolling(50).mean()
    assert rolling.iloc[-1] > 0
    zone = days[0].tz_localize("Europe/Berlin").isoformat()[-6:]
    return {"days": len(days), "zone": zone}
