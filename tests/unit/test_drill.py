"""A drill: what it does in which order, what it says when a step does not hold, and that nothing of it is left."""

from __future__ import annotations

import asyncio
import time

import pytest

from plugind.drill import NAME, Drill, bundle_of, version_at
from plugind.errors import AuditUnavailableError, ConflictError, StateError
from plugind.governance.database import Database
from plugind.governance.incidents import Incidents
from plugind.model import POLICY_UID, Hold, Outcome
from plugind.provenance import bundle
from tests.support import fake_launcher
from tests.support.desk import until
from tests.support.findings import anomaly, observation

STEPS = ["submitted", "started", "detected", "contained", "quarantined", "denied", "cleaned"]


class Stage:
    """A desk with a monitor that does what a test says."""

    def __init__(self, desk, folder):
        self.desk = desk
        self.database = Database(folder / "monitor.db")
        self.incidents = Incidents(self.database, lambda *_: 1, print)
        self.mode = "enforce"
        self.outcome = Outcome.VIOLATION
        self.quarantines = self.opens = True
        self.released = []
        self.release_error = None
        self.drill = self.again(5.0)
        desk.sandbox.behaviour = self.attack

    def again(self, patience_s):
        parts = (self.desk.catalog, self.desk.runner, self.incidents)
        return Drill(*parts, self.release, lambda: self.mode, patience_s)

    async def attack(self, request):
        asyncio.get_running_loop().call_later(0.005, self.notice, request.digest)
        return fake_launcher.result(self.outcome, detail="unshare")

    def notice(self, digest):
        if self.opens:
            self.incidents.about_anomaly(anomaly(seen=observation(digest=digest)), 1)
        if self.quarantines:
            self.desk.catalog.holds.set(Hold("quarantined", f"sha256:{digest}", "unshare", POLICY_UID, 1))

    async def release(self, digest, why):
        if self.release_error:
            raise self.release_error
        self.released.append((digest, why))
        holds = self.desk.catalog.holds
        await asyncio.to_thread(holds.lift, "quarantined", f"sha256:{digest}", by_uid=POLICY_UID, at_unix_ms=2, why=why)

    async def steps(self):
        return [step async for step in self.drill.steps("monthly", 42)]

    @property
    def versions(self):
        return self.desk.catalog.plugin(NAME).versions

    def nothing_is_left(self):
        return all(each.approval is None and each.state == "submitted" for each in self.versions) and not any(
            self.incidents.open_for(each.digest) or self.desk.catalog.holds.on(each) for each in self.versions
        )


@pytest.fixture
async def stage(desk, tmp_path):
    made = Stage(desk, tmp_path)
    yield made
    await made.drill.stop()
    made.database.close()


def test_its_bundle_is_valid_harmless_and_another_for_each_drill():
    one, other = (bundle.read(bundle_of(version_at(second))) for second in (1_795_975_000, 1_795_975_001))
    assert one.digest != other.digest
    assert other.sequence > one.sequence
    assert (one.manifest.name, one.manifest.version) == (NAME, "0.20786.64600")
    assert one.manifest.permissions == ()
    assert b"unshare(0)" in one.files[f"{NAME}.py"]
    later = bundle.read(bundle_of(version_at(1_795_975_000 + 86_400)))
    assert later.sequence > other.sequence


async def test_every_step_is_told_timed_and_nothing_is_left(stage):
    told = await stage.steps()
    assert [step.name for step in told] == STEPS
    assert [step.text for step in told if not step.ok] == []
    after = [step.after_us for step in told]
    assert after[:2] == [0, 0]
    assert after[-1] == 0
    assert 0 < after[2] <= after[3] <= after[4] <= after[5]
    assert stage.nothing_is_left()
    assert len(stage.released) == 1
    (incident,) = stage.incidents.list(closed=True)
    assert incident.closing == "drill by uid 42: monthly"
    history = [(each.action, each.by_uid) for each in stage.desk.catalog.history(NAME)]
    assert history == [(action, POLICY_UID) for action in ("submit", "approve", "activate", "reject")]
    assert [record["event"] for record in stage.desk.events()] == ["INTENT", "OUTCOME", "DENIED"]


async def test_two_drills_have_two_versions(stage):
    await stage.steps()
    assert all(step.ok for step in await stage.steps())
    assert len({each.digest for each in stage.versions}) == 2
    assert stage.nothing_is_left()


def failed(told):
    return {step.name: step.text for step in told if not step.ok}


