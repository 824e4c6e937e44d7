"""Idempotency keys: nothing runs twice, and nobody gets another one's answer."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from plugind import repeats
from plugind.answers import Governance, RunAnswer, RunRequest
from plugind.batch import Column, ColumnAnswer, ItemError
from plugind.errors import ConflictError
from plugind.model import Caller, Code, Outcome, PluginError, Reason
from plugind.repeats import Repeats
from tests.support.plugins import CALLER

REQUEST = RunRequest(caller=CALLER, plugin="echo", version="", input=b"1")


class Runs:
    def __init__(self):
        self.begun, self.canceled = [], 0
        self.go = asyncio.Event()
        self.go.set()
        self.outcome: Outcome | None = Outcome.OK
        self.items = ()

    async def run(self, request):
        self.begun.append(request)
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.canceled += 1
            raise
        if self.outcome is None:
            return RunAnswer("r", "1", Governance(), reasons=(Reason(Code.BUSY, "x"),))
        return RunAnswer(
            f"r{len(self.begun)}",
            "1",
            Governance(),
            outcome=self.outcome,
            output_json=request.input,
            items=self.items,
        )


@pytest.fixture
async def runs():
    return Runs()


async def test_the_same_again_gives_the_same_and_runs_once(runs):
    again = Repeats(runs)
    first = await again.run(REQUEST, "k")
    assert await again.run(REQUEST, "k") == first
    assert await again.run(replace(REQUEST, run_id="another"), "k") == first
    assert await again.run(replace(REQUEST, deadline=5.0), "k") == first
    assert len(runs.begun) == 1
    assert await again.run(REQUEST, "other") != first


async def test_whoever_came_first_does_not_bound_those_who_join_by_its_deadline(runs):
    await Repeats(runs).run(replace(REQUEST, deadline=5.0), "k")
    assert runs.begun[0].deadline is None


async def test_two_at_once_share_one_run(runs):
    again = Repeats(runs)
    runs.go.clear()
    both = [asyncio.ensure_future(again.run(REQUEST, "k")) for _ in range(2)]
    await asyncio.sleep(0)
    runs.go.set()
    one, two = await asyncio.gather(*both)
    assert one == two
    assert len(runs.begun) == 1


@pytest.mark.parametrize(
    "other", [{"input": b"2"}, {"plugin": "x"}, {"stage": "s"}, {"plan_id": "p"}, {"timeout_ms": 5}, {"mode": "map"}]
)
async def test_another_request_under_the_key_is_refused(runs, other):
    again = Repeats(runs)
    await again.run(REQUEST, "k")
    with pytest.raises(ConflictError, match="belongs to another request"):
        await again.run(replace(REQUEST, **other), "k")
    assert len(runs.begun) == 1


async def test_keys_are_each_callers_own(runs):
    again = Repeats(runs)
    first = await again.run(REQUEST, "k")
    other = await again.run(replace(REQUEST, caller=Caller(7, 7, 7), input=b"2"), "k")
    assert (first.output_json, other.output_json) == (b"1", b"2")


async def test_a_caller_that_was_started_anew_asks_for_the_same(runs):
    """A key is for whoever does not know whether the first request got through: a new process, above all."""
    again = Repeats(runs)
    roles = frozenset({"caller", "operator", "approver", "admin"})
    first = await again.run(replace(REQUEST, caller=Caller(7, 7, 100, roles)), "k")
    assert await again.run(replace(REQUEST, caller=Caller(7, 7, 200, frozenset(sorted(roles)))), "k") == first
    with pytest.raises(ConflictError):
        await again.run(replace(REQUEST, caller=Caller(7, 7, 200, frozenset({"caller"}))), "k")
    assert len(runs.begun) == 1


@pytest.mark.parametrize("outcome", [None, Outcome.CANCELED, Outcome.KILLED, Outcome.FAULT, Outcome.UNKNOWN])
async def test_what_did_not_come_to_an_end_of_its_own_runs_again(runs, outcome):
    again = Repeats(runs)
    runs.outcome = outcome
    await again.run(REQUEST, "k")
    runs.outcome = Outcome.OK
    assert (await again.run(REQUEST, "k")).outcome is Outcome.OK
    assert len(runs.begun) == 2


@pytest.mark.parametrize("outcome", [Outcome.FAILED, Outcome.TIMEOUT, Outcome.OUTPUT_INVALID])
async def test_a_bad_end_of_its_own_is_an_answer_too(runs, outcome):
    again = Repeats(runs)
    runs.outcome = outcome
    await again.run(REQUEST, "k")
    await again.run(REQUEST, "k")
    assert len(runs.begun) == 1


async def test_it_is_canceled_when_the_last_one_who_waits_is_gone(runs):
    again = Repeats(runs)
    runs.go.clear()
    one, two = (asyncio.ensure_future(again.run(REQUEST, "k")) for _ in range(2))
    await asyncio.sleep(0)
    one.cancel()
    await asyncio.wait([one])
    assert runs.canceled == 0
    two.cancel()
    await asyncio.wait([two])
    await asyncio.sleep(0)
    assert runs.canceled == 1
    runs.go.set()
    assert (await again.run(REQUEST, "k")).outcome is Outcome.OK
    assert len(runs.begun) == 2


async def test_a_fault_is_raised_and_not_kept(runs):
    class Broken(Runs):
        async def run(self, request):
            self.begun.append(request)
            raise ConflictError("run_id: in flight")

    broken = Broken()
    again = Repeats(broken)
    for _ in range(2):
        with pytest.raises(ConflictError, match="in flight"):
            await again.run(REQUEST, "k")
    assert len(broken.begun) == 2


async def test_the_oldest_go_when_there_are_too_many_or_too_much(runs, monkeypatch):
    again = Repeats(runs)
    monkeypatch.setattr(repeats, "MOST_KEYS", 3)
    for number in range(5):
        await again.run(REQUEST, f"k{number}")
    await again.run(REQUEST, "k4")
    assert len(runs.begun) == 5
    await again.run(REQUEST, "k0")
    assert len(runs.begun) == 6
    monkeypatch.setattr(repeats, "MOST_BYTES", 0)
    await again.run(REQUEST, "big")
    await asyncio.sleep(0)
    assert (len(again._known), again._size_bytes) == (0, 0)


async def test_what_came_of_the_items_of_a_map_counts_as_well(runs, monkeypatch):
    """An error of a row is many times what it was in the batch."""
    again = Repeats(runs)
    monkeypatch.setattr(repeats, "MOST_BYTES", 1_000_000)
    failed = ItemError(raised=PluginError("E", "", ""))
    runs.items = (ColumnAnswer(Column("values", b"[]"), tuple((row, failed) for row in range(3000))),)
    await again.run(REQUEST, "big")
    await asyncio.sleep(0)
    assert len(again._known) == 0
    runs.items = runs.items[0].errors[0][1:]
    await again.run(REQUEST, "small")
    await asyncio.sleep(0)
    assert len(again._known) == 1


async def test_a_key_lapses(runs, monkeypatch):
    again = Repeats(runs)
    await again.run(REQUEST, "k")
    monkeypatch.setattr(repeats, "KEPT_S", -1.0)
    await again.run(replace(REQUEST, input=b"2"), "k")
    assert len(runs.begun) == 2
