"""What a run replaced in a plan comes back: as a whole, or not at all, and nobody's work is lost."""

import asyncio
import hashlib
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plugind.admission import InFlight, Patience
from plugind.audit import payloads, reading
from plugind.audit.verify import verify
from plugind.errors import InvalidRequestError, LauncherGoneError, NotFoundError, PlanError
from plugind.model import Caller
from plugind.planfiles import MAX_NAME_BYTES, RESERVED, path_problem
from plugind.plans.comparison import kept_name
from tests.support.plan_runs import PLAN, UID, Plans


@pytest.fixture
async def plans(tmp_path):
    made = Plans(tmp_path)
    yield made
    await made.ledger.close()
    assert verify(made.directory).findings == ()


def sha256(data):
    return hashlib.sha256(data).hexdigest()


def fields(plans, index):
    return reading.get(plans.directory, index, plans.ledger.size).fields


def events(plans):
    found = reading.newest(plans.directory, reading.Filter(), 1000, plans.ledger.size)
    return [entry.fields["event"] for entry in reversed(found)]


# --- one run ----------------------------------------------------------------------------------------------------------


async def test_what_a_run_replaced_comes_back_and_what_it_made_goes(plans):
    plans.write("a.txt", b"old")
    plans.write("b.txt", b"b")
    run = await plans.run({"a.txt": b"new", "more/c.txt": b"c"})
    assert plans.contents() == {"a.txt": b"new", "b.txt": b"b", "more/c.txt": b"c"}
    done = await plans.restore(run)
    assert plans.contents() == {"a.txt": b"old", "b.txt": b"b"}
    assert (done.state, done.detail) == ("restored", "")
    first, second = done.files
    assert (first.path, first.written_sha256, first.found_sha256) == ("a.txt", sha256(b"new"), sha256(b"new"))
    assert (first.restored_sha256, first.unchanged, first.difference) == (sha256(b"old"), True, "")
    assert (second.path, second.restored_sha256) == ("more/c.txt", "")
    assert not plans.folders.staged


async def test_the_record_is_there_before_anything_changes_and_says_who_why_and_what(plans):
    plans.write("a.txt", b"old")
    run = await plans.run({"a.txt": b"new"})
    seen = []

    async def step(name):
        if name.startswith(("stage", "settle")):
            seen.append((name, events(plans)[-1], plans.contents()["a.txt"]))

    plans.folders.step = step
    done = await plans.restore(run)
    assert seen == [
        *((name, "COMMITTED", b"new") for name in ("stage", "stage a.txt")),
        *((name, "RESTORE", b"new") for name in ("settle", "settle a.txt")),
        ("settled", "RESTORE", b"old"),
    ]
    record = fields(plans, done.record)
    assert (record["event"], record["of"], record["by_uid"], record["why"]) == ("RESTORE", run, 0, "it was wrong")
    assert (record["caller_uid"], record["plan_dir"], record["forced"]) == (UID, PLAN, False)
    assert [(each["path"], each["content"]["sha256"], each["replaced"]["sha256"]) for each in record["files"]] == [
        ("a.txt", sha256(b"old"), sha256(b"new"))
    ]
    assert (fields(plans, done.record + 1)["event"], fields(plans, done.record + 1)["intent"]) == (
        "COMMITTED",
        done.record,
    )
    assert all(caller.pid == 0 and caller.uid == UID for task, _, caller in plans.folders.asked[-4:])


@pytest.mark.parametrize("empty", ["before", "after"])
async def test_a_file_without_a_byte_is_a_file(plans, empty):
    plans.write("a.txt", b"" if empty == "before" else b"x")
    run = await plans.run({"a.txt": b"y" if empty == "before" else b""})
    before = await plans.restore(run)
    assert (before.state, plans.contents()) == ("restored", {"a.txt": b"" if empty == "before" else b"x"})
    again = await plans.restore(before.record)
    assert (again.state, plans.contents()) == ("restored", {"a.txt": b"y" if empty == "before" else b""})


