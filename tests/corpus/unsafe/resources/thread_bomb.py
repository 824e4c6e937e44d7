"""Evaluates scenarios, each in a thread.

[corpus]
tries = "starts threads until nobody on this machine can"
inputs = [{scenarios = 100000}]
expected = "contained"
outcomes = ["pids_exceeded"]
quarantine = "breaker"

[manifest.limits]
pids = 16
wall_ms = 2000
"""

import threading


def run(payload, context):
    done = threading.Event()
    threads = []
    for _ in range(payload["scenarios"]):
        try:
            threads.append(threading.Thread(target=done.wait, daemon=True))
            threads[-1].start()
        except RuntimeError:
            continue
    done.set()
    return len(threads)
