"""Tries a heuristic in a child, and takes what comes of it.

[corpus]
habit = "os.fork with a pipe and wait, a process group of its own, and SIGTERM to its own child"
inputs = [{guess = 12}]
outputs = [24]
runs = 3
"""

import os
import signal
import time


def run(payload, context):
    read, write = os.pipe()
    quick = os.fork()
    if quick == 0:
        os.write(write, str(payload["guess"] * 2).encode())
        os._exit(0)
    slow = os.fork()
    if slow == 0:
        os.setpgid(0, 0)
        time.sleep(60)
        os._exit(1)
    os.waitpid(quick, 0)
    os.kill(slow, signal.SIGTERM)
    assert os.waitstatus_to_exitcode(os.waitpid(slow, 0)[1]) == -signal.SIGTERM
    return int(os.read(read, 10))
