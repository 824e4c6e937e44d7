"""Waiting for a place, and the caller's deadline down to the instance."""

from __future__ import annotations

import asyncio
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plugind.admission import InFlight, Patience, Places
from plugind.answers import busy_reason
from plugind.model import Caller, Outcome
from plugind.turns import MOST_WAITING_OF_ONE, Full
from tests.support.desk import PROFILES, codes, until
from tests.support.fake_launcher import forever, result

INSTANCES = PROFILES[2].instances
OTHER = Caller(3000, 3000, 3, frozenset({"caller"}))
WALL_MS = PROFILES[2].default_limits.wall_ms
LONG = 3600.0


def flight(uid=1):
    return InFlight(f"r{id(object())}", Caller(uid, uid, 1), "", 0)


async def fill(desk, count=INSTANCES):
    """Runs that take every place of the tier and do not end by themselves."""
    desk.install()
    desk.sandbox.behaviour = forever
    runs = [asyncio.create_task(desk.run(run_id=f"full{number}")) for number in range(count)]
    await until(lambda: desk.sandbox.running == count)
    return runs


def waiting(desk):
    return desk.runner.places.load()[2][2]


# --- how long a run waits --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "deadline,wall_ms,until_s",
    [
        (None, 5000, 101.0),  # as long as it always was
        (160.0, 5000, 154.0),  # so that its own time is left, and a second for the jail
        (104.0, 5000, 101.0),  # there is not time enough anyway: as always
        (100.4, 5000, 100.4),  # never longer than its caller
        (99.0, 5000, 99.0),
    ],
)
def test_patience(deadline, wall_ms, until_s):
    assert Patience(deadline, wall_ms).until(100.0, 1.0) == until_s


async def test_without_a_deadline_a_run_is_busy_after_a_second(desk):
    await fill(desk)
    began = time.monotonic()
    answer = await desk.run()
    assert time.monotonic() - began >= 1
    assert codes(answer) == ["BUSY"]
    assert answer.retry_after_ms > 0
    assert f"in {answer.retry_after_ms / 1000:g} s" in answer.reasons[0].remedy
    assert desk.events()[-1]["event"] == "DENIED"


async def test_with_a_later_deadline_it_waits_for_longer(desk):
    runs = await fill(desk)
    waits = asyncio.create_task(desk.run(deadline=time.monotonic() + LONG))
    await asyncio.sleep(1.2)
    assert not waits.done()
    desk.sandbox.behaviour = answering
    desk.runner.flights.end("full0", "canceled")
    assert (await runs[0]).outcome is Outcome.CANCELED
    assert (await waits).outcome is Outcome.OK


async def test_one_whose_deadline_passes_while_it_waits_is_not_started(desk):
    await fill(desk)
    answer = await desk.run(deadline=time.monotonic() + 0.05)
    assert codes(answer) == ["BUSY"]
    assert len(desk.sandbox.requests) == INSTANCES
    assert waiting(desk) == 0


async def test_a_crowd_of_one_caller_does_not_keep_another_out(desk):
    runs = await fill(desk)
    late = time.monotonic() + LONG
    crowd = [asyncio.create_task(desk.run(deadline=late, run_id=f"c{number}")) for number in range(100)]
    await until(lambda: waiting(desk) == 100)
    modest = asyncio.create_task(desk.run(deadline=late, caller=OTHER))
    await until(lambda: waiting(desk) == 101)
    for number in (0, 1):
        desk.runner.flights.end(f"full{number}", "canceled")
        await runs[number]
    await until(lambda: desk.sandbox.running == INSTANCES)
    assert [each.caller.uid for each in desk.runner.flights.visible(OTHER) if each.running] == [OTHER.uid]
    desk.runner.flights.end_all("killed")
    assert {answer.outcome for answer in await asyncio.gather(*crowd, modest)} == {Outcome.KILLED}


async def test_more_than_may_wait_are_turned_away_at_once(desk):
    await fill(desk)
    late = time.monotonic() + LONG
    crowd = [asyncio.create_task(desk.run(deadline=late)) for _ in range(MOST_WAITING_OF_ONE)]
    await until(lambda: waiting(desk) == MOST_WAITING_OF_ONE)
    answer = await desk.run(deadline=late)
    assert codes(answer) == ["BUSY"]
    assert "of its caller" in answer.reasons[0].actual
    assert answer.retry_after_ms > 1000 * MOST_WAITING_OF_ONE // INSTANCES
    desk.runner.flights.end_all("killed")
    await asyncio.gather(*crowd)


# --- what ends while it waits ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["canceled", "killed"])
async def test_what_is_ended_while_it_waits_ends_at_once_and_never_starts(desk, how):
    await fill(desk)
    waits = asyncio.create_task(desk.run(run_id="w", deadline=time.monotonic() + LONG))
    await until(lambda: waiting(desk) == 1)
    if how == "killed":
        await desk.kill()
    else:
        desk.runner.flights.end("w", "canceled")
    assert str((await asyncio.wait_for(waits, 5)).outcome) == how
    assert "w" not in [request.run for request in desk.sandbox.requests]
    assert waiting(desk) == 0


