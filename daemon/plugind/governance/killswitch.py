"""The kill switch: first nothing new starts, then what runs is ended, and only then the call returns.

A hold that is in force (durable, and looked at by every decision) keeps new runs out. A run that was decided before it
is marked, and its mark is looked at before its instance starts and before its result is returned.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

from plugind.model import Hold

CONFIRM_S: Final = 2.0
"""A killed process that is not gone by then is told as unconfirmed."""


@dataclass(frozen=True, slots=True)
class Killed:
    """What a kill came to."""

    hold: Hold
    ended_runs: int
    took_us: int
    """From the call until the last process was gone."""
    unconfirmed_runs: int


class Running(Protocol):
    """What runs, as the kill switch needs it."""

    def end_matching(self, target: str, cause: str) -> list[str]:
        """Mark and kill every run of a target; their ids."""
        ...

    async def wait_gone(self, runs: list[str], timeout_s: float) -> list[str]:
        """Wait until no process of these runs is left; the ids of those that are not seen to be gone."""
        ...


class KillSwitch:
    """`set_hold` puts a hold in force durably; it blocks, and is called in a thread."""

    def __init__(self, set_hold: Callable[[Hold], Hold], running: Running, parked: Running | None = None) -> None:
        """`parked`: instances that wait for runs. They die with the rest, and are nobody's runs."""
        self._set_hold = set_hold
        self._running = running
        self._parked = parked

    async def kill(self, hold: Hold) -> Killed:
        """Put the hold in force and end what it names. Raises NotFoundError, InvalidRequestError, StateError."""
        began = time.perf_counter_ns()
        kept = await asyncio.to_thread(self._set_hold, hold)
        ended = self._running.end_matching(hold.target, "killed")
        parked = self._parked.end_matching(hold.target, "killed") if self._parked else []
        left = await self._running.wait_gone(ended, CONFIRM_S)
        if self._parked:
            left += await self._parked.wait_gone(parked, CONFIRM_S)
        took_us = (time.perf_counter_ns() - began) // 1000
        return Killed(kept, len(ended), took_us if ended else 0, len(left))
