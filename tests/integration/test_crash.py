"""kill -9 of the front at each step of a run: afterwards each execution has INTENT and OUTCOME, once."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from plugind.audit import segments
from plugind.audit.ledger import Ledger
from plugind.audit.segments import records

REPO = Path(__file__).parents[2]
STEPS = ("find", "keep", "before intent", "after intent", "load", "start", "started", "result", "after outcome")
FRONT = """
import asyncio, os, signal, sys
from pathlib import Path
sys.path.insert(0, {repo!r})
from tests.support.desk import Desk
from tests.support import fake_launcher

def die_at(step):
    if step == {step!r}:
        os.kill(os.getpid(), signal.SIGKILL)

class Ledger:
    def __init__(self, inner): self.inner, self.written = inner, 0
    def keep(self, data): die_at("keep"); return self.inner.keep(data)
    async def append(self, record):
        if record.event == "INTENT": die_at("before intent")
        index = await self.inner.append(record)
        die_at("after intent" if record.event == "INTENT" else "after outcome")
        return index

class Catalog:
    def __init__(self, inner): self.inner = inner
    def __getattr__(self, name): return getattr(self.inner, name)
    def find(self, *given): die_at("find"); return self.inner.find(*given)

class Launcher(fake_launcher.FakeLauncher):
    async def load(self, digest, read): die_at("load"); await super().load(digest, read)
    async def run(self, request, on_started=lambda: None, talk=None, parked=""):
        die_at("start")
        def started(): on_started(); die_at("started")
        result = await super().run(request, started)
        die_at("result")
        return result

async def main():
    desk = Desk(Path({folder!r}))
    desk.install()
    desk.runner._ledger, desk.runner._catalog = Ledger(desk.ledger), Catalog(desk.catalog)
    desk.runner._starting.sandbox = Launcher()
    await desk.run({{"secret": 1}})
    print("answered")

asyncio.run(main())
"""


@pytest.mark.parametrize("step", STEPS)
async def test_after_a_kill_at_any_step_the_ledger_is_whole(tmp_path, step):
    (tmp_path / "plugins").mkdir()
    code = FRONT.format(repo=str(REPO), step=step, folder=str(tmp_path))
    front = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert front.returncode == -signal.SIGKILL, front.stderr
    assert front.stdout == "", "no result without a record"
    ledger, tail = Ledger.open(tmp_path / "ledger", "dev")
    await ledger.close()
    events = [
        record
        for path in segments.segments(tmp_path / "ledger")
        for _, record in records(path)
        if "intent" in record or record["event"] == "INTENT"
    ]
    before_intent = STEPS.index(step) < STEPS.index("after intent")
    assert [record["event"] for record in events] == ([] if before_intent else ["INTENT", "OUTCOME"])
    if not before_intent:
        intent, outcome = events
        assert outcome["intent"] == intent["index"]
        assert outcome["outcome"] == ("ok" if step == "after outcome" else "unknown")
    assert json.dumps(events).count('"INTENT"') <= 1
    again, tail = Ledger.open(tmp_path / "ledger", "dev")
    await again.close()
    assert tail.open_intents == ()
