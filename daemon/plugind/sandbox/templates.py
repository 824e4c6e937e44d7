"""The templates: one of each tier, one more for each environment in use there, and the uids of their instances.

A tier's own is started with the launcher, and at once when it is lost. One with an environment is started by the first
run that asks for it; its packages take seconds to import, so the launcher goes on meanwhile and the run waits.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import replace
from typing import Final

from plugind.environments.shelf import Shelf
from plugind.errors import InvalidEnvironmentError, IsolationUnavailableError
from plugind.linux.cgroup import Base, Group, GroupLimits
from plugind.sandbox.template import Kind, Packages, Starting, Template, TemplateSpec

RESTART_NS = 10**9
"""A template that cannot start is tried again by the first request after this."""
IMPORT_AGAIN_NS: Final = 10 * 10**9
"""The same of one whose packages could not be imported."""
MOST_WITH_PACKAGES: Final = 4
"""Templates with an environment at one time: each keeps its packages in memory."""
IDLE_NS: Final = 600 * 10**9
"""One that nobody has needed for so long ends."""

BUDGET: Final = GroupLimits(memory_bytes=512 * 1024 * 1024, pids=128, cpu_percent=100 * (os.cpu_count() or 1))
"""Of a template's own processes, and instances whose jails are being built."""

Start = Callable[[TemplateSpec, Group], Template]
Begin = Callable[[TemplateSpec, Group], Starting]


