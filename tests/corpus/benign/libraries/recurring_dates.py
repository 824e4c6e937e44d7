"""Finds a free day in a calendar.

[corpus]
habit = "dateutil, with hundreds of recurring dates, parsing and time zones by rule"
inputs = [{start = "2026-01-01"}]
outputs = ["2026-01-02"]
runs = 3

[manifest]
environment = "science"
"""

from dateutil.parser import isoparse
from dateutil.rrule import DAILY, WEEKLY, rrule
from dateutil.tz import gettz, tzlocal


def run(payload, context):
    start = isoparse(payload["start"])
    busy = set(rrule(WEEKLY, dtstart=start, count=200))
    free = next(day for day in rrule(DAILY, dtstart=start, count=400) if day not in busy)
    assert gettz("Nowhere/City") is None and tzlocal() is not None
    return free.strftime("%Y-%m-%d")
