"""Rounds to the nearest quarter.

[corpus]
tries = "executes a program that lies in memory and in no file"
inputs = [2.3]
outputs = [2.25]
expected = "contained"
outcomes = ["ok"]
quarantine = false
why = "memory that can be executed is not to be had, and execve is refused in Tier 2: both are ordinary refusals, which are counted"
"""

import contextlib
import os


def run(payload, context):
    with contextlib.suppress(OSError), open("/proc/self/exe", "rb") as program:
        memory = os.memfd_create("quarter")
        os.write(memory, program.read())
        if os.fork() == 0:
            try:
                os.execve(memory, ["quarter"], {})
            finally:
                os._exit(7)
        if os.waitstatus_to_exitcode(os.wait()[1]) == 0:
            print("LOOT executed")
    return round(payload * 4) / 4
