"""Adds numbers, and shows how far it is.

[corpus]
habit = "prints progress with carriage returns and colours, warns, flushes, and writes bytes to sys.stdout.buffer"
inputs = [{to = 500}]
outputs = [125250]
runs = 3
"""

import sys
import warnings


def run(payload, context):
    warnings.warn("numbers are added one by one", RuntimeWarning, stacklevel=2)
    total = 0
    for number in range(1, payload["to"] + 1):
        total += number
        if number % 50 == 0:
            print(f"\r\x1b[32m{number}\x1b[0m of {payload['to']}", end="", flush=True)
    sys.stdout.buffer.write(b"\n\xff done\n")
    print("finished", file=sys.stderr)
    return total