async def test_any_record_of_a_run_means_the_run(plans):
    run = await plans.run({"a.txt": b"new"})
    outcome = reading.other_half(plans.directory, reading.get(plans.directory, run)).index
    committed = outcome + 1
    for index in (outcome, committed):
        done = await plans.restore(index, dry_run=True)
        assert (done.state, done.write.log_id) == ("would_restore", f"log_{run}")


async def test_what_is_no_run_is_refused(plans):
    with pytest.raises(InvalidRequestError, match=r"log_0: expected a record of a run, .*, got START"):
        await plans.restore(0)
    with pytest.raises(NotFoundError):
        await plans.restore(99)


async def test_a_dry_run_changes_nothing_and_says_what_would_be(plans):
    plans.write("a.txt", b"old")
    run = await plans.run({"a.txt": b"new"})
    size = plans.ledger.size
    done = await plans.restore(run, dry_run=True)
    assert (done.state, done.record, plans.ledger.size) == ("would_restore", -1, size)
    assert plans.contents() == {"a.txt": b"new"}
    assert {task for task, _, _ in plans.folders.asked[-1:]} == {"compare"}
    plans.write("a.txt", b"mine")
    assert (await plans.restore(run, dry_run=True)).state == "conflict"
    forced = await plans.restore(run, dry_run=True, force=True)
    assert (forced.state, forced.files[0].kept_as) == ("would_restore", f"a.txt.plugind-kept-log_{run}")
    assert (plans.contents(), plans.ledger.size) == ({"a.txt": b"mine"}, size)


# --- nothing to do ----------------------------------------------------------------------------------------------------


async def test_runs_that_changed_nothing_have_nothing_to_undo(plans):
    plans.write("a.txt", b"old")
    reader = await plans.run({}, reads=["a.txt"])
    sent = await plans.run({"a.txt": b"x"}, sent=True)
    failed = await plans.run({"a.txt": b"x"}, outcome="canceled")
    said = [await plans.restore(index) for index in (reader, sent, failed)]
    assert [each.state for each in said] == ["nothing"] * 3
    assert [each.detail.split(",")[0] for each in said] == [
        "it has written no file of a plan",
        "its files went back to its caller",
        "its files did not stay in the plan's folder: canceled",
    ]


async def test_what_was_undone_is_not_undone_again(plans):
    run = await plans.run({"a.txt": b"new"})
    first = await plans.restore(run)
    again = await plans.restore(run)
    expected = f"log_{first.record} has undone it already; to undo that, restore log_{first.record}"
    assert (again.state, again.detail, again.record) == ("nothing", expected, -1)


async def test_a_run_that_is_not_decided_is_left_alone(plans):
    run = await plans.run({"a.txt": b"new"}, settle=False)
    done = await plans.restore(run, force=True)
    assert (done.state, done.detail.split(":")[0]) == (
        "failed",
        "its files are still on their way into the plan's folder",
    )


async def test_what_somebody_put_back_by_hand_needs_no_record(plans):
    plans.write("a.txt", b"old")
    run = await plans.run({"a.txt": b"new", "b.txt": b"b"})
    plans.write("a.txt", b"old")
    plans.remove("b.txt")
    assert (await plans.restore(run)).state == "conflict"
    size = plans.ledger.size
    done = await plans.restore(run, force=True)
    assert (done.state, done.detail, plans.ledger.size) == ("nothing", "every file is as it was before", size)


# --- conflicts --------------------------------------------------------------------------------------------------------


async def test_a_change_since_is_shown_and_keeps_everything_as_it_is(plans):
    plans.write("a.txt", b"old\n")
    run = await plans.run({"a.txt": b"one\ntwo\nthree\n", "b.txt": b"b"})
    plans.write("a.txt", b"one\n2\nthree\n")
    size = plans.ledger.size
    done = await plans.restore(run)
    assert (done.state, done.record, plans.ledger.size) == ("conflict", -1, size)
    changed, unchanged = done.files
    assert (changed.unchanged, unchanged.unchanged, unchanged.difference) == (False, True, "")
    assert changed.found_sha256 == sha256(b"one\n2\nthree\n")
    assert changed.difference.splitlines() == [
        f"--- a.txt (log_{run})", "+++ a.txt (now)", "@@ -1,3 +1,3 @@", " one", "-two", "+2", " three",
    ]  # fmt: skip
    assert plans.contents() == {"a.txt": b"one\n2\nthree\n", "b.txt": b"b"}


