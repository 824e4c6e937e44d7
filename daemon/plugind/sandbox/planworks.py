"""Work in plans' folders that the front has asked for, and waits for: its side of plans/works.py."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

from plugind.errors import InvalidRequestError, LauncherGoneError, PlanError
from plugind.planfiles import PLAN_CODES, Entry, unpack
from plugind.sandbox import channel, protocol
from plugind.sandbox.plans.helper import MAX_ANSWER_BYTES
from plugind.sandbox.sealed import mapped

MOST_ENTRIES: Final = 65536
"""Of one answer: those whose content was asked for, which the task bounds, and the names of all that may be written."""

Answer = tuple[list[Entry], dict[str, Any]]


@dataclass(frozen=True, slots=True)
class PlanWork:
    """One piece of it, by the name that the launcher knows it by. `told`: raises PlanError, LauncherGoneError."""

    name: str
    told: asyncio.Future[Answer]


class PlanWorks:
    """All that is not answered yet."""

    def __init__(self) -> None:
        self._numbers = itertools.count(1)
        self._told: dict[str, asyncio.Future[Answer]] = {}

    def __len__(self) -> int:
        return len(self._told)

    @contextmanager
    def begin(self) -> Iterator[PlanWork]:
        """One more, until the end of the `with`: an answer that comes later is nobody's."""
        name = f"plan{next(self._numbers)}"
        told = self._told[name] = asyncio.get_running_loop().create_future()
        try:
            yield PlanWork(name, told)
        finally:
            del self._told[name]

    def hear(self, message: protocol.OfAPlan, descriptors: Sequence[int]) -> None:
        """An answer of the launcher; its descriptors are closed."""
        try:
            told = self._told.get(message.run)
            if told is None or told.done():
                return
            if isinstance(message, protocol.PlanFailed):
                code = message.code if message.code in PLAN_CODES else "fault"
                _fail(told, PlanError(code, message.detail))
                return
            try:
                told.set_result(_unpacked(descriptors))
            except (InvalidRequestError, OSError) as error:
                _fail(told, PlanError("fault", f"the plan helper's answer: {error}"))
        finally:
            channel.close(descriptors)

    def fail(self, error: LauncherGoneError) -> None:
        """There will be no answers."""
        for told in self._told.values():
            if not told.done():
                _fail(told, error)


def _unpacked(descriptors: Sequence[int]) -> Answer:
    """Raises InvalidRequestError, OSError."""
    if len(descriptors) != 1:
        raise InvalidRequestError(f"expected 1 descriptor, got {len(descriptors)}")
    channel.check_sealed(descriptors[0], "answer", MAX_ANSWER_BYTES)
    with mapped(descriptors[0]) as content:
        return unpack(content, MOST_ENTRIES, MAX_ANSWER_BYTES)


def _fail(told: asyncio.Future[Answer], error: Exception) -> None:
    told.set_exception(error)
    told.exception()  # whoever waits gets it; nobody waiting is no reason for a warning
