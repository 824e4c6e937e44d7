"""Files of a plan in the life of a run: what it gets, what counts of what it wrote, and what the records say."""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib

import pytest

from plugind.audit.verify import verify
from plugind.errors import IsolationUnavailableError, LauncherGoneError, PlanError
from plugind.model import Outcome, Violation
from plugind.planfiles import PLAN_CODES, Entry
from tests.support.desk import PROFILES, codes, until
from tests.support.fake_launcher import forever
from tests.support.plan_desk import PLAN, READS, PlanDesk

TOKEN = b"ghp_" + b"a1B2c3D4e5F6g7H8i9J0k1L2m3N4o5P6q7R8"


@pytest.fixture
async def desk(tmp_path):
    made = PlanDesk(tmp_path)
    yield made
    await made.close()


def sha256(data):
    return hashlib.sha256(data).hexdigest()


async def test_it_reads_exactly_what_was_granted_and_writes_all(desk):
    desk.folders.write(PLAN, "a.json", b"1")
    desk.folders.write(PLAN, "empty.json", b"")
    desk.folders.write(PLAN, "secret.txt", b"no pattern means it")
    desk.folders.write(PLAN, "out/old.csv", b"written by an earlier run")
    desk.writes["1"] = {"a.json": b"2", "out/new.csv": b"", "out/old.csv": b"again"}
    answer = await desk.run(run_id="r1", plan_id="garden")
    assert (answer.outcome, answer.output_json, answer.sent) == (Outcome.OK, b"1", ())
    assert desk.reads == [{"a.json": b"1", "empty.json": b""}]
    assert desk.folders.contents(PLAN) == {
        "a.json": b"2", "empty.json": b"", "secret.txt": b"no pattern means it", "out/new.csv": b"",
        "out/old.csv": b"again",
    }  # fmt: skip
    told = {each.path: (each.sha256, each.bytes, each.replaced_sha256, each.replaced_bytes) for each in answer.files}
    assert told["a.json"] == (sha256(b"2"), 1, sha256(b"1"), 1)
    assert told["out/new.csv"] == (sha256(b""), 0, "", 0)
    intent, outcome, committed = desk.records()
    assert [each["event"] for each in (intent, outcome, committed)] == ["INTENT", "OUTCOME", "COMMITTED"]
    assert (intent["plan_dir"], outcome["plan_dir"], committed["plan_dir"]) == (PLAN,) * 3
    assert {file["path"]: desk.content(file["content"]) for file in intent["files"]} == desk.reads[0]
    changed = {file["path"]: (desk.content(file["content"]), file["replaced"]["sha256"]) for file in outcome["files"]}
    assert changed["a.json"] == (b"2", sha256(b"1"))
    assert changed["out/new.csv"] == (b"", "")
    assert desk.content(outcome["files"][2]["replaced"]) == b"written by an earlier run"
    assert (committed["intent"], committed["run"], committed["plan_id"], committed["files"]) == (
        intent["index"],
        "r1",
        "garden",
        3,
    )
    assert desk.notes() == []
    assert desk.folders.staged == {}
    await desk.ledger.close()
    assert verify(desk.folder / "ledger").holds


async def test_a_run_that_writes_nothing_changes_nothing(desk):
    assert (await desk.run()).outcome is Outcome.OK
    assert [each["event"] for each in desk.records()] == ["INTENT", "OUTCOME"]
    assert [task for task, *_ in desk.folders.asked] == ["read"]


async def test_a_plugin_without_a_permission_for_files_never_gets_to_a_plan(desk):
    desk.install("plain")
    answer = await desk.run(plugin="plain", plan_dir="/etc", stage="")
    assert answer.outcome is Outcome.OK
    assert desk.folders.asked == []
    (request,) = desk.sandbox.requests
    assert (request.files, request.write_files, request.write_bytes) == (None, 0, 0)
    assert desk.records()[0]["plan_dir"] == ""


async def test_one_that_only_reads_has_no_output_folder_and_takes_no_turn(desk):
    desk.install("reader", extra=READS)
    await desk.run(plugin="reader")
    (request,) = desk.sandbox.requests
    assert request.files is not None
    assert request.write_files == 0
    assert len(desk.commits.turns) == 0


async def test_the_ceilings_are_those_of_the_tier(desk):
    await desk.run()
    most = PROFILES[1].files
    (request,) = desk.sandbox.requests
    assert (request.write_files, request.write_bytes) == (most.write_files, most.write_bytes)


async def test_neither_is_ever_parked_nor_taken_from_those_that_wait(desk):
    asked = []

    class Parking:
        at_activation = True

        def take(self, *given):
            asked.append("take")

        def ran(self, record, grant, environment):
            asked.append(grant.of_one_run)

    desk.runner._parking = desk.runner._starting._parking = Parking()
    await desk.run()
    assert asked == [True]