async def test_what_is_no_text_has_no_difference(plans):
    run = await plans.run({"a.bin": b"\xff\x00", "b.txt": b"text"})
    plans.write("a.bin", b"text")
    plans.write("b.txt", b"\xff")
    assert [each.difference for each in (await plans.restore(run)).files] == ["", ""]


async def test_a_file_that_is_gone_is_a_conflict_too_and_forced_it_comes_back(plans):
    plans.write("a.txt", b"old")
    run = await plans.run({"a.txt": b"new", "b.txt": b"b"})
    plans.remove("a.txt")
    done = await plans.restore(run)
    assert (done.state, done.files[0].found_sha256) == ("conflict", "")
    assert (await plans.restore(run, force=True)).state == "restored"
    assert plans.contents() == {"a.txt": b"old"}


async def test_force_keeps_what_is_there_beside_what_comes_back(plans):
    plans.write("more/a.txt", b"old")
    run = await plans.run({"more/a.txt": b"new", "b.txt": b"b"})
    plans.write("more/a.txt", b"mine")
    done = await plans.restore(run, force=True)
    kept = f"more/a.txt.plugind-kept-log_{run}"
    assert (done.state, [each.kept_as for each in done.files]) == ("restored", [kept, ""])
    assert plans.contents() == {"more/a.txt": b"old", kept: b"mine"}
    record = fields(plans, done.record)
    assert record["forced"] is True
    assert {each["path"]: each["replaced"]["sha256"] for each in record["files"]} == {
        "more/a.txt": sha256(b"mine"), "b.txt": sha256(b"b"), kept: "",
    }  # fmt: skip
    undone = await plans.restore(done.record)
    assert (undone.state, plans.contents()) == ("restored", {"more/a.txt": b"mine", "b.txt": b"b"})


async def test_force_takes_the_next_free_name(plans):
    run = await plans.run({"a.txt": b"new"})
    taken = [kept_name("a.txt", run, number) for number in (1, 2)]
    for name in taken:
        plans.write(name, b"another's")
    plans.write("a.txt", b"mine")
    done = await plans.restore(run, force=True)
    assert done.files[0].kept_as == f"a.txt.plugind-kept-log_{run}-3"
    assert plans.contents() == dict.fromkeys(taken, b"another's") | {f"{taken[0]}-3": b"mine"}


async def test_where_nothing_can_be_kept_nothing_is_changed(plans):
    long = "a" * (MAX_NAME_BYTES - 10)
    run = await plans.run({long: b"new"})
    plans.write(long, b"mine")
    done = await plans.restore(run, force=True)
    assert (done.state, "cannot be kept beside it: expected at most" in done.detail) == ("failed", True)
    assert plans.contents() == {long: b"mine"}


def test_names_of_what_is_kept_are_those_of_files():
    assert path_problem(kept_name("more/a.txt", 10**18 - 1, 99)) == ""
    assert not kept_name("a.txt", 5, 1).startswith(RESERVED)


async def test_what_is_no_file_any_more_is_not_forced(plans):
    plans.write("a.txt", b"old")
    run = await plans.run({"a.txt": b"new"})
    plans.write("a.txt", b"", problem="symlink")
    for force in (False, True):
        done = await plans.restore(run, force=force)
        assert (done.state, done.detail) == ("conflict", "a.txt: there is a symlink now")
        assert done.files[0].problem == "symlink"
    assert plans.contents() == {"a.txt": b""}


@pytest.mark.parametrize("step", ["stage", "settle a.txt"])
async def test_who_comes_between_is_not_written_over(plans, step):
    plans.write("a.txt", b"old")
    run = await plans.run({"a.txt": b"new"})

    async def between(name):
        if name == step:
            plans.write("a.txt", b"mine")

    plans.folders.step = between
    done = await plans.restore(run)
    assert (done.state, "somebody else has changed it meanwhile" in done.detail) == ("conflict", True)
    assert (plans.contents(), plans.folders.staged) == ({"a.txt": b"mine"}, {})
    assert events(plans)[-1] == ("UNDONE" if done.record >= 0 else "COMMITTED")
    assert plans.commits.left == {}


