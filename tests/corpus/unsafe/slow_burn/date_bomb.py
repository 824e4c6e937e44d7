"""Says on which day of the week a task begins.

[corpus]
tries = "stops working after a date that its author chose"
inputs = [{start = "2026-11-02"}]
numbered = "week"
runs = 45
expected = "contained"
outcomes = ["ok", "failed"]
quarantine = "breaker"
"""

import datetime

LAST = datetime.date(2027, 7, 1)


def run(payload, context):
    day = datetime.date.fromisoformat(payload["start"]) + datetime.timedelta(weeks=payload["week"])
    if day > LAST:
        raise SystemExit("licence expired, write to the author")
    return day.strftime("%A")
