"""Templates with an environment, brought up while the launcher's loop goes on: made-up ones, and a real loop."""

from __future__ import annotations

import time

import pytest

from plugind.environments.shelf import Environment, Package
from plugind.sandbox import protocol
from plugind.sandbox.templates import MOST_WITH_PACKAGES
from tests.support.descriptors import opened
from tests.unit.test_launcher import World, wait_for, works

DIGESTS = [character * 64 for character in "abcdef"]


@pytest.fixture
def world(tmp_path):
    before = opened()
    world = World(tmp_path)
    for digest in DIGESTS:
        made = Environment("e", digest, "0" * 64, "abi", ("greeting",), (Package("greeting", "1"),), 1, 1, 1)
        world.shelf.current[digest] = made
    world.begin()
    assert world.load().error == ""
    yield world
    world.end()
    assert opened() <= before, "a descriptor was left open"


def begun(world, number=0):
    """The start that has begun as the `number`th of all."""
    wait_for(lambda: len(world.begun) > number)
    return world.begun[number]


def brought_up(world, run, digest):
    """A run in an environment that is new to the launcher, until its zygote has its order."""
    before = len(world.begun)
    world.ask(run, environment=digest)
    begun(world, before).say(b"y")
    said = world.hear(protocol.Imported)
    order, _ = world.order(environment=digest)
    assert order["run"] == run
    return said


def test_runs_wait_for_an_import_and_nobody_else_does(world):
    for number in range(3):
        world.ask(f"r{number}", environment=DIGESTS[0])
    starting = begun(world)
    starting.say(b"n")  # one step is done, and it is not ready
    assert works(world, tier=1)
    assert works(world)
    starting.say(b"y")
    said = world.hear(protocol.Imported)
    assert (said.environment, said.tier, said.uid, said.failed) == (DIGESTS[0], 2, 165536, {"odd": "ImportError: no"})
    assert [world.order(environment=DIGESTS[0])[0]["run"] for _ in range(3)] == ["r0", "r1", "r2"]
    assert len(world.begun) == 1


def test_each_tier_has_its_own(world):
    world.ask("r1", tier=1, environment=DIGESTS[0])
    begun(world)
    world.ask("r2", tier=2, environment=DIGESTS[0])
    begun(world, 1)
    assert [each.template.kind.tier for each in world.begun] == [1, 2]


def test_runs_that_wait_for_one_that_cannot_start_are_told_why_and_so_is_the_next_at_once(world):
    for number in range(2):
        world.ask(f"r{number}", environment=DIGESTS[0])
    begun(world).say(b"!")
    for run in ("r0", "r1"):
        refused = world.hear(protocol.Refused)
        assert (refused.run, "its packages broke it" in refused.detail) == (run, True)
    world.ask("r2", environment=DIGESTS[0])
    assert "its packages broke it" in world.hear(protocol.Refused).detail
    assert len(world.begun) == 1
    world.begun[0].close()
    world.begun[0].template.kill()
    assert works(world)


def test_one_that_takes_too_long_is_given_up(world):
    world.ask("r1", environment=DIGESTS[0])
    starting = begun(world)
    starting.deadline_ns = time.monotonic_ns()
    world.say(protocol.Kill("nobody", "killed"))  # something happens: else it is looked at when its deadline was
    assert "take too long" in world.hear(protocol.Refused).detail
    assert starting.abandoned


@pytest.mark.parametrize("digest", ["9" * 64, DIGESTS[0]])
def test_what_no_name_stands_for_is_refused(world, digest):
    world.shelf.current.pop(digest, None)
    world.ask("r1", environment=digest)
    refused = world.hear(protocol.Refused)
    assert (refused.step, refused.detail) == ("environment", f"{digest} is not in force (any more)")
    assert world.begun == []


def test_the_one_that_was_used_least_recently_gives_way_unless_somebody_uses_it(world):
    for number in range(MOST_WITH_PACKAGES):
        brought_up(world, f"r{number}", DIGESTS[number])
    world.ask("r4", environment=DIGESTS[4])
    assert "are in use" in world.hear(protocol.Refused).detail
    for number in (2, 1):
        world.begun[number].template.say(op="exited", run=f"r{number}", exit_code=0)
        assert world.hear(protocol.Refused).run == f"r{number}"  # its jail was not complete
    brought_up(world, "r4", DIGESTS[4])
    assert [each.template.killed for each in world.begun] == [False, True, False, False, False]


def test_a_launcher_that_ends_takes_those_on_their_way_with_it(world):
    world.ask("r1", environment=DIGESTS[0])
    starting = begun(world)
    world.end()
    assert starting.abandoned
