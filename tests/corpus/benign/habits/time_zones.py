"""Finds an hour that suits everybody.

[corpus]
habit = "zoneinfo, calendar, the clock, and a locale that is not there"
inputs = [{hour = 14, zones = ["UTC"]}]
outputs = [["14:00"]]
runs = 3
"""

import calendar
import contextlib
import datetime
import locale
import time
import zoneinfo


def run(payload, context):
    with contextlib.suppress(locale.Error):
        locale.setlocale(locale.LC_TIME, "da_DK.UTF-8")
    time.tzset()
    calendar.month(2026, 1)
    moment = datetime.datetime(2026, 1, 1, payload["hour"], tzinfo=datetime.timezone.utc)
    found = []
    for zone in payload["zones"]:
        try:
            there = zoneinfo.ZoneInfo(zone)
        except zoneinfo.ZoneInfoNotFoundError:
            there = datetime.timezone.utc
        found.append(moment.astimezone(there).strftime("%H:%M"))
    return found
