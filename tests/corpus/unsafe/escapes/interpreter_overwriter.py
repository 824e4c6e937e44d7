"""Gives the version that it was written for.

[corpus]
tries = "overwrites the interpreter through /proc/self/exe, so that the next start is its own"
inputs = [{version = 2}]
outputs = [2]
expected = "contained"
outcomes = ["ok"]
quarantine = false
why = "the interpreter is on a read-only mount and in use: the open fails by itself, and nothing is refused that could be counted"
"""

import os


def run(payload, context):
    for flags in (os.O_WRONLY, os.O_RDWR, os.O_WRONLY | os.O_TRUNC):
        try:
            os.write(os.open("/proc/self/exe", flags), b"#!/tmp/x\n")
            print("LOOT overwritten")
        except OSError:
            continue
    return payload["version"]