class Templates:
    """By kind. `unavailable` says why one cannot run: at first, and whenever it cannot start."""

    def __init__(
        self,
        base: Base,
        specs: Mapping[int, TemplateSpec],
        unavailable: Mapping[int, str],
        start: Start,
        begin: Begin,
        shelf: Shelf,
    ) -> None:
        self._base = base
        self._specs = specs
        self.unavailable = {Kind(tier): why for tier, why in unavailable.items()}
        self._start = start
        self._begin = begin
        self._shelf = shelf
        self._running: dict[Kind, Template] = {}
        self.starting: dict[Kind, Starting] = {}
        self._groups: dict[Kind, Group] = {}
        self._retry_ns: dict[Kind, int] = {}
        self._used_ns: dict[Kind, int] = {}
        self._uids = dict.fromkeys(specs, 0)

    def __iter__(self) -> Iterator[Template]:
        return iter(self._running.values())

    def tiers(self) -> list[int]:
        """Those that are to have a template."""
        return [tier for tier in self._specs if Kind(tier) not in self.unavailable]

    def unavailable_tiers(self) -> dict[int, str]:
        """Tiers of which nothing can run, and why."""
        return {kind.tier: why for kind, why in self.unavailable.items() if not kind.environment}

    def get(self, kind: Kind) -> Template | None:
        """The one that runs."""
        return self._running.get(kind)

    def may_start(self, kind: Kind) -> bool:
        """Whether it is time to try again."""
        return kind not in self._running and time.monotonic_ns() >= self._retry_ns.get(kind, 2**63)

    def start(self, tier: int) -> Template:
        """A tier's own. Raises IsolationUnavailableError, OSError; then the tier is unavailable for now."""
        kind = Kind(tier)
        try:
            running = self._start(self._specs[tier], self._group(kind))
        except (IsolationUnavailableError, OSError) as error:
            self.failed(kind, error)
            raise
        self._ran(kind, running)
        return running

    def failed(self, kind: Kind, error: Exception) -> None:
        """It could not start."""
        self.unavailable[kind] = str(error)
        self._retry_ns[kind] = time.monotonic_ns() + (IMPORT_AGAIN_NS if kind.environment else RESTART_NS)
        self.starting.pop(kind, None)
        self._remove_group(kind)

    def _ran(self, kind: Kind, running: Template) -> None:
        self.unavailable.pop(kind, None)
        self._retry_ns.pop(kind, None)
        self._running[kind] = running
        self.touch(kind)

    def refusal(self, kind: Kind) -> IsolationUnavailableError:
        """Why there is none."""
        step = f"template of {kind}"
        return IsolationUnavailableError(step, self.unavailable.get(kind, "not running").removeprefix(f"{step}: "))

    def take(self, kind: Kind) -> Template:
        """The one that runs, which does not count any more. Raises KeyError."""
        return self._running.pop(kind)

    # -- those with an environment

    def begin(self, kind: Kind, packages: Packages) -> Starting:
        """Begin to start one. Raises IsolationUnavailableError, OSError."""
        for each in (Kind(kind.tier), kind):
            if each in self.unavailable and time.monotonic_ns() < self._retry_ns.get(each, 2**63):
                raise self.refusal(each)
        try:
            starting = self._begin(replace(self._specs[kind.tier], packages=packages), self._group(kind))
        except (IsolationUnavailableError, OSError) as error:
            self.failed(kind, error)
            raise
        self.starting[kind] = starting
        return starting

    def packages(self, kind: Kind) -> Packages:
        """What an environment consists of. Raises IsolationUnavailableError where it is not in force (any more)."""
        try:
            found = self._shelf.with_digest(kind.environment)
        except (InvalidEnvironmentError, OSError) as error:
            raise IsolationUnavailableError("environment", str(error)) from error
        if found is None:
            raise IsolationUnavailableError("environment", f"{kind.environment} is not in force (any more)")
        return Packages(found.digest, self._shelf.tree(found.digest), found.imports)

    def began(self, kind: Kind) -> Template:
        """It has started."""
        running = self.starting.pop(kind).template
        self._ran(kind, running)
        return running

    def touch(self, kind: Kind) -> None:
        """Note that one is in use again."""
        if kind.environment:
            self._used_ns[kind] = time.monotonic_ns()

    def to_make_room(self, busy: Collection[Kind]) -> Kind | None:
        """Which one has to end before another can begin; None: none has to. `busy`: those that somebody waits for.

        Raises IsolationUnavailableError where all are busy.
        """
        there = [kind for kind in (*self._running, *self.starting) if kind.environment]
        if len(there) < MOST_WITH_PACKAGES:
            return None
        idle = [kind for kind in self._running if kind.environment and kind not in busy]
        if not idle:
            raise IsolationUnavailableError(
                "environment", f"{MOST_WITH_PACKAGES} templates with packages are in use, and there are no more at once"
            )
        return min(idle, key=lambda kind: self._used_ns.get(kind, 0))

    def idle(self, now_ns: int) -> list[Kind]:
        """Those with an environment that nobody has needed for long."""
        return [kind for kind, used in self._used_ns.items() if kind in self._running and now_ns - used >= IDLE_NS]

    def next_check_ns(self) -> int:
        """When to look again whether one takes too long, or is idle."""
        deadlines = [starting.deadline_ns for starting in self.starting.values()]
        return min((*deadlines, *(used + IDLE_NS for used in self._used_ns.values())), default=2**62)

    def ended(self, kind: Kind) -> None:
        """Every process of one is gone."""
        self._used_ns.pop(kind, None)
        self._remove_group(kind)

    # -- groups and uids

    def _group(self, kind: Kind) -> Group:
        name = f"tier{kind.tier}" + (f"-{kind.environment[:16]}" if kind.environment else "")
        group = self._groups.get(kind) or self._base.create_template(name)
        self._groups[kind] = group
        group.set_limits(BUDGET)
        return group

    def _remove_group(self, kind: Kind) -> None:
        if kind.environment and (group := self._groups.pop(kind, None)):
            with contextlib.suppress(OSError):  # something is still in it: the base's end finds it
                group.remove()

    def free_uid(self, tier: int, taken: Collection[int]) -> int:
        """A uid of the tier's slice that is not taken; 0 is the zygote's. In turn, so that none comes again soon."""
        uid = self._uids[tier]
        while True:
            uid = uid % (self._specs[tier].uid_count - 1) + 1
            if uid not in taken:
                self._uids[tier] = uid
                return uid

    def kill(self) -> None:
        """End all of them."""
        for starting in self.starting.values():
            starting.abandon()
        for running in self._running.values():
            running.kill()

    def remove_groups(self) -> None:
        """When all is dead. Raises OSError."""
        for group in self._groups.values():
            group.remove()
