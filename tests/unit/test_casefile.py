"""What is put together of a version: one timeline out of history, ledger, anomalies and incident."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import time

import pytest

from plugind import casefile
from plugind.audit import reading
from plugind.casefile import Casefile
from plugind.errors import NotFoundError
from plugind.governance.database import Database
from plugind.governance.incidents import NO_RECORD, About, Event, Incidents
from plugind.model import Hold, Outcome, Violation
from plugind.registry.database import Registry
from plugind.trail import Trail
from tests.support import fake_launcher, plugins
from tests.support.desk import Desk
from tests.support.findings import anomaly, observation

REFUSED = Violation("syscall", "unshare", 1, "refused, and the run was ended")


class Scene(Desk):
    """A desk whose changes are in its ledger, with incidents and a casefile."""

    def __init__(self, folder):
        super().__init__(folder)
        self.catalog.close()
        trail = Trail(self.ledger)
        self.catalog._registry = Registry(folder / "r.db", trail.changed, print)
        self.catalog.holds = self.catalog._registry.holds
        self.database = Database(folder / "monitor.db")
        self.incidents = Incidents(self.database, trail.incident, print)
        self.anomalies = []
        self.casefile = Casefile(
            self.catalog,
            folder / "ledger",
            lambda: self.ledger.size,
            self.incidents,
            lambda digest, limit: [each for each in self.anomalies if each.seen.digest == digest][:limit],
        )

    async def put(self, name="echo", version="1.0.0"):
        return await asyncio.to_thread(self._put, name, version)

    def _put(self, name, version):
        self.catalog.submit(plugins.built(self.folder / "plugins", name, version), b"", [], by_uid=1)
        approval = dataclasses.replace(plugins.approval(), at_unix_ms=time.time_ns() // 1_000_000)
        self.catalog.approve(name, version, approval, approvers=1)
        return self.catalog.activate(name, version, by_uid=1)

    async def open(self, record=None, **fields):
        about = (
            About(record.plugin_id, record.manifest.name, record.manifest.version, record.digest) if record else None
        )
        given = {"by_uid": 7, "now": 9, "about": about or About(), "cause": "hand"}
        return await asyncio.to_thread(self.incidents.open, "wrong sums", "high", **given | fields)

    async def case(self, incident):
        return await asyncio.to_thread(self.casefile.case, incident.id)


@pytest.fixture
async def scene(tmp_path):
    (tmp_path / "plugins").mkdir()
    made = Scene(tmp_path)
    yield made
    await made.ledger.close()
    made.catalog.close()
    made.database.close()


def kinds(case):
    return [event.kind for event in case.timeline]


async def test_the_whole_story_is_told_oldest_first_with_the_records_that_say_so(scene):
    record = await scene.put()
    await scene.run(plan_id="plan-1", stage="durations")

    async def attack(request):
        return fake_launcher.result(Outcome.VIOLATION, detail="unshare", violations=[REFUSED])

    scene.sandbox.behaviour = attack
    answer = await scene.run(plan_id="plan-2")
    incident = await scene.open(record, now=9_000_000_000_000)
    await asyncio.to_thread(
        scene.catalog.holds.set, Hold("quarantined", f"sha256:{record.digest}", "unshare", 7, 9_000_000_000_001)
    )
    await scene.run(plan_id="plan-3")
    await asyncio.to_thread(scene.incidents.close, incident.id, 8, "mended", 9_000_000_000_002)
    case = await scene.case(incident)
    told = ["submitted", "approved", "activated", "run", "refused", "run", "denied", "opened", "quarantined", "closed"]
    assert kinds(case) == told
    by_kind = {event.kind: event for event in case.timeline}
    assert by_kind["refused"].text.endswith(": unshare × 1 (refused, and the run was ended)")
    assert f"log_{by_kind['refused'].log_index}" == answer.governance.audit_log
    assert by_kind["denied"].text.endswith("of echo@1.0.0: QUARANTINED (hold.quarantined)")
    assert case.timeline[3].text.endswith("of echo@1.0.0 in stage durations ended as ok")
    assert case.plans == ("plan-1", "plan-2", "plan-3")
    assert (case.incident.closing, case.incident.closed_by_uid) == ("mended", 8)
    records = {entry.index: entry.fields for entry in reading.newest(scene.folder / "ledger", reading.Filter(), 99)}
    for event in case.timeline:
        fields = records[event.log_index]
        assert fields.get("by_uid", fields.get("caller_uid")) == event.by_uid
        assert fields["event"] == ("CHANGE" if event.kind not in {"run", "refused", "denied"} else fields["event"])
    assert [records[event.log_index].get("action") for event in case.timeline[:3]] == ["submit", "approve", "activate"]
    assert records[by_kind["opened"].log_index]["action"] == "incident_open"
    assert json.loads(records[by_kind["closed"].log_index]["detail"])["incident"] == incident.id


async def test_another_version_and_another_plugin_are_not_in_it(scene):
    first = await scene.put()
    await scene.run()
    await scene.put(version="1.1.0")
    await scene.run()
    await scene.put(name="other")
    await scene.run(plugin="other")
    case = await scene.case(await scene.open(first, now=9_000_000_000_000))
    assert kinds(case) == ["submitted", "approved", "activated", "run", "retired", "opened"]
    whole = await scene.case(await scene.open(about=About(plugin="echo"), now=9_000_000_000_000))
    assert kinds(whole).count("run") == 2
    assert not any("other" in event.text for event in whole.timeline)


async def test_holds_on_the_name_are_in_it_and_have_their_records(scene):
    record = await scene.put()
    await asyncio.to_thread(scene.catalog.holds.set, Hold("suspended", "echo", "maintenance", 7, 9_000_000_000_000))
    await asyncio.to_thread(scene.catalog.holds.set, Hold("killed", "echo@1.0.0", "wrong", 7, 9_000_000_000_001))
    await asyncio.to_thread(scene.catalog.holds.set, Hold("killed", "echo@1.0.0", "wrong", 7, 9_000_000_000_001))
    case = await scene.case(await scene.open(record, now=1))
    assert [(event.kind, event.text) for event in case.timeline[-2:]] == [
        ("suspended", "echo: maintenance"),
        ("killed", "echo@1.0.0: wrong"),
    ]
    assert all(event.log_index >= 0 for event in case.timeline)


async def test_a_digest_alone_finds_its_plugin(scene):
    record = await scene.put()
    await scene.run()
    incident = await scene.open(about=About(digest=record.digest))
    assert kinds(await scene.case(incident)) == ["opened", "submitted", "approved", "activated", "run"]


async def test_one_about_nothing_and_one_about_what_is_not_known_have_their_own_events(scene):
    await scene.put()
    await scene.run()
    assert kinds(await scene.case(await scene.open())) == ["opened"]
    assert kinds(await scene.case(await scene.open(about=About(plugin="ghost", digest="cd" * 32)))) == ["opened"]
    with pytest.raises(NotFoundError):
        await asyncio.to_thread(scene.casefile.case, "incident_77")


async def test_an_anomaly_is_told_once_though_its_incident_notes_it_too(scene):
    hard = anomaly()
    soft = anomaly(trigger="failures", hard=False, seen=observation(at_unix_ms=30))
    scene.anomalies = [hard, soft]
    incident = await asyncio.to_thread(scene.incidents.about_anomaly, hard, 50)
    case = await scene.case(incident)
    assert [(event.at_unix_ms, event.kind) for event in case.timeline] == [
        (30, "anomaly"),
        (40, "anomaly"),
        (50, "opened"),
    ]
    assert case.anomalies == (hard, soft)


async def test_a_change_that_the_ledger_could_not_record_has_no_record(scene, monkeypatch):
    record = await scene.put()
    change = dataclasses.replace(scene.catalog.history("echo")[-1], why="never recorded", at_unix_ms=9_000_000_000_000)
    with scene.catalog._registry._database.changing() as connection:
        values = [getattr(change, name) for name in change.__match_args__]
        connection.execute(
            "INSERT INTO history VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", [change.revision + 1, *values[1:]]
        )
    case = await scene.case(await scene.open(record))
    assert case.timeline[-1] == Event(
        change.at_unix_ms, "activated", "echo@1.0.0: never recorded", NO_RECORD, change.by_uid
    )


async def test_more_runs_than_are_told_are_said_to_be_there(scene):
    record = await scene.put()
    for _ in range(casefile.MOST_RUNS + 3):
        await scene.run()
    case = await scene.case(await scene.open(record, now=9_000_000_000_000))
    assert kinds(case).count("run") == casefile.MOST_RUNS
    (earlier,) = [event for event in case.timeline if event.kind == "earlier"]
    assert "200" in earlier.text
    assert kinds(case).index("earlier") < kinds(case).index("run")


async def test_records_of_a_digest_are_its_newest_and_bounded(scene):
    record = await scene.put()
    await scene.put(name="other")
    for _ in range(70):
        await scene.run()
    await scene.run(plugin="other")
    found = await asyncio.to_thread(scene.casefile.records, record.digest)
    assert {entry.fields["digest"] for entry in found} == {record.digest}
    assert [entry.index for entry in found] == sorted((entry.index for entry in found), reverse=True)
    assert len(found) == 2 * 70 + 3
    for _ in range(60):
        await scene.run()
    assert len(await asyncio.to_thread(scene.casefile.records, record.digest)) == casefile.MOST_RECORDS
    assert await asyncio.to_thread(scene.casefile.records, "cd" * 32) == []


async def test_many_refused_calls_are_cut(scene):
    record = await scene.put()
    many = [Violation("syscall", f"call_{number}", 1, "EPERM") for number in range(25)]

    async def attack(request):
        return fake_launcher.result(violations=many)

    scene.sandbox.behaviour = attack
    await scene.run()
    case = await scene.case(await scene.open(record))
    (refused,) = [event for event in case.timeline if event.kind == "refused"]
    assert refused.text.endswith("and 15 more")
    assert "call_10 " not in refused.text


async def test_a_run_that_only_names_the_digest_in_its_text_is_not_its_run(scene):
    record = await scene.put()
    await scene.put(name="other")
    await scene.run(plugin="other", plan_id=record.digest, payload=record.digest)
    case = await scene.case(await scene.open(record))
    assert "run" not in kinds(case)
    assert case.plans == ()
