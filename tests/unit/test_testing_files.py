"""FakeClient and files of a plan: real folders, patterns, all or nothing, and the records of it."""

import asyncio
import json
import os
from pathlib import Path

import pytest

from plugind_client import Canceled, Conflict, Denied, InvalidRequest, PlanFile, Violated
from plugind_client.memory.impact import impact
from plugind_client.planfiles import digest
from plugind_client.testing import AsyncFakeClient, FakeClient
from plugind_proto.v1 import audit_pb2


def total(payload, context):
    """A plugin as its author writes it."""
    assert Path(context.scratch_dir).is_dir()
    found = sorted(os.listdir(context.plan_dir))
    for name, text in payload.get("writes", {}).items():
        path = Path(context.output_dir, name)
        path.parent.mkdir(exist_ok=True, parents=True)
        path.write_text(text)
    return found


@pytest.fixture
def plan(tmp_path):
    folder = tmp_path / "plan"
    folder.mkdir()
    for name in ("wbs_1.json", "wbs_2.json", "notes.txt"):
        (folder / name).write_text(name)
    return folder


@pytest.fixture
def fake():
    fake = FakeClient({"total": total})
    fake.permits("total", read=["wbs_*.json"], write=["cost.json", "sub/*"])
    return fake


def tree(folder):
    return {path.relative_to(folder).as_posix(): path.read_text() for path in folder.rglob("*") if path.is_file()}


def test_answer_reads_what_patterns_mean_and_what_it_leaves_comes_into_the_plan(fake, plan):
    (plan / "cost.json").write_text("old")
    result = fake.run("total", {"writes": {"cost.json": "new", "sub/x": ""}}, plan_dir=plan, plan_id="p1")
    assert result.output == ["wbs_1.json", "wbs_2.json"]
    assert result.files == (
        PlanFile("cost.json", digest(b"new"), 3, digest(b"old"), 3),
        PlanFile("sub/x", digest(b""), 0),
    )
    assert (plan / "cost.json").read_text() == "new"
    assert (plan / "sub/x").read_text() == ""
    assert result.governance.permissions == ("file_read", "file_write")
    intent, outcome, committed = (record.fields for record in fake.audit.tail(0))
    assert [each["path"] for each in intent["files"]] == ["wbs_1.json", "wbs_2.json"]
    assert intent["plan_dir"] == outcome["plan_dir"] == committed["plan_dir"] == str(plan)
    assert (outcome["files"][0]["content"]["sha256"], outcome["files"][0]["replaced"]["bytes"]) == (digest(b"new"), 3)
    assert (committed["event"], committed["intent"], committed["files"], committed["plan_id"]) == (
        "COMMITTED",
        0,
        2,
        "p1",
    )
    assert fake.audit.get("log_0", "file:wbs_1.json").payload == b"wbs_1.json"
    assert fake.audit.get("log_1", "replaced:cost.json").payload == b"old"


def test_sent_files_take_the_place_of_the_folder_and_come_back(fake, plan):
    before = tree(plan)
    files = {"wbs_9.json": b"9", "cost.json": b"old", "other": b""}
    result = fake.run("total", {"writes": {"cost.json": "new"}}, files=files)
    assert result.output == ["wbs_9.json"]
    assert result.files == (PlanFile("cost.json", digest(b"new"), 3, content=b"new"),)
    assert tree(plan) == before
    assert [record.event for record in fake.audit.tail(0)] == ["INTENT", "OUTCOME"]
    assert fake.calls[0].arguments["files"] == files


@pytest.mark.parametrize("writes", [{"cost.json": "1", "else.json": "2"}, {"sub/deep/x": "1"}, {"wbs_1.json": "1"}])
def test_file_that_no_pattern_means_is_a_violation_and_nothing_is_written(fake, plan, writes):
    before = tree(plan)
    with pytest.raises(Violated) as caught:
        fake.run("total", {"writes": writes}, plan_dir=plan)
    assert [each.kind for each in caught.value.result.violations] == ["file"]
    assert tree(plan) == before


def test_link_in_the_output_is_a_violation(fake, plan):
    fake.answers("total", lambda payload, context: Path(context.output_dir, "cost.json").symlink_to("/etc/passwd"))
    with pytest.raises(Violated):
        fake.run("total", {}, plan_dir=plan)