async def test_a_caller_that_leaves_while_it_waits_frees_its_turn(desk):
    await fill(desk)
    waits = asyncio.create_task(desk.run(run_id="w", deadline=time.monotonic() + LONG))
    await until(lambda: waiting(desk) == 1)
    waits.cancel()
    await until(lambda: len(desk.runner.flights) == INSTANCES)
    assert waiting(desk) == 0
    assert desk.events()[-1]["outcome"] == "canceled"


async def test_one_that_is_to_end_before_it_asks_does_not_wait():
    places = Places({2: 1}, wait_s=LONG)
    async with places.one(2, flight(), patience=Patience()) as place:
        assert place is None
        ended = flight()
        ended.cause = "canceled"
        async with asyncio.timeout(5), places.one(2, ended, patience=Patience()) as full:
            assert full.why == "waited"


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 12), st.integers(0, 12)), min_size=1, max_size=25))
def test_whatever_is_canceled_no_place_is_lost_or_held_by_two(crowd):
    """Each: a uid, after how many turns of the loop its task is canceled, and how many it holds its place."""

    async def scenario():
        places, inside, most = Places({2: 2}, wait_s=0.002), 0, 0

        async def one(uid, turns_held):
            nonlocal inside, most
            async with places.one(2, flight(uid), patience=Patience()) as full:
                if full is not None:
                    return
                inside += 1
                most = max(most, inside)
                try:
                    for _ in range(turns_held):
                        await asyncio.sleep(0)
                finally:
                    inside -= 1

        tasks = [asyncio.create_task(one(uid, held)) for uid, _, held in crowd]
        for turn in range(13):
            for task, (_, cancel_at, _) in zip(tasks, crowd, strict=True):
                if cancel_at == turn:
                    task.cancel()
            await asyncio.sleep(0)
        await asyncio.gather(*tasks, return_exceptions=True)
        line = places._lines[2]
        assert (inside, line.taken, line.waiting) == (0, 0, 0)
        assert most <= 2
        async with places.one(2, flight(), patience=Patience()) as full:
            assert full is None

    asyncio.run(scenario())


# --- down to the instance --------------------------------------------------------------------------------------------


async def answering(request):
    return result(output=request.input)


@pytest.mark.parametrize("left_s,most_ms", [(1.5, 1500), (LONG, WALL_MS), (None, WALL_MS)])
async def test_an_instance_has_no_more_time_than_its_caller(desk, left_s, most_ms):
    desk.install()
    answer = await desk.run(deadline=None if left_s is None else time.monotonic() + left_s)
    assert answer.outcome is Outcome.OK
    (request,) = desk.sandbox.requests
    wall_ms = request.limits.wall_ms
    assert wall_ms == most_ms if most_ms == WALL_MS else 0 < wall_ms <= most_ms
    assert answer.governance.execution_limit_ms == WALL_MS, "what was granted"
    assert desk.events()[0]["limits"]["wall_ms"] == WALL_MS


async def test_a_deadline_that_has_passed_starts_nothing(desk):
    desk.install()
    answer = await desk.run(deadline=time.monotonic() - 1)
    assert (answer.outcome, desk.sandbox.requests) == (Outcome.CANCELED, [])
    assert [record["event"] for record in desk.events()] == ["INTENT", "OUTCOME"]


@pytest.mark.parametrize(
    "left_s,outcome,detail", [(1.0, Outcome.CANCELED, "deadline passed"), (LONG, Outcome.TIMEOUT, "wall clock")]
)
async def test_the_end_at_a_deadline_is_no_timeout(desk, left_s, outcome, detail):
    desk.install()

    async def slow(request):
        return result(Outcome.TIMEOUT, detail=f"wall clock: more than {request.limits.wall_ms} ms")

    desk.sandbox.behaviour = slow
    answer = await desk.run(deadline=time.monotonic() + left_s)
    assert answer.outcome is outcome
    assert detail in answer.detail
    assert desk.events()[-1]["outcome"] == str(outcome)


async def test_what_the_plugin_did_before_the_deadline_stays_what_it_was(desk):
    desk.install()

    async def fails(request):
        return result(Outcome.OUT_OF_MEMORY)

    desk.sandbox.behaviour = fails
    assert (await desk.run(deadline=time.monotonic() + 1)).outcome is Outcome.OUT_OF_MEMORY


# --- what is told ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("why", ["waited", "caller", "line"])
def test_the_reason_says_what_it_is_and_when_to_come_again(why):
    reason = busy_reason(2, Full(why, 32, 500, 2500))
    assert (str(reason.code), reason.rule) == ("BUSY", "tier.2.instances")
    assert "500 waiting" in reason.actual
    assert "best in 2.5 s" in reason.remedy
    assert "instances in profiles/tier2.toml" in reason.remedy


async def test_the_hint_is_only_in_a_denial_for_want_of_a_place(desk):
    desk.install()
    assert (await desk.run()).retry_after_ms == 0
    assert (await desk.run(plugin="unknown")).retry_after_ms == 0
