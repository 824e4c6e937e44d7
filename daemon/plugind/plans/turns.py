"""Who may do what with a plan's folder when: one run at a time that may write to it, and no copy while it is settled.

A plan is known here only while somebody has to do with it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field

from plugind.admission import WAIT_S, InFlight, Patience, one_of
from plugind.turns import LEAST_HINT_MS, MOST_WAITING_OF_ONE, Full, Line


def _set() -> asyncio.Event:
    event = asyncio.Event()
    event.set()
    return event


@dataclass(slots=True, eq=False)
class _Plan:
    """One plan's folder. `still`: nobody settles it; `idle`: nobody copies it."""

    line: Line = field(default_factory=lambda: Line(1))
    still: asyncio.Event = field(default_factory=_set)
    idle: asyncio.Event = field(default_factory=_set)
    users: int = 0
    copies: int = 0
    settling: int = 0


class PlanTurns:
    """The turns of all plans, by their folders."""

    def __init__(self, wait_s: float = WAIT_S) -> None:
        self._wait_s = wait_s
        self._plans: dict[str, _Plan] = {}
        self._of: Counter[int] = Counter()
        """By uid: those who have a turn, or wait for one."""

    def __len__(self) -> int:
        return len(self._plans)

    @contextlib.asynccontextmanager
    async def write(self, plan_dir: str, run: InFlight, patience: Patience) -> AsyncIterator[Full | None]:
        """The turn to write, for as long as the block lasts, or why there is none. Who is to end waits no more."""
        uid = run.caller.uid
        if self._of[uid] >= MOST_WAITING_OF_ONE:  # a caller could else wait in the lines of as many plans as it names
            yield Full("caller", 1, self._of[uid], LEAST_HINT_MS)
            return
        until = patience.until(asyncio.get_running_loop().time(), self._wait_s)
        self._of[uid] += 1
        try:
            with self._plan(plan_dir) as plan:
                async with one_of(plan.line, run, until=until) as full:
                    yield full
        finally:
            self._of[uid] -= 1
            if not self._of[uid]:
                del self._of[uid]

    @contextlib.asynccontextmanager
    async def copying(self, plan_dir: str) -> AsyncIterator[None]:
        """Nobody settles the plan within this block. Raises TimeoutError where it is settled for too long."""
        with self._plan(plan_dir) as plan:
            async with asyncio.timeout(self._wait_s):
                while plan.settling:
                    await plan.still.wait()
            plan.copies += 1
            plan.idle.clear()
            try:
                yield
            finally:
                plan.copies -= 1
                if not plan.copies:
                    plan.idle.set()

    @contextlib.asynccontextmanager
    async def settling(self, plan_dir: str) -> AsyncIterator[None]:
        """Nobody copies the plan within this block: who does is waited for, who comes waits."""
        with self._plan(plan_dir) as plan:
            plan.settling += 1
            plan.still.clear()
            try:
                while plan.copies:
                    await plan.idle.wait()
                yield
            finally:
                plan.settling -= 1
                if not plan.settling:
                    plan.still.set()

    @contextlib.contextmanager
    def _plan(self, plan_dir: str) -> Iterator[_Plan]:
        plan = self._plans.setdefault(plan_dir, _Plan())
        plan.users += 1
        try:
            yield plan
        finally:
            plan.users -= 1
            if not plan.users:
                del self._plans[plan_dir]
