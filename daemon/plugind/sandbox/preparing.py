"""Templates with an environment, brought up while the launcher's loop goes on: importing packages takes seconds."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection

from plugind.errors import IsolationUnavailableError
from plugind.sandbox.importing import Imported
from plugind.sandbox.loop import Loop
from plugind.sandbox.template import Kind, Starting, Template
from plugind.sandbox.templates import Templates
from plugind.sandbox.words import log


class Preparing:
    """Those on their way. `ready` hears of each that has come up, `end` of each that has to make room or is idle."""

    def __init__(
        self,
        templates: Templates,
        loop: Loop,
        ready: Callable[[Template, Imported], None],
        end: Callable[[Kind], None],
    ) -> None:
        self._templates = templates
        self._loop = loop
        self._ready = ready
        self._end = end

    def prepare(self, kind: Kind, busy: Callable[[], Collection[Kind]]) -> None:
        """Have a template there, or on its way. `busy` gives those that somebody uses or waits for.

        Raises IsolationUnavailableError, OSError.
        """
        packages = self._templates.packages(kind)
        if self._templates.get(kind) is not None or kind in self._templates.starting:
            return
        if (idle := self._templates.to_make_room(busy())) is not None:
            self._end(idle)
        self._watch(kind, self._templates.begin(kind, packages))

    def check(self, in_use: Collection[Kind]) -> None:
        """End those that take too long, and those that nobody has needed for long."""
        now_ns = time.monotonic_ns()
        for kind, starting in list(self._templates.starting.items()):
            if now_ns >= starting.deadline_ns:
                self._loop.leave(starting.sock)
                starting.abandon()
                self._fail(
                    kind, IsolationUnavailableError(f"template of {kind}", "its packages take too long to import")
                )
        for kind in self._templates.idle(now_ns):
            if kind in in_use:
                self._templates.touch(kind)
            else:
                self._end(kind)

    def _watch(self, kind: Kind, starting: Starting) -> None:
        self._loop.watch(starting.sock, lambda: self._go_on(kind, starting))

    def _go_on(self, kind: Kind, starting: Starting) -> None:
        self._loop.leave(starting.sock)
        try:
            if not starting.go_on():
                self._watch(kind, starting)
                return
        except (IsolationUnavailableError, OSError) as error:
            self._fail(kind, error)  # the runs that wait for it are told when it is their turn, which is now
            return
        running = self._templates.began(kind)
        assert starting.imported is not None  # noqa: S101 - it has an environment, and is ready
        self._ready(running, starting.imported)

    def _fail(self, kind: Kind, error: Exception) -> None:
        log(f"{kind} cannot be used: {error}")
        self._templates.failed(kind, error)
