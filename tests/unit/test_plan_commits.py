"""All or nothing: wherever a daemon ends, the plan is all new or all old afterwards, and the record says which."""

from __future__ import annotations

import asyncio
import itertools
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from plugind.answers import RunAnswer
from plugind.audit.segments import segments
from plugind.audit.verify import verify
from plugind.errors import IsolationUnavailableError, LauncherGoneError, PlanError
from plugind.model import Outcome
from plugind.plans import commits
from plugind.plans.notes import Change, CommitLog, name_of
from tests.support.desk import until
from tests.support.plan_desk import PLAN, EndedError, PlanDesk, Power, started_again
from tests.support.plugins import CALLER

OLD = {"a.json": b"old a", "b.json": b"old b"}
NEW = {"a.json": b"new a", "b.json": b"old b", "c.json": b"new c"}
CHANGED = {"a.json": b"new a", "c.json": b"new c"}


def with_plan(folder, power=None, folders=None):
    desk = PlanDesk(folder, power, folders)
    if folders is None:
        for path, content in OLD.items():
            desk.folders.write(PLAN, path, content)
    desk.writes["1"] = CHANGED
    return desk


async def one_that_ends(desk):
    """The answer of a run, or nothing where the daemon ended before it."""
    try:
        return await desk.run()
    except EndedError:
        return None


async def steps_of_a_run(folder):
    desk = with_plan(folder)
    assert (await desk.run()).outcome is Outcome.OK
    await desk.close()
    return desk.power.steps


def check_the_end(desk, answer):
    """What a plan, its records and what is left of a run have to be once all is brought to its end."""
    by_event = {each["event"]: each for each in desk.records()}
    assert len(by_event) == len(desk.records())
    outcome = by_event.get("OUTCOME", {}).get("outcome")
    committed = "COMMITTED" in by_event
    assert desk.folders.contents(PLAN) == (NEW if committed else OLD)
    assert (outcome == "ok") == bool(by_event.keys() & {"COMMITTED", "UNDONE"})
    assert not (committed and "UNDONE" in by_event)
    assert ("INTENT" in by_event) == ("OUTCOME" in by_event)
    if isinstance(answer, RunAnswer):
        assert (answer.outcome is Outcome.OK) == committed
    assert (desk.folders.staged, desk.notes(), desk.commits.left) == ({}, [], {})
    report = verify(desk.folder / "ledger")
    assert report.holds
    assert not any("nothing says which" in note for note in report.notes)


async def test_a_daemon_that_ends_at_any_step_of_a_write(tmp_path):
    steps = await steps_of_a_run(tmp_path / "whole")
    assert {"note", "noted", "stage a.json", "append OUTCOME", "settle c.json", "forget", "forgotten"} <= set(steps)
    ends = []
    for number, name in enumerate(steps):
        desk = with_plan(tmp_path / f"{number}", Power(number))
        answer = await one_that_ends(desk)
        assert answer is None, name
        again = await started_again(desk)
        check_the_end(again, answer)
        ends.append(again.folders.contents(PLAN) == NEW)
        await again.close()
    # Before its OUTCOME is there it goes back, and from then on it goes forward.
    assert ends == [number > steps.index("append OUTCOME") for number in range(len(steps))]


@pytest.mark.slow
async def test_a_daemon_that_ends_while_it_puts_things_right(tmp_path):
    steps = await steps_of_a_run(tmp_path / "whole")
    for number, name in enumerate(steps):
        if not name.startswith(("settle ", "after stage", "appended OUTCOME", "appended COMMITTED")):
            continue
        for second in itertools.count():
            desk = with_plan(tmp_path / f"{number}-{second}", Power(number))
            assert await one_that_ends(desk) is None
            power = Power(second)
            again = await started_again(desk, power)
            last = await started_again(again) if power.is_off else again
            check_the_end(last, None)
            await last.close()
            if not power.is_off:
                break
        assert second > 3


@pytest.mark.parametrize("step", ["after stage", "append OUTCOME", "appended OUTCOME", "append COMMITTED"])
async def test_a_caller_that_is_gone_meanwhile(tmp_path, step):
    desk = with_plan(tmp_path)

    async def end(name):
        if name == step:
            desk.folders.gone.add(CALLER.pid)
            desk.runner.flights.end("r1", "canceled")

    desk.power.pause = end
    keeper = asyncio.create_task(desk.recovery().keep())
    answer = await desk.run(run_id="r1")
    await until(lambda: not desk.commits.left)
    assert answer.outcome is (Outcome.CANCELED if step == "after stage" else Outcome.OK)
    check_the_end(desk, answer)
    keeper.cancel()
    await desk.close()