RULES = {
    "root": ("PERMISSION_NOT_APPROVED", "plans.roots"),
    "caller": ("CALLER_NOT_ALLOWED", "plans.caller"),
    "denied": ("CALLER_NOT_ALLOWED", "plans.denied"),
    "open": ("INPUT_INVALID", "plans.folder"),
    "file": ("INPUT_INVALID", "plans.file"),
    "large": ("INPUT_TOO_LARGE", "plans.large"),
    "deadline": ("ISOLATION_UNAVAILABLE", "plans.deadline"),
    "busy": ("BUSY", "plans.busy"),
    "conflict": ("BUSY", "plans.turn"),
    "fault": ("ISOLATION_UNAVAILABLE", "plans.fault"),
}


@pytest.mark.parametrize("code", PLAN_CODES)
async def test_what_cannot_be_read_is_a_denial_with_its_reason(desk, code):
    desk.folders.instead["read"] = [PlanError(code, "x.json: so it is")]
    answer = await desk.run()
    (reason,) = answer.reasons
    assert (str(reason.code), reason.rule) == RULES[code]
    assert (reason.actual, bool(reason.expected), bool(reason.remedy)) == ("x.json: so it is", True, True)
    (record,) = desk.records()
    assert record["event"] == "DENIED"
    assert desk.sandbox.requests == []
    assert len(desk.commits.turns) == 0
    assert (await desk.run()).outcome is Outcome.OK


@pytest.mark.parametrize("error", [LauncherGoneError("gone"), IsolationUnavailableError("launcher", "gone")])
async def test_without_a_launcher_nothing_is_read(desk, error):
    desk.folders.instead["read"] = [error]
    assert codes(await desk.run()) == ["ISOLATION_UNAVAILABLE"]


async def test_the_plan_has_to_be_named_and_below_a_root(desk):
    (reason,) = (await desk.run(plan_dir="")).reasons
    assert (reason.rule, reason.remedy) == ("plans.folder", "--plan-dir DIR")
    (reason,) = (await desk.run(plan_dir="/home/a/plan")).reasons
    assert reason.rule == "plans.roots"
    desk.policy = dataclasses.replace(desk.policy, plan_roots=())
    assert (await desk.run()).reasons[0].rule == "plans.roots"
    assert desk.folders.asked == []
    desk.plans._development = True
    assert (await desk.run()).outcome is Outcome.OK


async def test_more_than_a_helper_may_give_is_refused(desk):
    async def too_much(*given):
        return [Entry("x.txt", b"1", "m")], {}

    desk.folders.plan_work = too_much
    assert (await desk.run()).reasons[0].rule == "plans.fault"


# --- what it wrote ----------------------------------------------------------------------------------------------------


MOST = PROFILES[1].files
BAD = {
    "no pattern": ({"x.sh": b"1"}, Outcome.VIOLATION, "x.sh: no approved pattern"),
    "above": ({"a.json": b"1", "deep/x.json": b"1"}, Outcome.VIOLATION, "deep/x.json"),
    "hidden": ({".x.json": b"1"}, Outcome.VIOLATION, ".x.json"),
    **{
        kind: ({"a.json": b"1", "b.json": Entry("b.json", problem=kind)}, Outcome.VIOLATION, f"b.json: {kind}")
        for kind in ("symlink", "fifo", "socket", "device", "hard link", "no path")
    },
    **{
        kind: ({"b.json": Entry("b.json", problem=kind)}, Outcome.OUTPUT_LIMIT, f"b.json: {kind}")
        for kind in ("sparse", "too many", "too large")
    },
    "both": (
        {"a.json": Entry("a.json", problem="too many"), "b.json": Entry("b.json", problem="fifo")},
        Outcome.VIOLATION,
        "b.json: fifo",
    ),
    "files": ({f"{i}.json": b"" for i in range(MOST.write_files + 1)}, Outcome.OUTPUT_LIMIT, "at most 64 files"),
    "bytes": ({"a.json": b"x" * (MOST.write_bytes + 1)}, Outcome.OUTPUT_LIMIT, "at most 16777216 bytes"),
}


@pytest.mark.parametrize("name", BAD)
async def test_of_what_may_not_be_nothing_is_written(desk, name):
    wrote, outcome, said = BAD[name]
    desk.writes["1"] = wrote
    answer = await desk.run()
    assert answer.outcome is outcome
    assert said in answer.detail
    assert (answer.files, answer.output_json) == ((), b"")
    kinds = {each.kind for each in answer.violations}
    assert kinds == ({"file"} if outcome is Outcome.VIOLATION else set())
    assert desk.folders.contents(PLAN) == {}
    assert [each["event"] for each in desk.records()] == ["INTENT", "OUTCOME"]
    assert (desk.records()[1]["files"], desk.records()[1]["plan_dir"]) == ([], "")


