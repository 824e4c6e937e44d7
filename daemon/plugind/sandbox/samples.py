"""What the launcher said last of what is used: the front's side of sampler.py."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final

from plugind.errors import LauncherGoneError
from plugind.sandbox.protocol import InstanceUse, ParkedUse, ProcessUse, Sample, Sampled

MOST_AGE_S: Final = 5.0
"""A figure that is older is not told any more."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What an instance used, and when that was heard: by the clock of the day, and by one that never jumps."""

    use: InstanceUse
    at_unix_ms: int = field(default_factory=lambda: time.time_ns() // 10**6)
    at_s: float = field(default_factory=time.monotonic)


class Samples:
    """Asks until it has heard of every instance. `send` gives the launcher a message."""

    def __init__(self, send: Callable[[Sample], Awaitable[None]]) -> None:
        self._send = send
        self._round: asyncio.Future[None] | None = None
        self.launcher: ProcessUse | None = None
        self.parked: tuple[ParkedUse, ...] = ()

    async def ask(self) -> None:
        """Returns when each was told of. Who asks meanwhile waits for the same. Raises LauncherGoneError."""
        if self._round is None:
            self._round = asyncio.get_running_loop().create_future()
            try:
                await self._send(Sample())
            except BaseException:
                self.fail(LauncherGoneError("it could not be asked"))
                raise
        if self._round is not None:
            await asyncio.shield(self._round)

    def heard(self, message: Sampled) -> bool:
        """Note what it says of others than runs. Whether there is more to ask for."""
        self.launcher, self.parked = message.launcher, message.parked
        if message.left_out:
            return True
        if self._round is not None:
            self._round.set_result(None)
            self._round = None
        return False

    def fail(self, error: LauncherGoneError) -> None:
        """There will be no answer."""
        if self._round is not None:
            self._round.set_exception(error)
            self._round.exception()  # whoever waits gets it; nobody waiting is no reason for a warning
            self._round = None