@pytest.mark.parametrize("error", [LauncherGoneError("gone"), IsolationUnavailableError("launcher", "gone")])
@pytest.mark.parametrize("when", ["instead", "after"])
@pytest.mark.parametrize("task", ["stage", "settle", "clean"])
async def test_a_launcher_that_is_lost_and_comes_back(tmp_path, task, when, error):
    desk = with_plan(tmp_path)
    getattr(desk.folders, when)[task] = [error, error]
    keeper = asyncio.create_task(desk.recovery().keep())
    answer = await asyncio.wait_for(desk.run(), 8)
    await until(lambda: not desk.commits.left)
    assert answer.outcome is (Outcome.FAULT if task == "stage" else Outcome.OK), answer.detail
    check_the_end(desk, answer)
    keeper.cancel()
    await desk.close()


async def test_a_launcher_that_does_not_come_back_in_time(tmp_path, monkeypatch):
    monkeypatch.setattr(commits, "RECOVERY_S", 0.05)
    desk = with_plan(tmp_path)
    desk.folders.instead["settle"] = [LauncherGoneError("gone")] * 4
    answer = await desk.run()
    assert answer.outcome is Outcome.FAULT
    assert f"{answer.governance.audit_log} will say it" in answer.detail
    denied = await desk.run()  # nobody knows what it would read there
    assert [reason.rule for reason in denied.reasons] == ["plans.turn"]
    assert answer.governance.audit_log in denied.reasons[0].actual
    recovery = desk.recovery()
    keeper = asyncio.create_task(recovery.keep())
    await until(lambda: not desk.folders.instead["settle"])
    recovery.wake()
    await until(lambda: not desk.commits.left)
    keeper.cancel()
    assert desk.folders.contents(PLAN) == NEW
    assert [each["event"] for each in desk.records()][:2] == ["INTENT", "OUTCOME"]
    assert desk.records("COMMITTED")[0]["intent"] == desk.records()[0]["index"]
    assert (await desk.run()).outcome is Outcome.OK
    await desk.close()


async def test_a_folder_that_does_not_answer_is_tried_again_and_its_plan_refused_meanwhile(tmp_path):
    steps = await steps_of_a_run(tmp_path / "whole")
    desk = with_plan(tmp_path / "it", Power(steps.index("settle c.json")))
    assert await one_that_ends(desk) is None
    desk.folders.instead["settle"] = [PlanError("deadline", "it does not answer")] * 3
    again = await started_again(desk)
    assert again.commits.left
    assert again.notes()
    assert [reason.rule for reason in (await again.run()).reasons] == ["plans.turn"]
    keeper = asyncio.create_task(again.recovery().keep())
    await until(lambda: not again.commits.left)
    keeper.cancel()
    assert again.folders.contents(PLAN) == NEW
    assert (await again.run()).outcome is Outcome.OK
    await again.close()


async def test_who_changed_a_file_between_two_daemons_keeps_it(tmp_path):
    steps = await steps_of_a_run(tmp_path / "whole")
    desk = with_plan(tmp_path / "it", Power(steps.index("settle c.json")))
    assert await one_that_ends(desk) is None
    desk.folders.write(PLAN, "c.json", b"theirs")
    again = await started_again(desk)
    assert again.folders.contents(PLAN) == OLD | {"c.json": b"theirs"}
    (undone,) = again.records("UNDONE")
    assert "c.json" in undone["why"]
    assert (again.notes(), again.folders.staged) == ([], {})
    await again.close()


@pytest.mark.parametrize("placed", [True, False])
async def test_a_staging_that_somebody_removed_is_told_as_what_is_there(tmp_path, placed):
    steps = await steps_of_a_run(tmp_path / "whole")
    desk = with_plan(tmp_path / "it", Power(steps.index("appended OUTCOME")))
    assert await one_that_ends(desk) is None
    desk.folders.staged.clear()
    if placed:
        for path, content in CHANGED.items():
            desk.folders.write(PLAN, path, content)
    again = await started_again(desk)
    (end,) = again.records("COMMITTED", "UNDONE")
    assert end["event"] == ("COMMITTED" if placed else "UNDONE")
    assert again.folders.contents(PLAN) == (NEW if placed else OLD)
    assert again.notes() == []
    await again.close()