# --- what fails -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("damage", ["changed", "gone"])
async def test_a_damaged_payload_restores_nothing(tmp_path, damage):
    plans = Plans(tmp_path)
    plans.write("a.txt", b"the old content")
    plans.write("b.txt", b"b")
    run = await plans.run({"b.txt": b"c", "a.txt": b"new"})
    (pack,) = payloads.packs(plans.directory)
    if damage == "changed":
        pack.write_bytes(pack.read_bytes().replace(b"old content", b"bad content"))
    else:
        pack.unlink()
    for dry_run in (True, False):
        done = await plans.restore(run, dry_run=dry_run)
        assert (
            done.state,
            done.record,
            "expected the payload" in done.detail or "expected a payload" in done.detail,
        ) == (
            "failed",
            -1,
            True,
        )
    assert plans.contents() == {"a.txt": b"new", "b.txt": b"c"}
    assert not plans.folders.staged
    await plans.ledger.close()


@pytest.mark.parametrize(
    "error", [PlanError("caller", "who is that"), PlanError("large", "too large"), LauncherGoneError("it is away")]
)
async def test_what_the_folder_or_the_launcher_says_is_told(plans, error):
    run = await plans.run({"a.txt": b"new"})
    plans.folders.instead["compare"] = [error]
    done = await plans.restore(run)
    assert (done.state, done.detail, plans.contents()) == ("failed", str(error), {"a.txt": b"new"})


async def test_somebody_whom_the_launcher_does_not_know_is_nobody(plans):
    run = await plans.run({"a.txt": b"new"})
    plans.folders.known.clear()
    assert (await plans.restore(run)).state == "failed"
    assert plans.contents() == {"a.txt": b"new"}


async def test_an_undo_waits_for_the_run_that_writes_and_not_for_ever(plans, monkeypatch):
    run = await plans.run({"a.txt": b"new"})
    writer = InFlight("r9", Caller(UID, UID, 5), "", 0)
    async with plans.commits.turns.write(PLAN, writer, Patience()):
        monkeypatch.setattr("plugind.plans.undo.TURN_S", 0.05)
        done = await plans.restore(run)
        assert (done.state, done.detail) == ("failed", f"a run still writes to {PLAN}: try it again")
        monkeypatch.undo()
        waiting = asyncio.create_task(plans.restore(run))
        await asyncio.sleep(0.05)
        assert plans.contents() == {"a.txt": b"new"}
    assert ((await waiting).state, plans.contents()) == ("restored", {})


async def test_a_plan_in_which_a_change_is_not_decided_is_left_alone(plans):
    run = await plans.run({"a.txt": b"new"})
    plans.commits.left["x"] = _Left(PLAN)
    done = await plans.restore(run)
    assert (done.state, done.detail) == ("failed", f"log_77 still writes to {PLAN}: try it again")
    assert "stage" not in [task for task, _, _ in plans.folders.asked[-1:]]
    plans.commits.left.clear()


class _Left:
    """A change that nobody knows the end of."""

    class _Change:
        of = 77

    def __init__(self, plan_dir):
        self.change = self._Change()
        self.change.plan_dir = plan_dir
        self.done = asyncio.get_running_loop().create_future()


async def test_an_undo_that_nobody_waits_for_any_more_comes_to_its_end(plans):
    run = await plans.run({"a.txt": b"new"})
    reached, go_on = asyncio.Event(), asyncio.Event()

    async def step(name):
        if name == "settle a.txt":
            reached.set()
            await go_on.wait()

    plans.folders.step = step
    task = asyncio.create_task(plans.restore(run))
    await reached.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    go_on.set()
    while plans.undo._under_way:
        await asyncio.sleep(0.01)
    assert (plans.contents(), events(plans)[-1]) == ({}, "COMMITTED")


# --- restores are restored --------------------------------------------------------------------------------------------


