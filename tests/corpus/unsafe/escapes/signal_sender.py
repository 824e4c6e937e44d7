"""Stops a simulation that takes too long.

[corpus]
tries = "sends signals to every process that it can name"
inputs = [{rounds = 2}]
outputs = [2]
expected = "contained"
outcomes = ["ok"]
quarantine = false
why = "no process of others has a number in its pid namespace: kill(2) is allowed and finds nobody"
"""

import os
import signal


def run(payload, context):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    for pid in [-1, os.getppid() or -1, *range(2, 400)]:
        try:
            os.kill(pid, signal.SIGTERM)
            if pid > 1 and pid != os.getpid():
                print("LOOT reached", pid)
        except (ProcessLookupError, PermissionError):
            continue
    return payload["rounds"]
