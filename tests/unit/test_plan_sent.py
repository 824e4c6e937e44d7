"""Files of a plan that a caller sends along, what a run that learns tells, and the files of a map."""

from __future__ import annotations

import dataclasses
import json

import pytest

from plugind.answers import Opening
from plugind.audit.verify import verify
from plugind.model import Outcome
from plugind.planfiles import LEARNED, Entry
from tests.support.desk import PROFILES
from tests.support.plan_desk import PLAN, PlanDesk
from tests.support.plugins import CALLER


@pytest.fixture
async def desk(tmp_path):
    made = PlanDesk(tmp_path)
    yield made
    await made.close()


# --- files that the caller sends --------------------------------------------------------------------------------------


async def test_sent_files_are_read_and_what_was_written_goes_back(desk):
    desk.writes["1"] = {"a.json": b"2", "out/x": b""}
    sent = (Entry("a.json", b"1"), Entry("other.txt", b"no pattern means it"))
    answer = await desk.run(plan_dir="", files=sent)
    assert answer.outcome is Outcome.OK
    assert desk.reads == [{"a.json": b"1"}]
    assert {entry.path: entry.content for entry in answer.sent} == desk.writes["1"]
    assert [(each.path, each.bytes, each.replaced_sha256) for each in answer.files] == [
        ("a.json", 1, ""),
        ("out/x", 0, ""),
    ]
    assert desk.folders.asked == []
    intent, outcome = desk.records()
    assert (intent["plan_dir"], outcome["plan_dir"]) == ("", "")
    assert [file["path"] for file in intent["files"]] == ["a.json"]
    assert [desk.content(file["content"]) for file in outcome["files"]] == [b"2", b""]
    assert {file["replaced"]["sha256"] for file in outcome["files"]} == {""}
    await desk.ledger.close()
    assert verify(desk.folder / "ledger").holds


async def test_too_many_files_sent_are_refused_and_no_denial_keeps_them(desk):
    most = PROFILES[1].files.read_files
    answer = await desk.run(plan_dir="", files=tuple(Entry(f"{i}.json", b"") for i in range(most + 1)))
    assert answer.reasons[0].rule == "plans.large"
    asked, _, _ = desk.runner.denials.last(CALLER)
    assert asked.files is None


# --- learning ---------------------------------------------------------------------------------------------------------


def learned(*lines):
    return b"".join(line if isinstance(line, bytes) else json.dumps(line).encode() + b"\n" for line in lines)


async def test_a_run_that_learns_reads_all_keeps_nothing_and_tells(desk):
    desk.plans._development = True
    desk.install("plain")
    desk.folders.write(PLAN, "x.txt", b"1")
    note = {"path": "x.txt", "mode": "read", "place": "plan", "found": True}
    notes = learned(
        note, note, b"{broken\n", {**note, "mode": "sing"}, {**note, "path": 7}, {**note, "place": "elsewhere"}
    )
    desk.writes["1"] = {LEARNED: notes, "any.sh": b"#!"}
    answer = await desk.run(plugin="plain", learn=True)
    assert answer.outcome is Outcome.OK
    assert desk.reads == [{"x.txt": b"1"}]
    assert answer.opened == (Opening("x.txt", "read", "plan", True), Opening("x.txt", "read", "elsewhere", True))
    assert (answer.files, desk.folders.contents(PLAN)) == ((), {"x.txt": b"1"})
    assert desk.sandbox.requests[0].context["learn"] == "1"
    assert [each["event"] for each in desk.records()] == ["INTENT", "OUTCOME"]
    await desk.run()
    assert "learn" not in desk.sandbox.requests[1].context


async def test_only_a_development_daemon_learns(desk):
    (reason,) = (await desk.run(learn=True)).reasons
    assert reason.rule == "plans.learn"
    assert desk.folders.asked == []


# --- maps and sessions ------------------------------------------------------------------------------------------------


async def test_a_map_writes_once(desk):
    from plugind import batch
    from plugind.api.batches import items
    from plugind_proto.v1 import runtime_pb2

    some = items([runtime_pb2.MapItem(input_json=b"1")])
    wanted = batch.encode(some)

    async def answers(request):
        done = await desk.behave(request)
        return dataclasses.replace(done, output_json=request.input)

    desk.sandbox.behaviour = answers
    desk.writes[wanted.decode()] = {"a.json": b"2"}
    answer = await super(PlanDesk, desk).run(plan_dir=PLAN, stage="report", mode="map", items=some, input=wanted)
    assert answer.outcome is Outcome.OK, answer.detail
    assert desk.folders.contents(PLAN) == {"a.json": b"2"}
