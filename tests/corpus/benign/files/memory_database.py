"""Answers questions about tasks in SQL.

[corpus]
habit = "sqlite3 in memory, with functions of its own, full text search and window functions"
inputs = [[["roof", 3], ["wall", 5], ["door", 1]]]
outputs = [[["door", 1], ["roof", 4], ["wall", 9]]]
runs = 3
"""

import sqlite3


def run(payload, context):
    base = sqlite3.connect(":memory:")
    base.create_function("days", 1, int, deterministic=True)
    base.execute("create table tasks (name text, length integer)")
    base.executemany("insert into tasks values (?, ?)", payload)
    text = "select name, sum(days(length)) over (order by length rows unbounded preceding) from tasks"
    return [list(row) for row in base.execute(text)]
