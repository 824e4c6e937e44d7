"""Runs with a network, as the launcher sees them: whom it asks, what it waits for, and what goes first at a kill."""

from __future__ import annotations

import select

import pytest

from plugind.addresses import Endpoint
from plugind.model import NetworkUse, Violation, Wanted
from plugind.sandbox import protocol
from plugind.sandbox.gate import MOST_PEERS
from plugind.sandbox.network.words import Caps, Refusal
from tests.unit.test_launcher import DIGEST, PROFILES, World, wait_for, works, world

__all__ = ["world"]

LITERAL = Wanted("8.8.8.8", 443, "tcp")
NAME = Wanted("api.example.org", 443, "tcp")
TAKEN = Endpoint("8.8.8.8", "tcp", 443)


def keeper(world: World):
    wait_for(lambda: world.means.keepers)
    return world.means.keepers[-1]


def resolver(world: World):
    wait_for(lambda: world.means.resolvers)
    return world.means.resolvers[-1]


def begin(world: World, wanted: Wanted = LITERAL, run: str = "r1"):
    """A run with a network that has begun; its order."""
    world.ask(run, 1, network=(wanted,))
    if wanted is NAME:
        wait_for(lambda: run in dict(resolver(world).asked))
        resolver(world).answer(run, api_example_org=["8.8.8.8"])
    wait_for(lambda: any(call[:2] == ("take", run) for call in keeper(world).calls))
    keeper(world).give(run)
    order, control = world.order(1, more=1)
    world.greet(control)
    assert control.recv(16) == b"go"
    world.ready(control)
    assert world.hear(protocol.Started).run == run
    return order


def test_a_run_without_a_network_asks_nobody(world) -> None:
    world.run(tier=1)
    assert (world.means.keepers, world.means.resolvers) == ([], [])
    world.exited(tier=1)
    assert world.hear(protocol.Ended).network == NetworkUse()


def test_a_run_waits_for_its_namespace_and_its_end_for_what_was_counted(world) -> None:
    order = begin(world)
    caps = Caps(PROFILES[1].network_bytes_per_second, PROFILES[1].network_connections)
    assert keeper(world).calls == [("take", "r1", "tier 1", DIGEST, (TAKEN,), caps)]
    assert order["network"] is True
    steps = dict(order["steps"])
    assert steps["network"] == {}
    assert "8.8.8.8" not in steps["hosts"]["text"], "it has no name"
    world.exited(tier=1)
    wait_for(lambda: keeper(world).calls[-1] == ("release", "r1"))
    assert "remove" in world.base.groups["r1"].calls, "nothing of it is left"
    assert select.select([world.front], [], [], 0.05)[0] == [], "and what it sent is not known yet"
    keeper(world).used("r1", 10, 20, 2, refused=(Refusal("9.9.9.9", "udp", 53, 4),), refused_others=3)
    ended = world.hear(protocol.Ended)
    assert (ended.cause, ended.network) == ("", NetworkUse(10, 20, 2))
    assert ended.violations == (
        Violation("network", "9.9.9.9:53/udp", 4, "refused: not approved"),
        Violation("network", "", 3, "refused: other peers"),
    )
    assert works(world, 1)


def test_names_are_resolved_checked_and_in_the_hosts_file(world) -> None:
    order = begin(world, NAME)
    assert resolver(world).asked == [("r1", ("api.example.org",))]
    assert keeper(world).calls[0][4] == (TAKEN,)
    assert "8.8.8.8 api.example.org\n" in dict(order["steps"])["hosts"]["text"].replace("\t", " ")


@pytest.mark.parametrize(
    ("answer", "step", "told"),
    [
        (["169.254.169.254"], "network.addresses", "169.254.169.254"),
        (["8.8.8.8", "10.0.0.1"], "network.addresses", "10.0.0.1"),
        (["::ffff:10.0.0.1"], "network.addresses", "10.0.0.1"),
        (None, "network.names", "api.example.org: no such name (NXDOMAIN)"),
    ],
)
def test_a_name_that_leads_nowhere_good_refuses_the_run(world, answer, step, told) -> None:
    world.ask(tier=1, network=(NAME,))
    wait_for(lambda: resolver(world).asked)
    if answer is None:
        resolver(world).fail("r1", "api.example.org", "no such name (NXDOMAIN)")
    else:
        resolver(world).answer("r1", api_example_org=answer)
    refused = world.hear(protocol.Refused)
    assert refused.step == step
    assert told in refused.detail
    assert world.means.keepers == []
    assert works(world, 1)


@pytest.mark.parametrize(
    ("tier", "network", "told"),
    [
        (2, (LITERAL,), "network: expected none in tier 2, got some"),
        (3, (LITERAL,), "network: expected none in tier 3, got some"),
        (1, (Wanted("8.8.8.8", 0, "tcp"),), "port: expected 1 to 65535, got 0"),
        (1, (Wanted("8.8.8.8", 2**16, "tcp"),), "port: expected 1 to 65535"),
        (1, (Wanted("8.8.8.8\n1.1.1.1 bank.example", 1, "tcp"),), "expected a name or an address"),
        (1, (Wanted("a b", 1, "tcp"),), "expected a name or an address"),
        (1, (Wanted("", 1, "tcp"),), "expected a name or an address"),
        (1, (LITERAL,) * (MOST_PEERS + 1), f"expected at most {MOST_PEERS} peers"),
    ],
)
def test_what_no_front_in_its_right_mind_asks_for(world, tier, network, told) -> None:
    world.ask(tier=tier, network=network)
    assert told in world.hear(protocol.Refused).detail
    assert (world.means.keepers, world.means.resolvers) == ([], [])
    assert works(world, 1)


