"""What a unit of systemd tells its manager: ready, reloading, stopping, alive. Silent where there is none.

Source: sd_notify(3), sd_watchdog_enabled(3).
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Mapping

from systemd import daemon


class Notifier:
    """Speaks to the socket in NOTIFY_SOCKET."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._there = "NOTIFY_SOCKET" in environment
        mine = environment.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        self._watchdog_us = int(environment.get("WATCHDOG_USEC", "0")) if mine else 0

    def ready(self, status: str) -> None:
        """It serves."""
        self._tell(f"READY=1\nSTATUS={status}")

    def reloading(self) -> None:
        """It reads its policy again; `ready` follows."""
        self._tell(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self) -> None:
        """It ends in order."""
        self._tell("STOPPING=1")

    async def beat(self) -> None:
        """Say that this event loop is alive, twice in each interval of the watchdog.

        A daemon that hangs is started again by the manager. One that has lost its ledger is not: it denies every run,
        and its kill switch has to go on working.
        """
        if not self._watchdog_us:
            return
        while True:
            self._tell("WATCHDOG=1")
            await asyncio.sleep(self._watchdog_us / 2_000_000)

    def _tell(self, text: str) -> None:
        if self._there:
            daemon.notify(text)
