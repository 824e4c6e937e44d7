"""The launcher's own checks of sessions, against a front that was taken over: Open with what no front sends."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from plugind.model import Limits
from plugind.sandbox import channel, codec, jailspec, protocol
from plugind.sandbox.inside.runner import HEADER, REQUEST
from plugind.sandbox.launcher import MOST_IN_SETUP
from tests.escapes.attack import attack
from tests.support.bad_front import (
    DIGEST,
    NONCE,
    PROFILES,
    TIMEOUT_S,
    Front,
    limits_of,
    proper_descriptors,
    session_descriptors,
    taken_over,
    unmoved,
)
from tests.system.test_taken_over_front import DESCRIPTORS, NO_MEMFD, NO_PIPE, assert_logged, one_of

pytestmark = pytest.mark.root

NO_REQUESTS = "descriptor: expected the read end of a pipe"
OPEN = {
    **DESCRIPTORS,
    "write end": lambda _: one_of(os.pipe(), 1),
}
del OPEN["read end"]
"""What stands for no pipe of requests."""


@pytest.fixture(scope="module")
def front() -> Iterator[Front]:
    """One launcher for all that it has to survive. A proper session works before and after."""
    with taken_over() as made:
        assert made.talks()
        yield made
        assert made.talks()
        assert made.talks(tier=1)
        assert made.end() == 0


def session_ceilings(tier: int) -> Limits:
    return jailspec.session_limits(PROFILES[tier].ceilings, PROFILES[tier].session_ms)


@attack(59, "folders, devices, sockets, unsealed memfds, a write end as a session's pipe of requests", "the same check")
@pytest.mark.parametrize("kind", OPEN)
def test_no_pipe_of_requests_but_a_read_end(front: Front, tmp_path: Path, kind: str) -> None:
    with unmoved(front):
        with session_descriptors() as (descriptors, _, _):
            bad = OPEN[kind](tmp_path)
            front.start(op="open", descriptors=[*descriptors[:4], bad])
            os.close(bad)
        assert NO_REQUESTS in front.refused().detail
        assert_logged(front, f"refused start of the front: run r1: {NO_REQUESTS}")


@pytest.mark.parametrize("kind", ["folder", "stream socket", "read end", "memfd with seals 0x0", "pidfd"])
def test_what_is_wrong_in_a_run_is_wrong_in_a_session(front: Front, tmp_path: Path, kind: str) -> None:
    with unmoved(front):
        for place in range(4):
            with session_descriptors() as (descriptors, _, _):
                bad = DESCRIPTORS[kind](tmp_path)
                front.start(op="open", descriptors=[*descriptors[:place], bad, *descriptors[place + 1 :]])
                os.close(bad)
            assert (NO_PIPE if place else NO_MEMFD) in front.refused().detail


@attack(59, "a session's five descriptors in another order, for a run, or too many or too few", "the same check")
def test_right_ones_in_wrong_places(front: Front) -> None:
    with unmoved(front), session_descriptors() as (descriptors, _, requests):
        memfd, *pipes, theirs = descriptors
        for wrong in (
            [memfd, theirs, *pipes],
            [theirs, *pipes, memfd],
            [memfd, *pipes, pipes[0]],
            [memfd, *pipes, requests],
            [memfd] * 5,
            [theirs] * 5,
        ):
            front.start(op="open", descriptors=wrong)
            assert "expected" in front.refused().detail
        front.start(descriptors=[memfd, *pipes[:2], theirs])
        assert NO_PIPE in front.refused().detail
        for count in (0, 1, 4, 6, 16, 17, 64, 253):
            front.start(op="open", descriptors=(descriptors * 64)[:count])
            assert front.works()
            assert_logged(front, "expected 5 descriptors, got" if count <= 16 else "too many descriptors")


@attack(59, "limits above those of a session, and those of a session for a run", "ceilings times what a session lasts")
@pytest.mark.parametrize("tier", [1, 2])
def test_no_limit_above_the_session_s(front: Front, tier: int) -> None:
    with unmoved(front):
        for name, ceiling in session_ceilings(tier).items():
            for value in (ceiling + 1, 0, -1, 2**53 - 1):
                front.start(op="open", tier=tier, limits=limits_of(tier, **{name: value}))
                assert f"{name}: expected 1 to {ceiling} in tier {tier}, got {value}" in front.refused().detail
                assert_logged(front, f"refused start of the front: run r1: {name}: expected 1 to {ceiling}")
        longer = {
            name for name, value in session_ceilings(tier).items() if value > getattr(PROFILES[tier].ceilings, name)
        }
        assert longer == {"wall_ms", "cpu_ms"}
        for name in longer:
            front.start(tier=tier, limits=limits_of(tier, **{name: getattr(session_ceilings(tier), name)}))
            assert f"{name}: expected 1 to {getattr(PROFILES[tier].ceilings, name)} in" in front.refused().detail


def test_all_that_a_session_may_have_is_had(front: Front) -> None:
    """The ceilings themselves are no attack."""
    with unmoved(front):
        for tier in (1, 2):
            assert front.talks(tier=tier, **dict(session_ceilings(tier).items()))


@attack(59, "sessions in Tier 0, in tiers that there are not, of digests that were not loaded", "as for a run")
def test_no_tier_and_no_digest_that_it_may_not_have(front: Front) -> None:
    with unmoved(front):
        for tier, words in (
            (0, "is not in the root-owned list"),
            (3, "expected 0, 1 or 2"),
            (-1, "expected 0, 1 or 2"),
        ):
            front.start(op="open", tier=tier)
            assert words in front.refused().detail
        front.start(op="open", digest="0" * 64)
        assert front.refused().step == protocol.NOT_LOADED


def test_fields_that_an_open_does_not_have(front: Front) -> None:
    with unmoved(front):
        limits = limits_of(2)
        message = {
            "op": "open",
            "run": "r1",
            "digest": DIGEST,
            "tier": 2,
            "limits": limits,
            "environment": "",
            "network": [],
        }
        for wrong in (
            message | {"session_ms": 10**9},
            message | {"limits": limits | {"session_ms": 1}},
            message | {"op": "session"},
            {name: value for name, value in message.items() if name != "limits"},
        ):
            with session_descriptors() as (descriptors, _, _):
                front.send(wrong, descriptors)
            assert front.works()
            assert_logged(front, "refused a message of the front: ")


def test_one_run_twice_as_a_session_and_as_a_run(front: Front) -> None:
    with unmoved(front), session_descriptors() as (descriptors, result, requests):
        front.start("twice", descriptors, op="open")
        front.hear_of(protocol.Started, "twice")
        for op in ("start", "open"):
            front.start("twice", op=op)
            assert "is there already" in front.refused("twice").detail
        os.write(requests, REQUEST.pack(1) + b"7")
        assert heard(result) == HEADER.pack(NONCE, b"V", 1) + b"7", "the first one goes on"
        front.send(codec.encode(protocol.Kill("twice", "canceled")))
        assert front.hear_of(protocol.Ended, "twice").cause == "canceled"


@pytest.mark.parametrize("op", ["start", "open"])
def test_a_kill_for_too_long_an_input(front: Front, op: str) -> None:
    """The one cause that is new: of a run as well it says no more than that the front has ended it."""
    with unmoved(front), session_descriptors() as (of_session, _, _), proper_descriptors("sleep") as (of_run, _):
        front.start("late", of_session if op == "open" else of_run, op=op)
        front.hear_of(protocol.Started, "late")
        front.send({"op": "kill", "run": "late", "cause": "timeout"})
        ended = front.hear_of(protocol.Ended, "late")
        assert (ended.cause, ended.exit_code) == ("timeout", -signal.SIGKILL)
        assert front.instances() == []


@attack(59, "more sessions than there are places, while jails are being built", "places and a queue, as for runs")
def test_a_burst_of_sessions_beyond_every_place(front: Front) -> None:
    """Runs and sessions wait in one queue; what is beyond the places is refused, and none is lost."""
    places = PROFILES[2].instances
    many = 3 * places
    assert places > MOST_IN_SETUP
    with unmoved(front), session_descriptors() as (descriptors, _, requests):
        for number in range(many):
            front.start(f"b{number}", descriptors, op="open")
        answers = [front.hear_of((protocol.Refused, protocol.Started)) for _ in range(many)]  # type: ignore[arg-type]
        assert {each.run for each in answers} == {f"b{number}" for number in range(many)}
        started = [each.run for each in answers if isinstance(each, protocol.Started)]
        assert len(started) == places, "a session ends only when it is told to"
        assert all("has its 32 instances" in each.detail for each in answers if isinstance(each, protocol.Refused))
        front.start("beyond")
        assert "has its 32 instances" in front.refused("beyond").detail
        for run in started:
            front.send({"op": "kill", "run": run, "cause": "killed"})
        for _ in started:
            assert front.hear_of(protocol.Ended).cause == "killed"
        os.write(requests, b"")  # still open: it was not the end of the requests that ended them


def test_a_kill_of_one_that_waits(front: Front) -> None:
    """Its five descriptors are closed when it is dropped (`unmoved` counts them)."""
    with unmoved(front), session_descriptors() as (descriptors, _, _):
        runs = [f"w{number}" for number in range(PROFILES[2].instances)]
        for run in runs:
            front.start(run, descriptors, op="open")
        for run in runs:
            front.send({"op": "kill", "run": run, "cause": "timeout"})
        for _ in runs:
            front.hear_of((protocol.Refused, protocol.Ended))  # type: ignore[arg-type]


@attack(59, "nonsense for requests: no length, a huge one, one that is cut off", "only its own instance reads it")
@pytest.mark.parametrize(
    ("text", "exits"),
    [
        (b"", 0),
        (b"\0" * 7, 0),
        (b"\0" * 8, 0),
        (REQUEST.pack(2**64 - 1) + b"x", 0),
        (REQUEST.pack(10) + b"123", 0),
        (REQUEST.pack(3) + b"\xff{[", 0),
    ],
)
def test_nonsense_for_requests(front: Front, text: bytes, exits: int) -> None:
    with unmoved(front), session_descriptors() as (descriptors, result, requests):
        front.start("nonsense", descriptors, op="open")
        os.write(requests, text)
        front.hear_of(protocol.Started, "nonsense")
        os.dup2(result, requests)  # closes the only write end
        ended = front.hear_of(protocol.Ended, "nonsense")
        assert (ended.cause, ended.exit_code) == ("", exits)


def test_both_ends_of_one_pipe(front: Front) -> None:
    """A session that is to hear what it says: it waits until its limit, and holds nobody up."""
    with unmoved(front), session_descriptors() as (descriptors, _, _):
        reader, writer = os.pipe()
        os.write(writer, REQUEST.pack(1) + b"1")
        front.start("echo", [descriptors[0], writer, *descriptors[2:4], reader], op="open", wall_ms=500)
        channel.close([reader, writer])
        assert front.works()
        assert front.hear_of(protocol.Ended, "echo").exit_code in (0, 1, -signal.SIGKILL)


def heard(result: int) -> bytes:
    deadline = time.monotonic() + TIMEOUT_S
    while time.monotonic() < deadline:
        try:
            return os.read(result, 65536)
        except BlockingIOError:
            time.sleep(0.005)
    raise AssertionError("nothing was answered")