async def test_a_monitor_that_only_observes_is_said_to(stage):
    stage.mode, stage.quarantines, stage.opens = "observe", False, False
    told = await stage.steps()
    assert [step.name for step in told] == [name for name in STEPS if name != "denied"]
    assert failed(told) == {
        "quarantined": 'the monitor only observes: [monitor] mode = "observe" in the profile of Tier 2; nothing is held'
    }
    assert stage.nothing_is_left()


async def test_no_quarantine_in_time_is_a_failure(stage):
    stage.drill, stage.quarantines = stage.again(0.05), False
    told = await stage.steps()
    assert failed(told).keys() == {"quarantined"}
    assert told[-1] == told[-1].__class__("cleaned", True, told[-1].text)
    assert stage.nothing_is_left()


async def test_a_call_that_was_let_through_is_a_failure(stage):
    stage.outcome, stage.quarantines = Outcome.TIMEOUT, False
    stage.drill = stage.again(0.01)
    told = await stage.steps()
    assert failed(told)["detected"] == "the run ended as timeout: unshare"
    assert stage.nothing_is_left()


async def test_a_quarantine_without_an_incident_is_a_failure(stage):
    stage.opens = False
    told = await stage.steps()
    assert failed(told) == {"quarantined": "its digest is held, but no incident was opened"}
    assert [step.name for step in told] == STEPS
    assert stage.nothing_is_left()


async def test_where_nothing_may_run_it_says_so_and_cleans_up(stage):
    await stage.desk.kill("all")
    told = await stage.steps()
    assert [step.name for step in told] == ["submitted", "started", "cleaned"]
    assert "KILLED" in failed(told)["started"]
    assert stage.versions[0].approval is None


async def test_one_drill_at_a_time(stage):
    first = stage.drill.steps("one", 1)
    assert (await anext(first)).name == "submitted"
    with pytest.raises(ConflictError, match="none under way"):
        await anext(stage.drill.steps("two", 2))
    assert [step.name async for step in first] == STEPS[1:]


async def test_whoever_asked_may_go_away_and_it_cleans_up_all_the_same(stage):
    steps = stage.drill.steps("one", 1)
    await anext(steps)
    await steps.aclose()
    await until(stage.drill._task.done)
    assert stage.nothing_is_left()
    assert [each.action for each in stage.desk.catalog.history(NAME)][-1] == "reject"


async def test_a_daemon_that_stops_ends_it_and_cleans_up(stage):
    stage.desk.sandbox.behaviour = fake_launcher.forever
    steps = stage.drill.steps("one", 1)
    await anext(steps)
    await until(lambda: stage.desk.sandbox.running)
    await stage.drill.stop()
    assert stage.nothing_is_left()
    assert [each.action for each in stage.desk.catalog.history(NAME)][-1] == "reject"
    await until(lambda: not stage.desk.sandbox.running)


async def test_what_a_cut_off_drill_left_is_cleaned_up_at_the_next_start(stage):
    catalog = stage.desk.catalog
    record = catalog.submit(bundle_of("0.1.2"), b"", (), by_uid=POLICY_UID)
    stage.drill._activate(record, "drill by uid 1: x")
    stage.notice(record.digest)
    await stage.again(1.0).sweep()
    assert stage.nothing_is_left()
    before = len(catalog.history(NAME))
    await stage.again(1.0).sweep()
    assert len(catalog.history(NAME)) == before


async def test_a_plugin_of_that_name_that_is_somebodys_is_left_alone(stage):
    stage.desk.install(NAME)
    with pytest.raises(ConflictError, match=f"{NAME}@1.0.0, which uid 1"):
        await stage.steps()
    await stage.drill.sweep()
    assert stage.desk.catalog.plugin(NAME).active.manifest.version == "1.0.0"
    assert len(stage.versions) == 1


async def test_a_release_that_fails_is_said_and_nothing_can_run(stage):
    stage.release_error = StateError("the database is damaged")
    told = await stage.steps()
    assert "the database is damaged" in failed(told)["cleaned"]
    assert stage.versions[0].approval is None
    assert stage.incidents.list() == []


async def test_what_cannot_be_recorded_is_told_and_leaves_nothing_active(stage):
    def full(change):
        if change.action != "submit":
            raise AuditUnavailableError("the disk is full")

    stage.desk.catalog._registry._database._on_change = full
    told = await stage.steps()
    assert [(step.name, step.ok) for step in told] == [("submitted", False), ("cleaned", False)]
    assert stage.versions[0].state == "submitted"


async def test_times_are_of_this_machine_and_not_before_the_act(stage):
    began = time.perf_counter_ns()
    told = await stage.steps()
    whole_us = (time.perf_counter_ns() - began) // 1000
    assert all(step.after_us <= whole_us for step in told)
