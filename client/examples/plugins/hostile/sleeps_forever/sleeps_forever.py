"""HOSTILE. Waits for ever, so that whoever waits for it waits too.

Expected: the wall clock ends it: `timeout`. Ignored signals and a stopped process make no difference.
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
    if attack == "sleep":
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGALRM):
            signal.signal(number, signal.SIG_IGN)
        time.sleep(MOST_SECONDS)
    elif attack == "stopped":
        child = _stopped_child()
        time.sleep(MOST_SECONDS)
        os.kill(child, signal.SIGKILL)
    return {"survived": attack}


def _stopped_child() -> int:
    """A process in the state "stopped" does not react to a polite signal at all."""
    child = os.fork()
    if child == 0:
        os.setsid()
        time.sleep(MOST_SECONDS)
        os._exit(0)
    os.kill(child, signal.SIGSTOP)
    return child