async def test_an_undo_can_be_undone_and_again(plans):
    plans.write("a.txt", b"old")
    run = await plans.run({"a.txt": b"new", "b.txt": b"b"})
    indexes, states = [run], []
    for _ in range(4):
        done = await plans.restore(indexes[-1])
        assert done.state == "restored"
        indexes.append(done.record)
        states.append(plans.contents())
    old, new = {"a.txt": b"old"}, {"a.txt": b"new", "b.txt": b"b"}
    assert states == [old, new, old, new]
    assert (await plans.restore(indexes[1])).detail.startswith(f"log_{indexes[2]} has undone it")
    # The run is in force: the undoing of its undoing was undone, and that too.
    writes, write = plans.writes(run)
    assert writes.in_force(write) is True


async def test_a_run_that_was_put_back_again_can_be_undone_as_before(plans):
    plans.write("a.txt", b"old")
    run = await plans.run({"a.txt": b"new"})
    first = await plans.restore(run)
    await plans.restore(first.record)
    again = await plans.restore(run)
    assert (again.state, plans.contents()) == ("restored", {"a.txt": b"old"})
    assert fields(plans, again.record)["of"] == run


# --- all of a plugin --------------------------------------------------------------------------------------------------


async def test_all_runs_of_a_version_over_three_plans_newest_first(plans):
    folders = ["/plans/a", "/plans/b", "/plans/c"]
    for folder in folders:
        plans.write("a.txt", b"0", folder)
    runs = []
    for content in (b"1", b"2"):
        runs += [await plans.run({"a.txt": content}, folder) for folder in folders]
    other = await plans.run({"b.txt": b"other"}, "/plans/a", version="2.0.0")
    another = await plans.run({"c.txt": b"c"}, "/plans/b", plugin="another")
    dry = await plans.restore_all("1.0.0", dry_run=True)
    assert [each.state for each in dry] == ["would_restore"] * 6  # the older ones' files as they would be then
    assert plans.contents("/plans/c") == {"a.txt": b"2"}
    done = await plans.restore_all("1.0.0")
    assert [each.write.index for each in done] == runs[::-1]
    assert [each.state for each in done] == ["restored"] * 6
    assert [plans.contents(folder) for folder in folders] == [
        {"a.txt": b"0", "b.txt": b"other"}, {"a.txt": b"0", "c.txt": b"c"}, {"a.txt": b"0"},
    ]  # fmt: skip
    assert await plans.restore_all("1.0.0") == []
    (last,) = await plans.restore_all()
    assert (last.write.index, last.state) == (other, "restored")
    (last,) = await plans.restore_all(plugin="plug_another")
    assert (last.write.index, last.state) == (another, "restored")


async def test_a_conflict_stops_only_what_was_before_it_on_the_same_file(plans):
    first = await plans.run({"a.txt": b"1"})
    second = await plans.run({"a.txt": b"2"})
    third = await plans.run({"b.txt": b"3"})
    plans.write("a.txt", b"mine")
    done = await plans.restore_all()
    assert [(each.write.index, each.state) for each in done] == [
        (third, "restored"), (second, "conflict"), (first, "conflict"),
    ]  # fmt: skip
    assert plans.contents() == {"a.txt": b"mine"}
    forced = await plans.restore_all(force=True)
    assert [each.state for each in forced] == ["restored", "restored"]
    assert plans.contents() == {f"a.txt.plugind-kept-log_{second}": b"mine"}


async def test_since_leaves_older_runs_alone(plans):
    older = await plans.run({"a.txt": b"1"})
    await asyncio.sleep(0.005)
    since = fields(plans, plans.ledger.size - 1)["time_unix_ms"] + 1
    newer = await plans.run({"b.txt": b"2"})
    assert [each.write.index for each in await plans.restore_all(since_unix_ms=since)] == [newer]
    assert [each.write.index for each in await plans.restore_all()] == [older]


async def test_too_many_at_once_are_refused_before_anything_is_done(plans, monkeypatch):
    monkeypatch.setattr("plugind.plans.undo.MOST_RUNS", 1)
    for content in (b"1", b"2"):
        await plans.run({"a.txt": content})
    with pytest.raises(InvalidRequestError, match=r"since: expected at most 1 runs with .* got 2 with 2"):
        await plans.restore_all()
    assert plans.contents() == {"a.txt": b"2"}


# --- whatever happened ------------------------------------------------------------------------------------------------

