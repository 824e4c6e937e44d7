"""HOSTILE. Starts processes or threads until something stops it.

Expected: the jail's process limit refuses the fork, and the run ends as `pids_exceeded`.
Even without a jail it stops by itself at MOST processes or threads.
"""

from __future__ import annotations

import os
import threading
import time
from typing import Any

MOST = 4096
GENERATIONS = 12  # 2 ** 12 == MOST
PATIENCE = 100


def run(payload: dict[str, Any], context: object) -> dict[str, str]:
    """The plugin's entrypoint."""
    if payload["attack"] == "processes":
        _processes()
    elif payload["attack"] == "threads":
        _threads()
    return {"survived": payload["attack"]}


def _processes() -> None:
    """Every process makes another one, and so do all of these."""
    me = os.getpid()
    for _ in range(GENERATIONS):
        try:
            os.fork()
        except OSError:
            time.sleep(0.01)  # refused: stay, and try again
    time.sleep(3)
    if os.getpid() != me:
        os._exit(0)


def _threads() -> None:
    """Threads are tasks of the kernel too."""
    refused = 0
    for _ in range(MOST):
        try:
            threading.Thread(target=time.sleep, args=(3,), daemon=True).start()
        except RuntimeError:  # can't start new thread
            refused += 1
            time.sleep(0.01)
        if refused == PATIENCE:
            return
