"""HOSTILE. Computes for ever.

Expected: the budget of CPU time, which the whole tree of processes shares, is used up: `cpu_exceeded`.
Even without a jail it stops by itself after MOST_SECONDS.
"""

from __future__ import annotations

import os
import signal
import time
from typing import Any

MOST_SECONDS = 20


def run(payload: dict[str, Any], context: object) -> dict[str, str]:
    """The plugin's entrypoint."""
    attack = payload["attack"]
    if attack == "loop":
        _burn()
    elif attack == "children":
        _children()
    elif attack == "native":
        _native()
    return {"survived": attack}


def _burn() -> None:
    _ignore_signals()
    end = time.monotonic() + MOST_SECONDS
    while time.monotonic() < end:
        pass


def _children() -> None:
    """Many processes, each of which uses little: short-lived ones, so that only who counts the dead sees it all."""
    end = time.monotonic() + MOST_SECONDS
    while time.monotonic() < end:
        children = []
        for _ in range(4):
            pid = os.fork()
            if pid == 0:
                used_up = time.process_time() + 0.02
                while time.process_time() < used_up:
                    pass
                os._exit(0)
            children.append(pid)
        for pid in children:
            os.waitpid(pid, 0)


def _native() -> None:
    """One single operation that never gives the interpreter a chance to look for signals. Not for ever, but long enough."""
    _ignore_signals()
    _ = 7 ** (10**7)


def _ignore_signals() -> None:
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGALRM, signal.SIGXCPU):
        signal.signal(number, signal.SIG_IGN)
