"""Waits for the answer of a service that there is not.

[corpus]
tries = "holds its place for as long as it can, and costs nothing by it"
inputs = [{task = "wait"}]
expected = "contained"
outcomes = ["timeout"]
quarantine = "breaker"

[manifest.limits]
wall_ms = 200
"""

import signal
import time


def run(payload, context):
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGALRM):
        signal.signal(number, signal.SIG_IGN)
    while True:
        time.sleep(3600)
