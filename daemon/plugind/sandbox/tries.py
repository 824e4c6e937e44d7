"""What instances try and are refused, as the launcher sees it: the notifier, and the table that they share."""

from __future__ import annotations

from plugind.linux.cgroup import Base
from plugind.linux.seccomp_notify import Rules
from plugind.model import Violation
from plugind.sandbox import notifier, refusals


class Tries:
    """One notifier at a time, and one table for all of them."""

    def __init__(self, base: Base, start: notifier.Start = notifier.start) -> None:
        self._base = base
        self._start = start
        self._rules = Rules()
        self._table = refusals.Table()
        self._notifier: notifier.Notifier | None = None

    def start(self) -> notifier.Notifier:
        """A new notifier. Raises IsolationUnavailableError, OSError."""
        self._notifier = self._start(self._table, self._base.create_template("notifier"))
        return self._notifier

    def take(self) -> int:
        """The number under which a new instance's tries are counted."""
        return self._table.take()

    def watch(self, owner: int, most: int, listener: int) -> None:
        """Answer for an instance from now on, and end it after so many refused calls. Raises OSError."""
        if self._notifier is None:
            raise OSError(0, "the notifier is not there")
        self._notifier.watch(owner, most, listener)

    def of(self, owner: int) -> tuple[tuple[Violation, ...], bool]:
        """What an instance tried, and whether a dangerous call is among it. When every process of it is gone."""
        found, others = self._table.of(owner)
        return refusals.violations(found, others, self._rules), any(each.dangerous for each in found)

    def so_far(self, owner: int) -> int:
        """How many calls an instance was refused until now."""
        return self._table.so_far(owner)

    def end(self) -> None:
        """End the notifier. Raises OSError."""
        if self._notifier is not None:
            running, self._notifier = self._notifier, None
            running.end()

    def close(self) -> None:
        """End it and give the table back. Raises OSError."""
        self.end()
        self._table.close()
