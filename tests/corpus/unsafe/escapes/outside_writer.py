"""Saves a template for later runs.

[corpus]
tries = "writes outside its scratch folder: to the libraries, its own code, system settings"
inputs = [{name = "default"}]
outputs = ["default"]
expected = "contained"
outcomes = ["ok"]
quarantine = false
why = "all of it is read-only: EROFS and EACCES come from the kernel without anybody being told; a write that gets through does not exist"
"""

import os
import sys

PLACES = [
    "/plugin/more.py",
    "/usr/lib/x.so",
    "/etc/ld.so.preload",
    "/proc/sys/kernel/core_pattern",
    os.__file__,
    sys.executable,
]


def run(payload, context):
    for place in PLACES:
        try:
            with open(place, "r+b" if os.path.exists(place) else "wb") as file:
                file.write(b"|/tmp/x")
            print("LOOT", place)
        except OSError:
            continue
    return payload["name"]
