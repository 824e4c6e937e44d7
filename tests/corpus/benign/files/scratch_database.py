"""Keeps tasks in a database while it works.

[corpus]
habit = "sqlite3 in a file, with a write-ahead log and locks"
tier = 1
inputs = [[1.5, 2.5]]
outputs = [4.0]
runs = 5
"""

import contextlib
import sqlite3


def run(payload, context):
    for cost in payload:
        with contextlib.closing(sqlite3.connect("/tmp/costs")) as base, base:
            base.execute("pragma journal_mode=wal")
            base.execute("create table if not exists costs (cost real)")
            base.execute("insert into costs values (?)", (cost,))
    with contextlib.closing(sqlite3.connect("/tmp/costs")) as base:
        return base.execute("select sum(cost) from costs").fetchone()[0]
