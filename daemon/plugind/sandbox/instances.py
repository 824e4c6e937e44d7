"""The instances that the launcher knows: those that run or wait, and those that are done and not yet taken apart."""

from __future__ import annotations

from collections.abc import Iterator

from plugind.sandbox.supervisor import Instance
from plugind.sandbox.template import Kind


class Instances:
    """By run. What is iterated over may lose some meanwhile."""

    def __init__(self) -> None:
        self._there: dict[str, Instance] = {}
        self._done: dict[str, Instance] = {}
        """Killed after their results, and told of; the kernel is about to take them apart."""

    def __contains__(self, run: object) -> bool:
        return run in self._there

    def __iter__(self) -> Iterator[Instance]:
        return iter([*self._there.values()])

    def all(self) -> list[Instance]:
        """With those that are done."""
        return [*self._there.values(), *self._done.values()]

    def has(self, instance: Instance) -> bool:
        """Whether it is still one of them, done or not."""
        return any(there.get(instance.run) is instance for there in (self._there, self._done))

    def get(self, run: str) -> Instance | None:
        """The one of a run that is not done."""
        return self._there.get(run)

    def of(self, kind: Kind, run: str) -> Instance | None:
        """The one of a run, done or not, if it is a clone of this kind's zygote: another's may be taken over."""
        instance = self._there.get(run) or self._done.get(run)
        return instance if instance is not None and instance.kind == kind else None

    def add(self, instance: Instance) -> None:
        """One more."""
        self._there[instance.run] = instance

    def set_done(self, instance: Instance) -> None:
        """It is done; it is not of its run any more."""
        del self._there[instance.run]
        self._done[instance.run] = instance

    def remove(self, instance: Instance) -> bool:
        """No process of it is left. Whether it was done."""
        if self._done.pop(instance.run, None):
            return True
        del self._there[instance.run]
        return False

    # -- of one tier or template

    def serving(self, tier: int, *, dying: bool = False) -> int:
        """How many are somebody's runs and were not killed; or were, and are not gone yet."""
        there = self._there.values()
        return sum(each.tier == tier and each.serves and bool(each.killed_ns) == dying for each in there)

    def ahead(self, tier: int) -> int:
        """How many import ahead, or wait."""
        return sum(each.tier == tier and not each.serves for each in self._there.values())

    def in_setup(self, kind: Kind) -> int:
        """How many whose jails are being built."""
        return sum(each.kind == kind and each.control is not None for each in self._there.values())

    def uids(self, tier: int) -> set[int]:
        """Taken ones of the tier's slice, whatever template they are of."""
        return {each.uid for each in self.all() if each.tier == tier}

    def kinds(self, *, serving: bool = False) -> set[Kind]:
        """Of which templates there are some, or some that are somebody's runs."""
        return {each.kind for each in self._there.values() if each.serves or not serving}
