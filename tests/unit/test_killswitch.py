"""The kill switch with made-up runs: what comes first, and what becomes of a hold that cannot be written."""

from __future__ import annotations

import asyncio
import threading

import pytest

from plugind.errors import StateError
from plugind.governance.killswitch import KillSwitch
from plugind.model import Hold

HOLD = Hold("killed", "plan:p", "test", 1, 1)


class Runs:
    """Runs that end when they are told to; `told` is what happened, in order."""

    def __init__(self, told, names=()):
        self.told, self.names = told, list(names)
        self.gone = True

    def end_matching(self, target, cause):
        self.told.append(f"end {target} {cause}")
        return self.names

    async def wait_gone(self, runs, timeout_s):
        self.told.append("gone")
        return [] if self.gone else list(runs)


@pytest.mark.parametrize("announced", [True, False])
async def test_processes_wait_for_no_disk_where_the_hold_can_be_announced(announced):
    told = []
    ready = threading.Event()

    def set_hold(hold):
        assert ready.wait(5) is True
        told.append("durable")
        return hold

    runs = Runs(told, ["r1", "r2"])
    announce = (lambda hold: told.append(f"announced {hold.target}")) if announced else None
    kill = asyncio.create_task(KillSwitch(set_hold, runs, Runs(told), announce).kill(HOLD))
    await asyncio.sleep(0.02)
    ended = ["end plan:p killed", "end plan:p killed", "gone", "gone"]
    assert told == (["announced plan:p", *ended] if announced else [])
    assert not kill.done()
    ready.set()
    killed = await kill
    assert told == (["announced plan:p", *ended, "durable"] if announced else ["durable", *ended])
    assert (killed.hold, killed.ended_runs, killed.unconfirmed_runs) == (HOLD, 2, 0)


async def test_what_cannot_be_made_durable_has_ended_all_the_same_and_is_told():
    told = []

    def set_hold(hold):
        raise StateError("registry.db: database or disk is full")

    kills = KillSwitch(set_hold, Runs(told, ["r1"]), None, lambda hold: told.append("announced"))
    with pytest.raises(
        StateError, match=r"^plan:p is killed, but only until this daemon ends: .*disk is full; make room"
    ):
        await kills.kill(HOLD)
    assert told == ["announced", "end plan:p killed", "gone"]


async def test_those_that_are_not_seen_to_go_are_counted_parked_ones_too():
    runs, parked = Runs([], ["r1", "r2"]), Runs([], ["import-1"])
    runs.gone = parked.gone = False
    killed = await KillSwitch(lambda hold: hold, runs, parked).kill(HOLD)
    assert (killed.ended_runs, killed.unconfirmed_runs) == (2, 3)
