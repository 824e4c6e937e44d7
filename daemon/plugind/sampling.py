"""What runs, and the daemon's own processes, use now: asked of the launcher while somebody looks or a run is long.

Short runs that nobody looks at cost nothing: what they used comes with their end.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import time
from collections.abc import Callable, Mapping
from typing import Final, Protocol

from plugind.errors import IsolationUnavailableError, LauncherGoneError
from plugind.sandbox.protocol import ParkedUse, ProcessUse
from plugind.sandbox.samples import Seen

EVERY_S: Final = 1.0
PATIENCE_S: Final = 0.3
"""So long somebody who looks waits for the launcher; then he sees what was told before."""


class Source(Protocol):
    """The launcher, as far as it tells of this (plugind.sandbox.link)."""

    async def sample(self) -> None:
        """Ask what is used. Raises IsolationUnavailableError, LauncherGoneError."""

    def has_long(self) -> bool:
        """Whether a run is longer than a second."""
        ...

    def uses(self) -> Mapping[str, Seen]:
        """What it said last of each run, by its id; what is too old is left out."""
        ...

    @property
    def parked(self) -> tuple[ParkedUse, ...]:
        """What it said last of instances that wait."""
        ...

    @property
    def launcher(self) -> ProcessUse | None:
        """What it said last of itself."""
        ...


class Sampling:
    """Asks at most once every `every_s`, whoever looks."""

    def __init__(
        self,
        source: Source,
        clock: Callable[[], float] = time.monotonic,
        every_s: float = EVERY_S,
        patience_s: float = PATIENCE_S,
    ) -> None:
        """`clock`: seconds."""
        self._source = source
        self._clock = clock
        self._every_s = every_s
        self._patience_s = patience_s
        self._asked_at = -math.inf
        self._asking: asyncio.Task[None] | None = None

    async def fresh(self) -> Mapping[str, Seen]:
        """What runs use, by their ids, about a second old at most where the launcher answers in time."""
        now = self._clock()
        if now - self._asked_at >= self._every_s and (self._asking is None or self._asking.done()):
            self._asked_at = now
            self._asking = asyncio.create_task(self._ask())
        left_s = self._asked_at + self._patience_s - now
        if self._asking is not None and left_s > 0:
            await asyncio.wait([self._asking], timeout=left_s)
        return self._source.uses()

    async def keep(self) -> None:
        """While a run is long its figures are kept up to date, for whoever watches. Until it is canceled."""
        while True:
            await asyncio.sleep(self._every_s)
            if self._source.has_long():
                await self.fresh()

    def last(self) -> Mapping[str, Seen]:
        """The same without asking."""
        return self._source.uses()

    @property
    def parked(self) -> tuple[ParkedUse, ...]:
        """What instances that wait for a run used at the last sample, by tier."""
        return self._source.parked

    def processes(self) -> dict[str, ProcessUse]:
        """What front and launcher use, by their names; the launcher as it said last, if it did."""
        told = self._source.launcher
        return {"front": _own_use()} | ({"launcher": told} if told else {})

    async def _ask(self) -> None:
        with contextlib.suppress(IsolationUnavailableError, LauncherGoneError):  # there is nothing that runs
            await self._source.sample()


def _own_use() -> ProcessUse:
    import psutil  # noqa: PLC0415 - a MiB, for what is seldom asked

    process = psutil.Process()
    try:
        with process.oneshot():
            cpu = process.cpu_times()
            return ProcessUse(
                process.pid, round((cpu.user + cpu.system) * 1000), process.memory_info().rss, process.num_fds()
            )
    except (OSError, psutil.Error):  # /proc is not what it should be
        return ProcessUse(os.getpid(), -1, -1, -1)