def test_the_same_run_twice_changes_nothing_for_the_one_that_is_there(world) -> None:
    begin(world)
    world.ask(tier=1, network=(LITERAL,))
    assert "there already" in world.hear(protocol.Refused).detail
    world.say(protocol.Kill("r1", "killed"))
    wait_for(lambda: ("cut", 7) in keeper(world).calls)
    world.exited(tier=1, exit_code=-9)
    wait_for(lambda: keeper(world).calls[-1] == ("release", "r1"))
    keeper(world).used("r1", 5)
    assert world.hear(protocol.Ended).network.sent_bytes == 5
    assert works(world, 1)


def test_a_kill_cuts_the_network_before_it_kills(world) -> None:
    begin(world)
    group = world.base.groups["r1"]
    before = len(group.calls)
    cut = keeper(world).cut
    keeper(world).cut = lambda ifindex: (cut(ifindex), group.calls.append("cut"))
    world.say(protocol.Kill("r1", "killed"))
    wait_for(lambda: "kill" in group.calls[before:])
    assert group.calls[before:][:2] == ["cut", "kill"]
    assert ("cut", 7) in keeper(world).calls
    world.exited(tier=1, exit_code=-9)
    wait_for(lambda: keeper(world).calls[-1] == ("release", "r1"))
    keeper(world).used("r1")
    assert world.hear(protocol.Ended).cause == "killed"


@pytest.mark.parametrize("asked", ["names", "a namespace"])
def test_a_kill_of_one_that_waits_for_its_network(world, asked) -> None:
    world.ask(tier=1, network=(NAME if asked == "names" else LITERAL,))
    if asked == "names":
        wait_for(lambda: resolver(world).asked)
    else:
        wait_for(lambda: keeper(world).calls)
    world.say(protocol.Kill("r1", "canceled"))
    assert "canceled before its jail was begun" in world.hear(protocol.Refused).detail
    if asked == "names":
        resolver(world).answer("r1", api_example_org=["8.8.8.8"])
    else:
        wait_for(lambda: keeper(world).calls[-1] == ("release", "r1"))
        keeper(world).give("r1")  # these two crossed
        keeper(world).used("r1")
    assert works(world, 1)


def test_a_namespace_that_cannot_be_had_refuses_the_run(world) -> None:
    world.ask(tier=1, network=(LITERAL,))
    wait_for(lambda: keeper(world).calls)
    keeper(world).fail("r1", "no more than 64 at one time")
    refused = world.hear(protocol.Refused)
    assert (refused.step, refused.detail) == ("network", "no more than 64 at one time")
    assert works(world, 1)


@pytest.mark.parametrize("broken", ["keeper", "resolver"])
def test_a_process_that_cannot_start_refuses_the_run_and_is_tried_again(world, broken) -> None:
    world.means.broken.add(broken)
    for _ in range(2):
        world.ask(tier=1, network=(NAME,))
        if broken == "keeper":
            wait_for(lambda: resolver(world).asked)
            resolver(world).answer("r1", api_example_org=["8.8.8.8"])
            resolver(world).asked.clear()
        assert world.hear(protocol.Refused).step.startswith("network")
    world.means.broken.clear()
    begin(world, NAME, "r2")


def test_without_its_keeper_a_network_is_gone_and_the_run_with_it(world) -> None:
    begin(world)
    world.ask("waits", 1, network=(LITERAL,))
    wait_for(lambda: len(keeper(world).calls) == 2)
    keeper(world).die()
    assert world.hear(protocol.Refused).run == "waits"
    wait_for(lambda: "kill" in world.base.groups["r1"].calls)
    world.exited(tier=1, exit_code=-9)
    assert world.hear(protocol.Ended).cause == "fault"
    assert len(world.means.keepers) == 1
    begin(world, run="r2")
    assert len(world.means.keepers) == 2


def test_a_keeper_that_dies_before_it_has_counted_holds_no_answer_up(world) -> None:
    begin(world)
    world.exited(tier=1)
    wait_for(lambda: keeper(world).calls[-1] == ("release", "r1"))
    keeper(world).die()
    ended = world.hear(protocol.Ended)
    assert (ended.cause, ended.network) == ("", NetworkUse())


def test_without_its_resolver_who_waits_for_names_is_refused_and_others_run_on(world) -> None:
    begin(world)
    world.ask("waits", 1, network=(NAME,))
    wait_for(lambda: resolver(world).asked)
    resolver(world).die()
    refused = world.hear(protocol.Refused)
    assert (refused.run, refused.step) == ("waits", "network.names")
    assert "kill" not in world.base.groups["r1"].calls
    begin(world, NAME, "r2")


def test_with_its_template_what_was_made_for_it_is_forgotten(world) -> None:
    begin(world)
    world.ask("waits", 1, network=(LITERAL,))
    wait_for(lambda: len(keeper(world).calls) == 2)
    world.zygote(1).zygote.close()
    seen = {world.hear(protocol.Refused).run}
    wait_for(lambda: ("release", "r1") in keeper(world).calls)
    keeper(world).used("r1")
    assert world.hear(protocol.Ended).run == "r1"
    assert seen == {"waits"}
    assert ("forget", "tier 1") in keeper(world).calls


def test_words_about_runs_that_are_not_there_are_passed_over(world) -> None:
    begin(world)
    keeper(world).give("nobody")
    keeper(world).give("r1")  # a second time
    keeper(world).used("nobody")
    keeper(world).used("r1")  # before it has ended
    keeper(world).fail("nobody", "what?")
    assert works(world, 1)
    world.exited(tier=1)
    wait_for(lambda: keeper(world).calls[-1] == ("release", "r1"))
    keeper(world).used("r1", 5)
    assert world.hear(protocol.Ended).network.sent_bytes == 5