PATHS = ("a", "b", "c/d")
runs = st.tuples(st.just("run"), st.sets(st.sampled_from(PATHS), min_size=1))
restores = st.tuples(st.just("restore"), st.integers(0, 20))


@pytest.mark.slow
@given(st.sets(st.sampled_from(PATHS)), st.lists(st.one_of(runs, restores), max_size=14))
@settings(max_examples=60)
def test_undoing_all_newest_first_gives_the_folder_as_it_was(there, steps):
    asyncio.run(_undo_everything(there, steps))


async def _undo_everything(there, steps):
    with tempfile.TemporaryDirectory() as folder:
        plans = Plans(Path(folder))
        for path in there:
            plans.write(path, f"original {path}".encode())
        original, known = plans.contents(), []
        for number, (kind, what) in enumerate(steps):
            before = plans.contents()
            if kind == "run":
                known.append(await plans.run({path: f"{number} {path}".encode() for path in sorted(what)}))
            elif known:
                done = await plans.restore(known[what % len(known)])
                assert done.state in ("restored", "conflict", "nothing")
                if done.state == "restored":
                    known.append(done.record)
                else:
                    assert plans.contents() == before
        done = await plans.restore_all()
        assert {each.state for each in done} <= {"restored"}
        assert plans.contents() == original
        await plans.ledger.close()
        assert verify(plans.directory).findings == ()


@given(st.lists(st.tuples(st.sampled_from(PATHS), st.booleans()), max_size=8))
@settings(max_examples=40)
def test_force_loses_no_content_that_somebody_put_there(steps):
    asyncio.run(_force_everything(steps))


async def _force_everything(steps):
    with tempfile.TemporaryDirectory() as folder:
        plans, by_hand = Plans(Path(folder)), set()
        for number, (path, is_run) in enumerate(steps):
            content = f"{number}".encode()
            if is_run:
                by_hand.discard(plans.contents().get(path))  # a run may replace it, and its undoing brings it back
                await plans.run({path: content})
            else:
                plans.write(path, content)
                by_hand = {each for each in by_hand if each in plans.contents().values()} | {content}
        done = await plans.restore_all(force=True)
        assert {each.state for each in done} <= {"restored", "nothing"}
        assert by_hand <= set(plans.contents().values())
        await plans.ledger.close()


# --- the world ends in the middle -------------------------------------------------------------------------------------


class EndOfTheWorldError(BaseException):
    """Nothing more is done."""


async def _undo_until(folder, last):
    """An undo of which only so many steps happen, and what the next daemon makes of it; whether it was stopped."""
    plans, steps = Plans(folder), 0
    for path in ("a.txt", "b.txt"):
        plans.write(path, b"old")
    run = await plans.run({"a.txt": b"new", "b.txt": b"new", "c.txt": b"new"})
    plans.write("a.txt", b"mine")

    async def step(_name):
        nonlocal steps
        steps += 1
        if steps > last:
            raise EndOfTheWorldError

    plans.folders.step = step
    stopped = False
    try:
        await plans.restore(run, force=True)
    except EndOfTheWorldError:
        stopped = True
    await plans.ledger.close()
    return plans, run, stopped


async def test_wherever_it_ends_the_next_daemon_has_all_of_it_or_nothing(tmp_path):
    before = {"a.txt": b"mine", "b.txt": b"new", "c.txt": b"new"}
    seen = set()
    for last in range(60):
        folder = tmp_path / str(last)
        plans, run, stopped = await _undo_until(folder, last)
        after = {"a.txt": b"old", "b.txt": b"old", f"a.txt.plugind-kept-log_{run}": b"mine"}
        again = await plans.again(folder)
        restores = [index for index in range(run, again.ledger.size) if fields(again, index)["event"] == "RESTORE"]
        ends = [index for index in restores if again.writes(index)[1].state == "committed"]
        assert again.contents() == (after if restores else before)
        assert ends == restores
        assert (again.folders.staged, again.commits.left, list((folder / "commits").iterdir())) == ({}, {}, [])
        seen.add(bool(restores))
        await again.ledger.close()
        assert verify(again.directory).findings == ()
        if not stopped:
            break
    assert (stopped, seen) == (False, {True, False})