async def test_each_file_that_may_not_be_is_named_and_many_are_counted(desk):
    desk.writes["1"] = {f"{i}.sh": b"" for i in range(100)}
    violations = (await desk.run()).violations
    assert len(violations) == 64
    assert violations[0] == Violation("file", "0.sh", 1, "no approved pattern of file_write means it")
    assert sum(each.count for each in violations) == 100


async def test_nothing_counts_of_a_run_that_did_not_end_well(desk):
    async def fails(request):
        ended = await desk.behave(request)
        return dataclasses.replace(ended, outcome=Outcome.FAILED)

    desk.sandbox.behaviour = fails
    desk.writes["1"] = {"a.json": b"1", "x.sh": b"1"}
    assert (await desk.run()).outcome is Outcome.FAILED
    assert desk.folders.contents(PLAN) == {}


async def test_a_secret_in_a_file_is_withheld_but_one_that_was_read_may_be_written(desk):
    desk.writes["1"] = {"a.json": b'"%s"' % TOKEN}
    answer = await desk.run()
    assert answer.outcome is Outcome.VIOLATION
    assert answer.violations == (Violation("output", "GitHub token", 1, "withheld"),)
    assert desk.folders.contents(PLAN) == {}
    desk.folders.write(PLAN, "given.json", b'{"token": "%s"}' % TOKEN)
    assert (await desk.run()).outcome is Outcome.OK
    assert desk.folders.contents(PLAN)["a.json"] == b'"%s"' % TOKEN


async def test_an_output_may_carry_a_secret_that_was_read(desk):
    desk.folders.write(PLAN, "given.json", TOKEN)

    async def tells(request):
        return dataclasses.replace(await desk.behave(request), output_json=b'"%s"' % TOKEN)

    desk.sandbox.behaviour = tells
    assert (await desk.run()).outcome is Outcome.OK
    desk.folders.plans[PLAN].clear()
    assert (await desk.run()).outcome is Outcome.VIOLATION


# --- somebody else ----------------------------------------------------------------------------------------------------


