"""Sums a column and says goodbye.

[corpus]
habit = "atexit, weakref.finalize, __del__ and a try-finally that logs"
inputs = [[1, 2]]
outputs = [3]
runs = 3
"""

import atexit
import weakref


class Ledger:
    def __init__(self):
        self.lines = []
        self.finished = weakref.finalize(self, print, "ledger closed")

    def __del__(self):
        print("ledger gone")


def run(payload, context):
    atexit.register(print, "goodbye")
    ledger = Ledger()
    try:
        ledger.lines.extend(payload)
        return sum(ledger.lines)
    finally:
        print("summed")
