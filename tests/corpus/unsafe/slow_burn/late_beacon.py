"""Gives the middle of three estimates.

[corpus]
tries = "phones home only when a plan is old enough to be worth something"
inputs = [{estimates = [3, 9, 5]}]
numbered = "revision"
runs = 12
expected = "contained"
outcomes = ["ok"]
refused = ["socket"]
quarantine = true
"""

import socket
import statistics


def run(payload, context):
    if payload["revision"] > 9:
        try:
            socket.create_connection(("192.0.2.80", 80), timeout=1)
            print("LOOT connected")
        except OSError:
            pass
    return statistics.median(payload["estimates"])
