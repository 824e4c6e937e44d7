"""kill -9 of launcher, init or zygote at each step of a run, on the real kernel: every INTENT has its one OUTCOME."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest

from plugind.model import Outcome
from tests.support.desk import Desk, codes
from tests.support.jail import assert_gone_within_50_ms, descendants, jail

pytestmark = pytest.mark.root
STEPS = ("before intent", "after intent", "load", "start", "started", "result", "after outcome")


class Killer:
    """Kills its victim the first time that its step is reached."""

    def __init__(self, step: str, victim: str, launcher_pid: int) -> None:
        self.step, self.victim, self.launcher_pid = step, victim, launcher_pid
        self.below: dict[int, str] = {}

    def at(self, step: str) -> None:
        if step != self.step or self.below:
            return
        self.below = descendants(self.launcher_pid)
        pids = [pid for pid, name in self.below.items() if name == self.victim]
        for pid in [self.launcher_pid] if self.victim == "launcher" else pids:
            os.kill(pid, signal.SIGKILL)


class Ledger:
    """The real one, with the killer looking on."""

    def __init__(self, inner, killer):
        self.inner, self.killer = inner, killer

    def keep(self, data):
        return self.inner.keep(data)

    async def append(self, record):
        if record.event == "INTENT":
            self.killer.at("before intent")
        index = await self.inner.append(record)
        self.killer.at("after intent" if record.event == "INTENT" else "after outcome")
        return index


class Sandbox:
    """The real one, with the killer looking on."""

    def __init__(self, inner, killer):
        self.inner, self.killer = inner, killer

    async def load(self, digest, read):
        self.killer.at("load")
        await self.inner.load(digest, read)

    async def run(self, request, on_started=lambda: None, talk=None, parked=""):
        self.killer.at("start")

        def started():
            on_started()
            self.killer.at("started")

        result = await self.inner.run(request, started, talk)
        self.killer.at("result")
        return result


@pytest.mark.parametrize("victim", ["launcher", "plugind-init", "plugind-zygote"])
@pytest.mark.parametrize("step", STEPS)
async def test_a_crash_at_any_step_leaves_the_ledger_whole_and_no_instance(
    tmp_path: Path, step: str, victim: str
) -> None:
    (tmp_path / "plugins").mkdir()
    desk = Desk(tmp_path)
    desk.install(code="import time\ndef run(payload, context):\n    time.sleep(0.3)\n    return payload\n")
    async with jail() as box:
        killer = Killer(step, victim, box.launcher_pid)
        desk.runner._ledger = Ledger(desk.ledger, killer)
        desk.runner._starting.sandbox = Sandbox(box.client, killer)
        answer = await asyncio.wait_for(desk.run(7), 20)
        assert killer.below, "the step was reached"
        assert_gone_within_50_ms(killer.below)
        intents = [record for record in desk.events() if record["event"] == "INTENT"]
        ends = [record for record in desk.events() if record["event"] != "INTENT"]
        assert [record["index"] for record in intents] == [record["intent"] for record in ends]
        assert len(intents) == 1
        if answer.outcome is Outcome.OK:
            assert (answer.output_json, ends[0]["outcome"]) == (b"7", "ok")
        elif answer.outcome is None:
            assert codes(answer) == ["ISOLATION_UNAVAILABLE"]
            assert ends[0]["event"] == "DENIED"
        else:
            assert answer.outcome is Outcome.FAULT
            assert ends[0]["outcome"] == "fault"
        if step in ("result", "after outcome"):
            assert answer.outcome is Outcome.OK
        if step == "started":
            assert answer.outcome is Outcome.FAULT
    await desk.ledger.close()
    desk.catalog.close()
