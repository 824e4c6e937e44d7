"""The templates of all tiers: one running each, started again when it is lost, and the uids of its instances."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Final

from plugind.errors import IsolationUnavailableError
from plugind.linux.cgroup import Base, Group, GroupLimits
from plugind.sandbox.template import Template, TemplateSpec

RESTART_NS = 10**9
"""A template that cannot start is tried again by the first request after this."""

BUDGET: Final = GroupLimits(memory_bytes=512 * 1024 * 1024, pids=128, cpu_percent=100 * (os.cpu_count() or 1))
"""Of a template's own processes, and instances whose jails are being built."""

Start = Callable[[TemplateSpec, Group], Template]


class Templates:
    """By tier. `unavailable` says why a tier cannot run: at first, and whenever its template cannot start."""

    def __init__(
        self, base: Base, specs: Mapping[int, TemplateSpec], unavailable: Mapping[int, str], start: Start
    ) -> None:
        self._base = base
        self._specs = specs
        self.unavailable = dict(unavailable)
        self._start = start
        self._running: dict[int, Template] = {}
        self._groups: dict[int, Group] = {}
        self._retry_ns: dict[int, int] = {}
        self._uids = dict.fromkeys(specs, 0)

    def __iter__(self) -> Iterator[Template]:
        return iter(self._running.values())

    def tiers(self) -> list[int]:
        """Those that are to have a template."""
        return [tier for tier in self._specs if tier not in self.unavailable]

    def get(self, tier: int) -> Template | None:
        """The one that runs."""
        return self._running.get(tier)

    def may_start(self, tier: int) -> bool:
        """Whether it is time to try again."""
        return tier not in self._running and time.monotonic_ns() >= self._retry_ns.get(tier, 2**63)

    def start(self, tier: int) -> Template:
        """A new one. Raises IsolationUnavailableError, OSError; then the tier is unavailable for now."""
        try:
            group = self._groups.get(tier) or self._base.create_template(f"tier{tier}")
            self._groups[tier] = group
            group.set_limits(BUDGET)
            running = self._start(self._specs[tier], group)
        except (IsolationUnavailableError, OSError) as error:
            self.unavailable[tier] = str(error)
            self._retry_ns[tier] = time.monotonic_ns() + RESTART_NS
            raise
        self.unavailable.pop(tier, None)
        self._running[tier] = running
        return running

    def take(self, tier: int) -> Template:
        """The one that runs, which does not count any more. Raises KeyError."""
        return self._running.pop(tier)

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
        for running in self._running.values():
            running.kill()

    def remove_groups(self) -> None:
        """When all is dead. Raises OSError."""
        for group in self._groups.values():
            group.remove()
