"""Watches its own progress.

[corpus]
habit = "leaves a daemon thread and a timer running when it returns"
inputs = [{steps = 3}]
outputs = [3]
runs = 5
"""

import threading
import time


def watch():
    while True:
        time.sleep(0.01)


def run(payload, context):
    threading.Thread(target=watch, daemon=True).start()
    late = threading.Timer(30, print)
    late.daemon = True
    late.start()
    return payload["steps"]