def test_link_in_the_place_of_an_output_is_a_conflict(fake, plan, tmp_path):
    (plan / "cost.json").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(Canceled):
        fake.run("total", {"writes": {"cost.json": "1", "sub/x": "1"}}, plan_dir=plan)
    assert not (plan / "sub").exists()
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize("given", [{}, {"plan_dir": "/nonexistent"}])
def test_plan_is_needed_by_a_plugin_with_a_permission(fake, given):
    for call in (lambda: fake.run("total", {}, **given), lambda: fake.map("total", [{}], **given)):
        with pytest.raises(Denied) as caught:
            call()
        assert (caught.value.code, caught.value.reasons[0].rule) == ("INPUT_INVALID", "plans.folder")


def test_link_that_a_pattern_means_denies_the_run(fake, plan):
    (plan / "wbs_3.json").symlink_to("wbs_1.json")
    with pytest.raises(Denied) as caught:
        fake.run("total", {}, plan_dir=plan)
    assert caught.value.reasons[0].rule == "plans.file"


def test_without_permission_the_folder_does_not_matter(plan):
    fake = FakeClient({"x": lambda payload, context: [context.plan_dir, context.output_dir, context.stage]})
    assert fake.run("x", {}, plan_dir="/nonexistent", stage="wbs").output == ["", "", "wbs"]


def test_function_of_the_payload_alone_stays_one(plan):
    fake = FakeClient({"x": lambda payload, other=1: [payload, other], "y": max})
    assert fake.run("x", 5).output == [5, 1]
    assert fake.run("y", [1, 2]).output == 2


def test_failed_run_writes_nothing_and_no_folder_stays(fake, plan, monkeypatch, tmp_path):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    before = tree(plan)

    def fails(payload, context):
        total({"writes": {"cost.json": "1"}}, context)
        raise ValueError

    fake.answers("total", fails)
    assert fake.execute("total", {}, plan_dir=plan).outcome == "failed"
    assert tree(plan) == before
    assert list((tmp_path / "temporary").iterdir()) == []


def test_map_and_session_write_when_they_end(fake, plan):
    mapped = fake.map("total", [{"writes": {"sub/1": "1"}}, {"writes": {"sub/2": "2"}}], plan_dir=plan)
    assert [each.path for each in mapped.files] == ["sub/1", "sub/2"]
    with fake.session("total", plan_dir=plan) as session:
        session.call({"writes": {"cost.json": "s"}})
        assert not (plan / "cost.json").exists()
        assert [each.path for each in session.close().files] == ["cost.json"]
    assert fake.calls[-2].arguments["plan_dir"] == str(plan)


def test_key_belongs_to_the_files_too(fake):
    again = [fake.run("total", {}, files={"wbs_1.json": b"1"}, idempotency_key="k").run_id for _ in range(2)]
    assert again == ["run_1", "run_1"]
    with pytest.raises(Conflict):
        fake.run("total", {}, files={"wbs_1.json": b"2"}, idempotency_key="k")


def test_learning_is_not_there(fake, plan):
    with pytest.raises(InvalidRequest):
        fake.execute("total", {}, plan_dir=plan, learn=True)


def test_async_fake_does_the_same(plan):
    async def main():
        fake = AsyncFakeClient({"total": total})
        fake.permits("total", read=["*.txt"])
        return (await fake.run("total", {}, plan_dir=plan)).output

    assert asyncio.run(main()) == ["notes.txt"]


@pytest.mark.parametrize(("since", "runs", "files"), [(10, 1, ["a.json"]), (15, 0, []), (25, 0, [])])
def test_impact_leaves_out_a_run_that_began_before(since, runs, files):
    """Also one that ended later: its times and versions would not be known."""
    run = {"plugin": "total", "plugin_id": "plug_1", "version": "1.0.0", "plan_id": "", "plan_dir": "/plan"}
    file = {"path": "a.json", "content": {"sha256": "ab", "bytes": 1}}
    records = [
        audit_pb2.AuditRecord(event=event, time_unix_ms=time_ms, record_json=json.dumps({**run, **fields}).encode())
        for event, time_ms, fields in (
            ("INTENT", 10, {"index": 3, "files": []}),
            ("OUTCOME", 20, {"index": 4, "intent": 3, "files": [file]}),
        )
    ]
    told = impact(records, audit_pb2.ImpactRequest(plugin="total", since_unix_ms=since))
    assert (told.runs, [file.path for plan in told.plans for file in plan.files]) == (runs, files)
    assert len(told.plans) == runs