CHANGES = {
    "changed": lambda folders: folders.write(PLAN, "a.json", b"theirs"),
    "gone": lambda folders: folders.plans[PLAN].pop("a.json"),
    "new": lambda folders: folders.write(PLAN, "b.json", b"theirs"),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("when", ["while it runs", "before it is settled"])
async def test_who_comes_between_is_not_written_over(desk, change, when):
    desk.folders.write(PLAN, "a.json", b"1")
    desk.writes["1"] = {"a.json": b"2", "b.json": b"2", "c.json": b"2"}

    async def come(name):
        if name == ("after read" if when == "while it runs" else "append OUTCOME"):
            CHANGES[change](desk.folders)

    desk.power.pause = come
    answer = await desk.run()
    theirs = {"changed": {"a.json": b"theirs"}, "gone": {}, "new": {"a.json": b"1", "b.json": b"theirs"}}[change]
    assert desk.folders.contents(PLAN) == theirs
    assert (answer.outcome, answer.files, answer.output_json) == (Outcome.CANCELED, (), b"")
    assert ("b.json" if change == "new" else "a.json") in answer.detail
    events = [each["event"] for each in desk.records()]
    if when == "while it runs":
        assert events == ["INTENT", "OUTCOME"]
        assert desk.records()[1]["outcome"] == "canceled"
    else:
        assert events == ["INTENT", "OUTCOME", "UNDONE"]
        assert "changed it meanwhile" in desk.records()[2]["why"]
    assert (desk.notes(), desk.folders.staged) == ([], {})
    await desk.ledger.close()
    assert verify(desk.folder / "ledger").holds


async def test_whatever_happens_when_it_is_recorded_nobody_writes_over_what_is_staged(desk):
    """A fault of ours included: until the ledger was asked what became of it, the plan is not another run's."""
    desk.folders.write(PLAN, "a.json", b"1")
    desk.writes["1"] = {"a.json": b"2"}

    async def fault(name):
        if name == "append OUTCOME":
            desk.power.pause = None
            raise RuntimeError("a mistake of ours")

    desk.power.pause = fault
    with pytest.raises(RuntimeError, match="a mistake of ours"):
        await desk.run()
    assert desk.commits.unfinished(PLAN)
    assert desk.folders.contents(PLAN) == {"a.json": b"1"}


@pytest.mark.parametrize("code", PLAN_CODES)
async def test_a_staging_that_fails_changes_nothing_and_leaves_nothing(desk, code):
    desk.folders.instead["stage"] = [PlanError(code, "so it is")]
    desk.writes["1"] = {"a.json": b"2"}
    answer = await desk.run()
    expected = Outcome.FAULT if code in ("deadline", "busy", "fault") else Outcome.CANCELED
    assert answer.outcome is expected
    assert "so it is" in answer.detail
    if desk.commits.left:  # nobody knows what such a helper has done: the recovery looks
        assert code in ("deadline", "fault")
        assert (await desk.run()).reasons[0].rule == "plans.turn"
        keeper = asyncio.create_task(desk.recovery().keep())
        await until(lambda: not desk.commits.left)
        keeper.cancel()
    assert (desk.notes(), desk.folders.staged, desk.folders.contents(PLAN)) == ([], {}, {})
    assert (await desk.run()).outcome is Outcome.OK


# --- the kill switch --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", ["after read", "note", "stage", "after stage"])
async def test_a_kill_before_the_outcome_withholds_everything(desk, step):
    desk.writes["1"] = {"a.json": b"2"}

    async def kill(name):
        if name == step:
            await desk.kill()

    desk.power.pause = kill
    if step == "note":  # not a step of the folders
        real, desk.commits._notes.write = desk.commits._notes.write, None
        loop = asyncio.get_running_loop()
        desk.commits._notes.write = lambda change: (
            asyncio.run_coroutine_threadsafe(desk.kill(), loop).result(),
            real(change),
        )
    answer = await desk.run()
    assert answer.outcome is Outcome.KILLED
    assert desk.folders.contents(PLAN) == {}
    assert (desk.notes(), desk.folders.staged) == ([], {})
    assert [each["event"] for each in desk.records()] == ["INTENT", "OUTCOME"]
    assert desk.records()[1]["outcome"] == "killed"


async def test_canceled_while_it_waits_for_its_turn_it_leaves_the_line(desk):
    desk.sandbox.behaviour = forever
    first = asyncio.create_task(desk.run(run_id="r1"))
    await until(lambda: desk.sandbox.running)
    second = asyncio.create_task(desk.run(run_id="r2"))
    await asyncio.sleep(0.01)
    desk.runner.flights.end("r2", "canceled")
    assert (await second).outcome is Outcome.CANCELED
    desk.runner.flights.end("r1", "canceled")
    await first
    assert len(desk.commits.turns) == 0


async def test_who_waits_in_vain_is_denied(desk):
    desk.sandbox.behaviour = forever
    desk.commits.turns._wait_s = 0.05
    first = asyncio.create_task(desk.run(run_id="r1"))
    await until(lambda: desk.sandbox.running)
    answer = await desk.run()
    (reason,) = answer.reasons
    assert (str(reason.code), reason.rule) == ("BUSY", "plans.turn")
    assert answer.retry_after_ms > 0
    first.cancel()


async def test_two_writers_follow_each_other_and_readers_do_not_wait_for_them(desk):
    desk.folders.write(PLAN, "a.json", b"0")
    desk.install("reader", extra=READS)
    go, order = asyncio.Event(), []

    async def behave(request):
        order.append(request.run)
        if request.run == "w1":
            await go.wait()
        return await desk.behave(request)

    desk.sandbox.behaviour = behave
    desk.writes = {"1": {"a.json": b"1"}, "2": {"a.json": b"2"}}
    first = asyncio.create_task(desk.run(1, run_id="w1"))
    await until(lambda: order)
    second = asyncio.create_task(desk.run(2, run_id="w2"))
    assert (await desk.run(plugin="reader", run_id="r")).outcome is Outcome.OK
    assert order == ["w1", "r"]
    go.set()
    assert [(await each).outcome for each in (first, second)] == [Outcome.OK] * 2
    assert desk.folders.contents(PLAN) == {"a.json": b"2"}
    assert desk.reads == [{"a.json": b"0"}, {"a.json": b"0"}, {"a.json": b"1"}]
    assert len(desk.commits.turns) == 0


@pytest.mark.parametrize("given", [{}, {"plan_dir": "", "files": (Entry("a.json", b"1"),)}], ids=["folder", "sent"])
async def test_a_trial_of_what_is_in_quarantine_has_no_plan(desk, given):
    """Its input is made up, and what comes out goes into no plan."""
    desk.writes["1"] = {"a.json": b"2"}
    answer = await desk.run(trial=True, **given)
    assert ("quarantine.trial", "a plan") in [(reason.rule, reason.actual) for reason in answer.reasons]
    assert desk.folders.contents(PLAN) == {}
