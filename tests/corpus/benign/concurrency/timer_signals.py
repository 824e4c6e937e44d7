"""Stops a search after a while and gives the best so far.

[corpus]
habit = "signal handlers, setitimer, and an exception out of a handler"
inputs = [{budget_s = 0.1}]
check = "output > 1000"
runs = 3
"""

import signal


class Enough(Exception):
    pass


def stop(number, frame):
    raise Enough


def run(payload, context):
    best = 0
    signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, payload["budget_s"])
    try:
        while True:
            best += 1
    except Enough:
        return best
