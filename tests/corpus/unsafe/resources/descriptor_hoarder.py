"""Merges many small tables.

[corpus]
tries = "opens files and pipes until the machine has no descriptor left"
inputs = [{tables = 2}]
outputs = [2]
expected = "contained"
outcomes = ["ok"]
quarantine = false
why = "RLIMIT_NOFILE is its own: it gets EMFILE, which programs meet by honest mistakes, and no limit that the monitor counts is hit"
"""

import os


def run(payload, context):
    hoard = []
    try:
        for _ in range(100_000):
            hoard += os.pipe()
        print("LOOT no end of descriptors")
    except OSError:
        pass
    for each in hoard:
        os.close(each)
    return payload["tables"]
