"""What the monitor finds leads to what it leads to, also when that fails at first."""

from __future__ import annotations

import asyncio

import pytest

from plugind.errors import StateError
from plugind.governance.database import Database
from plugind.governance.monitor import Monitor
from plugind.model import Outcome, Violation
from plugind.watch import Actions, Watch, thresholds
from tests.support.desk import PROFILES, Desk, codes, until
from tests.support.fake_launcher import result
from tests.support.observed import CPUS

DANGEROUS = Violation("syscall", "unshare", 1, "no plugin may make it: the run ended")


async def hostile(request):
    return result(Outcome.VIOLATION, violations=(DANGEROUS,))


class Watched:
    """A desk with a watch over its ledger, whose actions fail while the test says so."""

    def __init__(self, folder):
        self.desk = Desk(folder)
        self.desk.install()
        self.desk.sandbox.behaviour = hostile
        self.folder = folder
        self.full = False
        self.held = []
        self.noticed = []
        self.open()

    def open(self):
        self.database = Database(self.folder / "monitor.db")
        catalog = self.desk.catalog
        self.monitor = Monitor(
            self.database, thresholds(PROFILES, catalog.quarantines.probation, only_observe=False), CPUS
        )
        self.watch = Watch(self.monitor, self.desk.ledger, self.folder / "ledger", catalog, PROFILES)

    async def start(self):
        await self.watch.start(Actions(self.put, self.incident, self.notice, lambda seconds: None, lambda record: None))

    def notice(self, anomaly):
        self.noticed.append(anomaly.trigger)

    async def put(self, hold):
        if self.full:
            raise StateError("the disk is full")
        await asyncio.to_thread(self.desk.catalog.quarantines.put, hold)
        self.held.append(hold)

    async def incident(self, anomaly):
        assert anomaly.trigger == "dangerous_syscall"


@pytest.fixture
async def watched(tmp_path):
    watched = Watched(tmp_path)
    await watched.start()
    yield watched
    await watched.desk.runner.stop(1)
    await watched.watch.stop()
    await watched.desk.ledger.close()
    watched.database.close()


async def test_what_is_found_is_acted_on_once(watched):
    assert (await watched.desk.run()).outcome is Outcome.VIOLATION
    await until(lambda: watched.held)
    assert codes(await watched.desk.run()) == ["QUARANTINED"]
    assert codes(await watched.desk.run()) == ["QUARANTINED"]
    await asyncio.sleep(0.05)
    assert (len(watched.held), watched.noticed) == (1, ["dangerous_syscall"])


async def test_a_quarantine_that_failed_is_tried_again_and_until_then_the_monitor_is_lost(watched):
    watched.full = True
    await watched.desk.run()
    await until(lambda: watched.watch.lost)
    assert watched.held == []
    assert [each.rule for each in watched.watch.reasons(watched.desk.registry.version("echo", "1.0.0"), 2)] == [
        "tier.2.monitor.required"
    ]
    keeper = asyncio.create_task(watched.watch.keep())
    await asyncio.sleep(1.3)
    assert watched.watch.lost, "what failed once and fails again is not forgotten"
    watched.full = False
    await until(lambda: watched.held)
    await until(lambda: not watched.watch.lost)
    keeper.cancel()
    assert codes(await watched.desk.run()) == ["QUARANTINED"]
    assert watched.noticed == ["dangerous_syscall"]


async def test_what_has_not_led_to_anything_yet_is_found_again_by_the_next_daemon(watched):
    watched.full = True
    await watched.desk.run()
    await until(lambda: watched.watch.lost)
    await watched.watch.stop()
    watched.database.close()
    watched.open()
    watched.full = False
    assert watched.monitor.next_index == 0, "nothing was written over what is still to do"
    await watched.start()
    await until(lambda: watched.held)
    assert codes(await watched.desk.run()) == ["QUARANTINED"]


async def test_a_ledger_that_cannot_be_understood_loses_the_monitor_and_not_the_daemon(watched, tmp_path):
    watched.database.close()
    watched.open()
    watched.watch = Watch(watched.monitor, watched.desk.ledger, tmp_path / "nowhere", watched.desk.catalog, PROFILES)
    (tmp_path / "nowhere").mkdir()
    (tmp_path / "nowhere" / "000000000000.jsonl").write_bytes(b"no record\n" * 3)
    await watched.desk.run()
    await watched.start()
    assert watched.watch.lost
    keeper = asyncio.create_task(watched.watch.keep())
    await asyncio.sleep(1.2)
    assert not keeper.done(), "it goes on trying"
    keeper.cancel()
