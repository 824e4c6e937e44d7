"""The kill switch: first nothing new starts, then what runs is ended, and only then the call returns.

A hold that is in force (looked at by every decision) keeps new runs out. A run that was decided before it is marked,
and its mark is looked at before its instance starts and before its result is returned. It is made durable while
processes die: no disk comes between a person and the end of what they want to end. Decision 22.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

from plugind.errors import StateError
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

    def __init__(
        self,
        set_hold: Callable[[Hold], Hold],
        running: Running,
        parked: Running | None = None,
        announce: Callable[[Hold], None] | None = None,
    ) -> None:
        """`parked`: instances that wait for runs. They die with the rest, and are nobody's runs.

        `announce` puts a hold in force at once, in memory. Without it nothing is ended before the hold is durable.
        """
        self._announce = announce
        self._set_hold = set_hold
        self._running = running
        self._parked = parked

    async def kill(self, hold: Hold) -> Killed:
        """Put the hold in force and end what it names.

        Raises InvalidRequestError, and StateError: it could not be made durable. What it names has ended then, and if
        it was announced it stays in force until the daemon ends.
        """
        began = time.perf_counter_ns()
        setting = asyncio.ensure_future(asyncio.to_thread(self._set_hold, hold))
        if self._announce is None:
            await setting
        else:
            self._announce(hold)
        ended = self._running.end_matching(hold.target, "killed")
        parked = self._parked.end_matching(hold.target, "killed") if self._parked else []
        left = await self._running.wait_gone(ended, CONFIRM_S)
        if self._parked:
            left += await self._parked.wait_gone(parked, CONFIRM_S)
        took_us = (time.perf_counter_ns() - began) // 1000
        return Killed(await self._durable(setting, hold), len(ended), took_us if ended else 0, len(left))

    async def _durable(self, setting: asyncio.Future[Hold], hold: Hold) -> Hold:
        try:
            return await setting
        except StateError as error:
            raise StateError(
                f"{hold.target} is killed, but only until this daemon ends: the hold could not be written: {error};"
                " make room, and kill it again"
            ) from error
