"""Tries a database in a file first, and takes memory where that cannot be locked.

[corpus]
habit = "meets a refused lock (Tier 2), catches the error of its library and goes on"
inputs = [[3, 4]]
outputs = [7]
runs = 5
"""

import sqlite3


def opened():
    try:
        base = sqlite3.connect("/tmp/tasks")
        base.execute("create table tasks (days integer)")
    except sqlite3.OperationalError:
        base = sqlite3.connect(":memory:")
        base.execute("create table tasks (days integer)")
    return base


def run(payload, context):
    base = opened()
    base.executemany("insert into tasks values (?)", [(days,) for days in payload])
    return base.execute("select sum(days) from tasks").fetchone()[0]