async def test_a_ledger_that_cannot_be_written_leaves_it_to_the_next_daemon(tmp_path):
    desk = with_plan(tmp_path)

    (segment,) = segments(tmp_path / "ledger")

    async def move_the_ledger(name):
        if name == "append OUTCOME":
            segment.rename(segment.with_name("moved"))

    desk.power.pause = move_the_ledger
    answer = await desk.run()
    assert answer.outcome is Outcome.FAULT
    assert "withheld" in answer.detail
    keeper = asyncio.create_task(desk.recovery().keep())
    await asyncio.sleep(0.3)
    assert desk.commits.left, "whether the OUTCOME is there only the next daemon knows"
    assert desk.folders.staged
    keeper.cancel()
    segment.with_name("moved").rename(segment)
    again = await started_again(desk)
    check_the_end(again, answer)
    await again.close()


def test_notes_are_whole_or_not_there_and_strange_ones_stay(tmp_path, capsys):
    notes = CommitLog(tmp_path)
    change = Change(name_of(7), 7, 7, False, "r1", PLAN, "garden", 1000, 1000, "plug_1", "demo", "1.0.0")
    notes.write(change)
    (tmp_path / "log_8-00000000.new").write_text("{")
    (tmp_path / "log_9-00000000.json").write_text("{")
    text = (tmp_path / f"{change.name}.json").read_text()
    (tmp_path / "log_6-00000000.json").write_text(text)
    (tmp_path / "log_5-00000000.json").write_text(text.replace(change.name, "log_5-00000000").replace(" 7,", ' "7",'))
    assert notes.load() == [change]
    left = sorted(path.name for path in tmp_path.iterdir())
    assert left == [f"log_{n}-00000000.json" for n in (5, 6)] + [f"{change.name}.json", "log_9-00000000.json"]
    assert capsys.readouterr().err.count("expected a change of a plan's files") == 3
    notes.remove(change.name)
    notes.remove(change.name)
    assert notes.load() == []


# --- any order ---------------------------------------------------------------------------------------------------------


async def interleaved(folder, pauses, ends_before, come_at):
    """Two writers of one plan, in the order that `pauses` makes, somebody who comes between, and an end of it all."""
    desk = with_plan(folder, Power(ends_before))
    desk.writes = {"1": {"a.json": b"1", "b.json": b"1"}, "2": {"a.json": b"2", "b.json": b"2", "c.json": b"2"}}
    waits = itertools.cycle(pauses or [0])

    async def pause(name):
        if len(desk.power.steps) == come_at and not desk.power.is_off:
            desk.folders.write(PLAN, "a.json", b"theirs")
        for _ in range(next(waits)):
            await asyncio.sleep(0)

    desk.power.pause = pause
    runs = [asyncio.ensure_future(desk.run(number, run_id=f"r{number}")) for number in (1, 2)]
    answers = await asyncio.gather(*runs, return_exceptions=True)
    desk.power.pause = None
    came = desk.folders.plans[PLAN].get("a.json")
    again = await started_again(desk)
    try:
        committed = [each["run"] for each in again.records("COMMITTED")]
        ok = [each["run"] for each in again.records("OUTCOME") if each["outcome"] == "ok"]
        assert sorted(committed + [each["run"] for each in again.records("UNDONE")]) == sorted(ok)
        for number, answer in enumerate(answers, 1):
            if isinstance(answer, RunAnswer) and answer.outcome is not None:
                assert (answer.outcome is Outcome.OK) == (f"r{number}" in committed), answer.detail
        now = again.folders.contents(PLAN)
        last = committed[-1][1:].encode() if committed else b"old b"
        assert now["b.json"] == last
        assert now["a.json"] in {committed[-1][1:].encode() if committed else b"old a", b"theirs"}
        assert ("c.json" in now) == ("r2" in committed)
        if b"theirs" not in {now["a.json"], came and came.content} and come_at < 0:
            assert now["a.json"] == (last if committed else b"old a")
        assert (again.folders.staged, again.notes(), again.commits.left) == ({}, [], {})
        assert len(again.commits.turns) == 0
        assert verify(again.folder / "ledger").holds
    finally:
        await again.close()


@pytest.mark.slow
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(st.integers(0, 4), max_size=12),
    st.one_of(st.just(-1), st.integers(0, 70)),
    st.one_of(st.just(-1), st.integers(0, 60)),
)
def test_two_writers_in_any_order_and_an_end_at_any_moment(pauses, ends_before, come_at):
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(interleaved(Path(folder), pauses, ends_before, come_at))
