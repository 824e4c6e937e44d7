"""How many runs at a time, and which ones are in flight."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from plugind.errors import ConflictError
from plugind.model import Caller
from plugind.turns import Full, Line, Ticket

MOST_STREAMS: Final = 512
MOST_STREAMS_OF_ONE: Final = 128
"""Several times as many as there are places: a stream costs memory, also one that waits for nothing."""
_LOOK_S = 0.001
WAIT_S = 1.0
"""A run waits for a free place of its tier for so long, if its caller's deadline does not leave time for more."""
_START_S = 1.0
"""Of a deadline left for what a run needs beside its own time: jail and ledger."""


def _nothing() -> None:
    pass


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a run may wait for its place."""

    deadline: float | None = None
    """When its caller stops waiting, time.monotonic() seconds; None: never."""
    wall_ms: int = 0
    """What the run may need once it has its place."""

    def until(self, now: float, wait_s: float) -> float:
        """When it is to give up: as late as leaves it its time before the deadline, and not before `wait_s`.

        Never after the deadline.
        """
        if self.deadline is None:
            return now + wait_s
        return min(self.deadline, max(now + wait_s, self.deadline - self.wall_ms / 1000 - _START_S))


class Places:
    """A place for each instance that a tier may have at one time, given to the callers in turn."""

    def __init__(self, capacity: Mapping[int, int], wait_s: float = WAIT_S) -> None:
        self._wait_s = wait_s
        self._lines = {tier: Line(count) for tier, count in capacity.items()}

    def load(self) -> dict[int, tuple[int, int, int]]:
        """By tier: places, how many are taken, and how many runs wait for one."""
        return {tier: (line.capacity, line.taken, line.waiting) for tier, line in self._lines.items()}

    @contextlib.asynccontextmanager
    async def one(
        self, tier: int, run: InFlight, *, patience: Patience, input_bytes: int = 0
    ) -> AsyncIterator[Full | None]:
        """A place for as long as the block lasts, or why there is none. A run that is to end waits no more."""
        until = patience.until(asyncio.get_running_loop().time(), self._wait_s)
        async with one_of(self._lines[tier], run, until=until, input_bytes=input_bytes) as full:
            yield full


@contextlib.asynccontextmanager
async def one_of(line: Line, run: InFlight, *, until: float, input_bytes: int = 0) -> AsyncIterator[Full | None]:
    """A place of one line, as Places.one gives them; it waits until then, in seconds of the loop's clock."""
    loop = asyncio.get_running_loop()
    settled: asyncio.Future[Full | None] = loop.create_future()

    def settle(full: Full | None) -> None:
        if not settled.done():  # else this task was canceled, and leaves in a moment
            settled.set_result(full)

    ticket = Ticket(run.caller.uid, settle, input_bytes)
    line.ask(ticket)
    run.on_end = functools.partial(line.give_up, ticket)
    clock = loop.call_at(until, run.on_end)
    if run.cause:
        run.on_end()
    try:
        full = await settled
        run.on_end = _nothing
        clock.cancel()
        yield full
    finally:
        run.on_end = _nothing
        clock.cancel()
        line.leave(ticket)


class Streams:
    """The streams of sessions that are open, also those that never say a word or never read one."""

    def __init__(self) -> None:
        self._of: Counter[int] = Counter()

    @contextlib.contextmanager
    def one_more(self, caller: Caller) -> Iterator[bool]:
        """Whether this caller may have one more. It counts until the block is left."""
        if self._of.total() >= MOST_STREAMS or self._of[caller.uid] >= MOST_STREAMS_OF_ONE:
            yield False
            return
        self._of[caller.uid] += 1
        try:
            yield True
        finally:
            self._of[caller.uid] -= 1


@dataclass(slots=True)
class InFlight:
    """One run between its admission and its answer."""

    run_id: str
    caller: Caller
    stage: str
    started_unix_ms: int
    plugin_id: str = ""
    plugin: str = ""
    version: str = ""
    targets: Container[str] = frozenset()
    """The targets of kills that mean this run."""
    tier: int = -1
    in_sandbox: bool = False
    """Whether the launcher was asked to start it."""
    running: bool = False
    """Whether plugin code runs."""
    began_ns: int = 0
    """When plugin code began, time.perf_counter_ns(); 0: it has not."""
    cause: str = ""
    """Why it is to end: "canceled", "killed"; empty: it is not."""
    on_end: Callable[[], None] = _nothing
    """Called when it is to end: what waits for a place need not go on."""


class Reach(Protocol):
    """How far a run in flight can be reached: into the sandbox."""

    def kill(self, run: str, cause: str) -> None:
        """End an instance."""

    def kill_many(self, runs: Collection[str], cause: str) -> None:
        """End several instances."""

    def is_gone(self, run: str) -> bool:
        """Whether no process of it is left; a run that has no instance has none."""
        ...


async def wait_gone(is_gone: Callable[[str], bool], names: Sequence[str], timeout_s: float) -> list[str]:
    """The names of those that are not seen to be gone in time."""
    deadline, left = time.monotonic() + timeout_s, list(names)
    # Of an end in another process the kernel tells nobody who does not look.
    while left and time.monotonic() < deadline:
        if is_gone(left[-1]):
            left.pop()
        else:  # and the others need not be looked at: all are waited for
            await asyncio.sleep(_LOOK_S)
    return [name for name in left if not is_gone(name)]


class Flights:
    """The runs in flight, by id."""

    def __init__(self, reach: Reach) -> None:
        self._reach = reach
        self._runs: dict[str, InFlight] = {}

    def __len__(self) -> int:
        return len(self._runs)

    def enter(self, run: InFlight) -> None:
        """Raises ConflictError for an id that is in flight."""
        if run.run_id in self._runs:
            raise ConflictError(f"run_id: {run.run_id} is in flight already; choose another one, or none")
        self._runs[run.run_id] = run

    def leave(self, run: InFlight) -> None:
        """It was answered."""
        del self._runs[run.run_id]

    def visible(self, caller: Caller | None) -> list[InFlight]:
        """This caller's runs, or all of them; oldest first."""
        return [run for run in self._runs.values() if caller is None or run.caller.uid == caller.uid]

    def end(self, run_id: str, cause: str, caller: Caller | None = None) -> bool:
        """End one run, whatever it is doing. False: no such run, or not this caller's."""
        run = self._runs.get(run_id)
        if run is None or (caller is not None and run.caller.uid != caller.uid):
            return False
        self._end(run, cause)
        return True

    def end_flight(self, run: InFlight, cause: str) -> None:
        """End this run, and not another one that has its id since."""
        if self._runs.get(run.run_id) is run:
            self._end(run, cause)

    def _end(self, run: InFlight, cause: str) -> None:
        run.cause = run.cause or cause
        run.on_end()
        if run.in_sandbox:
            self._reach.kill(run.run_id, run.cause)

    def end_matching(self, target: str, cause: str) -> list[str]:
        """End every run that a target means; their ids."""
        met = [run for run in self._runs.values() if target in run.targets]
        for run in met:
            run.cause = run.cause or cause
            run.on_end()
        self._reach.kill_many([run.run_id for run in met if run.in_sandbox], cause)
        return [run.run_id for run in met]

    async def wait_gone(self, runs: list[str], timeout_s: float) -> list[str]:
        """The ids of those whose processes are not seen to be gone in time."""
        return await wait_gone(self._reach.is_gone, runs, timeout_s)

    def end_all(self, cause: str) -> None:
        """End every run."""
        for run_id in list(self._runs):
            self.end(run_id, cause)
