"""What the launcher tells of what is used: everybody once a round, never too often, and no more than fits."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from plugind.linux.cgroup import GroupUse
from plugind.sandbox import sampler
from plugind.sandbox.sampler import EVERY_NS, MOST, Sampler
from plugind.sandbox.supervisor import FOREVER_NS


class FakeInstances(dict):
    def __iter__(self):
        return iter(list(self.values()))


class Clock:
    def __init__(self):
        self.ns = 10**12
        self.reading_ns = 0

    def __call__(self):
        self.ns += self.reading_ns
        return self.ns


NOTHING = GroupUse(0, 0, 0)


def instance(run, use=NOTHING, *, tier=2, serves=True, before=0):
    return SimpleNamespace(
        run=run, tier=tier, serves=serves, owner=run, cpu_before_ns=before, group=SimpleNamespace(use=lambda: use)
    )


class World:
    def __init__(self, *instances):
        self.instances = FakeInstances({each.run: each for each in instances})
        self.told = []
        self.clock = Clock()
        tries = SimpleNamespace(so_far=len)
        self.sampler = Sampler(self.instances, tries, self.told.append, self.clock)

    def ask(self, after_ns=EVERY_NS):
        self.clock.ns += after_ns
        self.sampler.ask()
        self.sampler.answer()
        return self.told[-1]


def test_nothing_is_told_unasked() -> None:
    world = World(instance("a"))
    world.sampler.answer()
    assert (world.told, world.sampler.next_check_ns()) == ([], FOREVER_NS)


def test_what_its_import_used_is_not_the_run_s() -> None:
    world = World(
        instance("a", GroupUse(9 * 10**6, 5, 2), before=2 * 10**6),
        instance("b", GroupUse(10**6, 5, 2), before=2 * 10**6),  # the kernel counts in pieces
        instance("c", GroupUse(-1, -1, 2)),
    )
    assert [(use.run, use.cpu_ms, use.memory_bytes, use.pids, use.refused_calls) for use in world.ask().instances] == [
        ("a", 7, 5, 2, 1),
        ("b", 0, 5, 2, 1),
        ("c", -1, -1, 2, 1),
    ]


def test_parked_ones_are_summed_and_one_that_is_not_known_makes_the_sum_unknown() -> None:
    world = World(
        instance("a", GroupUse(0, 10, 1), serves=False),
        instance("b", GroupUse(0, 20, 1), serves=False),
        instance("c", GroupUse(0, 20, 1), serves=False, tier=1),
        instance("d", GroupUse(0, -1, 1), serves=False, tier=1),
    )
    told = world.ask()
    assert [(each.tier, each.instances, each.memory_bytes) for each in told.parked] == [(1, 2, -1), (2, 2, 30)]
    assert told.instances == ()


@pytest.mark.parametrize("count", [0, 1, MOST, MOST + 1, 500])
def test_everybody_is_told_of_once_a_round(count) -> None:
    world = World(*(instance(f"r{number}") for number in range(count)))
    for _ in range(2):
        seen = []
        while True:
            told = world.ask()
            assert len(told.instances) <= MOST
            seen += [use.run for use in told.instances]
            assert told.left_out == count - len(seen)
            if not told.left_out:
                break
        assert seen == [f"r{number}" for number in range(count)]


def test_who_ends_in_the_middle_of_a_round_is_not_told_of() -> None:
    world = World(*(instance(f"r{number}") for number in range(MOST + 2)))
    assert world.ask().left_out == 2
    del world.instances[f"r{MOST}"]
    assert [use.run for use in world.ask().instances] == [f"r{MOST + 1}"]


def test_not_more_often_than_so() -> None:
    world = World(instance("a"))
    world.ask()
    for _ in range(50):
        world.ask(after_ns=EVERY_NS // 51)
    assert len(world.told) == 1
    assert world.sampler.next_check_ns() < FOREVER_NS
    world.clock.ns = world.sampler.next_check_ns()
    world.sampler.answer()
    assert len(world.told) == 2
    assert world.sampler.next_check_ns() == FOREVER_NS


def test_not_more_than_a_twentieth_of_its_time() -> None:
    world = World(instance("a"))
    world.clock.reading_ns = 10**9  # each look at the clock: an answer takes a second
    world.ask()
    world.sampler.ask()
    assert world.sampler.next_check_ns() - world.clock.ns == sampler._TIMES_AS_LONG * 10**9
