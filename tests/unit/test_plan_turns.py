"""Turns of plans: one writer at a time, fair, and no copy while somebody settles."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses

import pytest

from plugind.admission import InFlight, Patience
from plugind.plans import turns as plan_turns
from plugind.plans.turns import PlanTurns
from tests.support.desk import until
from tests.support.plugins import CALLER


def flight(name="r", uid=CALLER.uid):
    return InFlight(name, dataclasses.replace(CALLER, uid=uid), "", 0)


async def test_writers_of_one_plan_follow_each_other_and_callers_take_turns():
    turns, order = PlanTurns(5), []

    async def write(name, uid, plan="/p/a"):
        async with turns.write(plan, flight(name, uid), Patience()) as full:
            assert full is None
            order.append(name)
            await asyncio.sleep(0.001)
            order.append(f"end {name}")

    works = [asyncio.create_task(write(f"a{n}", 1)) for n in range(3)]
    await asyncio.sleep(0)
    works += [asyncio.create_task(write("b0", 2)), asyncio.create_task(write("other", 1, "/p/b"))]
    await asyncio.gather(*works)
    order = [each for each in order if "other" not in each]
    assert order == [f"{end}{name}" for name in ("a0", "a1", "b0", "a2") for end in ("", "end ")]
    assert len(turns) == 0
    assert not turns._of


async def test_who_waits_too_long_or_is_to_end_gets_none():
    turns = PlanTurns(0.02)
    async with turns.write("/p/a", flight(), Patience()) as full:
        assert full is None
        async with turns.write("/p/a", flight("late"), Patience()) as late:
            assert late.why == "waited"
        ended = flight("ended")
        ended.cause = "killed"
        async with turns.write("/p/a", ended, Patience()) as none:
            assert none is not None
        waiting = asyncio.create_task(enter(turns, "/p/a"))
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
    assert len(turns) == 0
    assert not turns._of


async def enter(turns, plan):
    async with turns.write(plan, flight(), Patience()):
        await asyncio.sleep(1)


async def test_one_caller_cannot_wait_for_the_plans_of_the_world(monkeypatch):
    monkeypatch.setattr(plan_turns, "MOST_WAITING_OF_ONE", 4)
    turns = PlanTurns()
    async with contextlib.AsyncExitStack() as stack:
        got = [await stack.enter_async_context(turns.write(f"/p/{n}", flight(), Patience())) for n in range(6)]
        assert [full and full.why for full in got] == [None] * 4 + ["caller"] * 2
        assert await stack.enter_async_context(turns.write("/p/9", flight(uid=9), Patience())) is None
    assert len(turns) == 0


async def test_nobody_copies_while_somebody_settles():
    turns, order = PlanTurns(), []
    copied = asyncio.Event()

    async def copy(name, until_):
        async with turns.copying("/p/a"):
            order.append(name)
            await until_.wait()
            order.append(f"end {name}")

    async def settle():
        async with turns.settling("/p/a"):
            order.append("settle")
            await asyncio.sleep(0.01)
            order.append("end settle")

    done = asyncio.Event()
    done.set()
    first = asyncio.create_task(copy("c1", copied))
    await until(lambda: order)
    settling = asyncio.create_task(settle())
    await asyncio.sleep(0)
    second = asyncio.create_task(copy("c2", done))
    other = asyncio.create_task(settle_other(turns))
    await other
    assert order == ["c1"]
    copied.set()
    await asyncio.gather(first, settling, second)
    assert order == ["c1", "end c1", "settle", "end settle", "c2", "end c2"]
    assert len(turns) == 0


async def settle_other(turns):
    async with turns.settling("/p/b"):
        pass


async def test_who_copies_or_settles_can_be_canceled_at_any_time():
    turns = PlanTurns(0.02)
    async with turns.copying("/p/a"):
        settling = asyncio.create_task(turns.settling("/p/a").__aenter__())
        await asyncio.sleep(0)
        settling.cancel()
        await asyncio.wait([settling])
        async with turns.copying("/p/a"):
            pass
    async with turns.settling("/p/a"):
        with pytest.raises(TimeoutError):
            await turns.copying("/p/a").__aenter__()
    async with turns.copying("/p/a"):
        pass
    assert len(turns) == 0
