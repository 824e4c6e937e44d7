"""Starts that wait in the launcher, in their order, because enough jails are being built."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence

from plugind.sandbox import channel
from plugind.sandbox.protocol import Park, Start
from plugind.sandbox.template import Kind


def kind_of(start: Start) -> Kind:
    """Of which template it wants an instance."""
    return Kind(start.tier, start.environment)


class StartQueue:
    """Start messages by run, each with descriptors of its own."""

    def __init__(self) -> None:
        self._starts: dict[str, tuple[Start, list[int]]] = {}

    def __contains__(self, run: str) -> bool:
        return run in self._starts

    def __bool__(self) -> bool:
        return bool(self._starts)

    def count(self, tier: int, *, ahead: bool) -> int:
        """How many of a tier wait: runs, or imports ahead of one. They have places of their own each."""
        return sum(start.tier == tier and isinstance(start, Park) == ahead for start, _ in self._starts.values())

    def kinds(self) -> set[Kind]:
        """Of which templates some wait."""
        return {kind_of(start) for start, _ in self._starts.values()}

    def put(self, start: Start, descriptors: Sequence[int]) -> None:
        """Let it wait; the descriptors are duplicated. Raises OSError: then it does not wait."""
        own: list[int] = []
        try:
            own.extend(os.dup(descriptor) for descriptor in descriptors)
        except OSError:
            channel.close(own)
            raise
        self._starts[start.run] = (start, own)

    def drop(self, run: str) -> None:
        """It is not wanted any more."""
        _, descriptors = self._starts.pop(run)
        channel.close(descriptors)

    def take(self, may_start: Callable[[Start], bool]) -> Iterator[tuple[Start, list[int]]]:
        """Each one that may start when its turn comes; its descriptors are closed after its turn."""
        for run, (start, descriptors) in list(self._starts.items()):
            if may_start(start):
                del self._starts[run]
                try:
                    yield start, descriptors
                finally:
                    channel.close(descriptors)

    def close(self) -> None:
        """None of them is wanted any more."""
        for run in list(self._starts):
            self.drop(run)
