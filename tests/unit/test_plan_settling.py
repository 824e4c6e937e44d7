"""What a run wrote gets into a plan's folder as a whole or not at all, and nobody else's work is lost by it."""

from __future__ import annotations

import errno
import os
import stat
import struct

import pytest

from plugind.errors import PlanError
from plugind.planfiles import Entry
from plugind.sandbox.plans.calls import Calls
from plugind.sandbox.plans.opening import plan_opened
from plugind.sandbox.plans.stagings import staging_opened
from tests.support.descriptors import opened
from tests.support.plan_kernel import (
    MOST,
    Crash,
    HookedCalls,
    changes,
    clean,
    contents,
    fill,
    marks,
    settle,
    sha256,
    stage,
    work,
)

OLD = {"a": b"old a", "sub/b": b"old b", "gone": b"old gone", "stays": b"stays"}
NEW = {"a": b"new a", "sub/b": b"new b", "gone": None, "made": b"new", "x/y/z": b"deep", "x/w": b"wide"}
BEFORE = {**OLD, "sub": None}
AFTER = {"a": b"new a", "sub/b": b"new b", "stays": b"stays", "sub": None, "made": b"new"} | {
    "x": None,
    "x/y": None,
    "x/y/z": b"deep",
    "x/w": b"wide",
}


@pytest.fixture
def plan(tmp_path):
    made = tmp_path / "root" / "plan"
    made.mkdir(parents=True)
    fill(made, OLD)
    return made


def refused(code, match):
    class Refused:
        def __enter__(self):
            self.raised = pytest.raises(PlanError, match=match)
            self.caught = self.raised.__enter__()

        def __exit__(self, *details):
            assert self.raised.__exit__(*details)
            assert self.caught.value.code == code
            return True

    return Refused()


def test_staging_changes_nothing_and_tells_what_will_be_replaced(plan):
    answer = stage(plan, NEW)
    assert contents(plan) == BEFORE
    assert {path: entry.content for path, entry in answer.items()} == {path: OLD.get(path) for path in NEW}
    assert stat.S_IMODE((plan / ".plugind-r1").stat().st_mode) == 0o700


def test_forward_and_told_again_until_it_is_clean(plan):
    stage(plan, NEW)
    for _ in range(2):
        assert settle(plan) == ("committed", "")
        assert contents(plan) == AFTER
    assert settle(plan, forward=False) == ("committed", ""), "decided"
    assert clean(plan) == clean(plan) == []
    assert settle(plan) == ("nothing", "")
    assert contents(plan, ours=True) == AFTER


def test_given_up(plan):
    stage(plan, NEW)
    for forward in (False, True):
        assert settle(plan, forward=forward) == ("undone", "given up")
        assert contents(plan) == BEFORE
    clean(plan)
    assert contents(plan, ours=True) == BEFORE


def test_a_staging_that_never_ended_is_nothing_and_makes_room(plan):
    (plan / ".plugind-r1").mkdir(mode=0o700)
    (plan / ".plugind-r1" / "f0").write_bytes(b"half")
    (plan / ".plugind-r2").mkdir(mode=0o700)
    (plan / ".plugind-r2" / "d0").mkdir()
    assert settle(plan) == ("nothing", "")
    stage(plan, {"a": b"1"}, run="r2")
    assert settle(plan, "r2") == ("committed", "")
    clean(plan, "r2")
    assert contents(plan, ours=True) == {**BEFORE, "a": b"1"}


def test_a_complete_staging_is_not_staged_again(plan):
    stage(plan, NEW)
    with refused("fault", "got a complete one"):
        stage(plan, NEW)
    with refused("fault", "expected a decision"):
        clean(plan)
    assert settle(plan)[0] == "committed"


def test_a_conflict_names_every_file_and_leaves_nothing_behind(plan):
    entries = changes(plan, NEW)
    fill(plan, {"a": b"theirs", "made": b"theirs"})
    (plan / "sub/b").unlink()
    with refused("conflict", r"meanwhile: a, sub/b, made: run again"):
        work("stage", plan, entries, run="r1", most_bytes=MOST)
    assert not list(plan.glob(".plugind-*"))


def test_what_is_expected_can_be_said_by_digest(plan):
    def ask(**expected):
        return work(
            "stage",
            plan,
            [Entry(path, b"1", facts={"expected_sha256": digest}) for path, digest in expected.items()],
            run="r1",
            most_bytes=MOST,
        )

    with refused("conflict", "a, none"):
        ask(a=sha256(b"other"), none=sha256(b""))
    with refused("conflict", "gone"):
        ask(gone="")
    ask(a=sha256(b"old a"), none="")
    assert settle(plan)[0] == "committed"


def test_old_contents_have_a_ceiling(plan):
    assert work("stage", plan, changes(plan, {"a": b"1"}), run="r9")[0]["a"].content == b"old a"
    settle(plan, "r9", forward=False)
    clean(plan, "r9")
    with refused("large", "sub/b"):
        work("stage", plan, changes(plan, NEW), run="r1", most_bytes=9)
    assert contents(plan, ours=True) == BEFORE


@pytest.mark.parametrize("kind", ["symlink", "fifo", "hard link", "folder"])
def test_targets_that_nobody_replaces(plan, kind):
    target = plan / "t"
    make = {
        "symlink": lambda: target.symlink_to("a"),
        "fifo": lambda: os.mkfifo(target),
        "hard link": lambda: os.link(plan / "a", target),
        "folder": target.mkdir,
    }[kind]
    make()
    with refused("file", f"t: expected a regular file with one name, got a {kind}"):
        work("stage", plan, [Entry("t", b"1")], run="r1", most_bytes=MOST)
    assert not list(plan.glob(".plugind-*"))


def test_paths_through_what_is_no_folder(plan):
    (plan / "link").symlink_to("sub")
    for path, match in (("a/x", "no folder"), ("link/x", "a link")):
        with refused("file", match):
            work("stage", plan, [Entry(path, b"1")], run="r1", most_bytes=MOST)
    with refused("file", "got the file n"):
        work("stage", plan, [Entry("n", b"1"), Entry("n/x", b"1")], run="r1", most_bytes=MOST)


def test_a_staging_that_is_not_ours_is_not_believed(plan):
    (plan / ".plugind-r1").mkdir(mode=0o755)
    (plan / ".plugind-r2").symlink_to("sub")
    for run in ("r1", "r2"):
        for task in (settle, clean, lambda plan, run: stage(plan, {"a": b"1"}, run)):
            with refused("file", "expected a folder of uid"):
                task(plan, run)


def test_what_is_not_ours_in_a_staging_is_not_removed(plan):
    stage(plan, NEW)
    settle(plan)
    (plan / ".plugind-r1" / "mine").write_bytes(b"")
    with refused("file", "mine: expected what plugind puts there"):
        clean(plan)
    assert (plan / ".plugind-r1" / "journal.json").exists()


def test_a_link_in_a_staging_is_removed_and_not_followed(plan):
    stage(plan, NEW)
    settle(plan)
    (plan / ".plugind-r1" / "f77").symlink_to(plan / "stays")
    clean(plan)
    assert contents(plan, ours=True) == AFTER


@pytest.mark.parametrize(
    "journal",
    [
        b"",
        b"{}",
        b'{"version":1,"run":"r2","changes":[],"folders":[]}',
        b'{"version":1,"run":"r1","changes":[{"path":"../x","name":"f0","new":null,"old":null}],"folders":[]}',
        b'{"version":1,"run":"r1","changes":[],"folders":[{"path":"x","name":"../d0","inode":1}]}',
        b"[" * 100_000,
    ],
)
def test_a_journal_that_is_none_is_a_fault(plan, journal):
    stage(plan, NEW)
    (plan / ".plugind-r1" / "journal.json").write_bytes(journal)
    with refused("fault", "expected its journal"):
        settle(plan)
    assert contents(plan) == BEFORE


def test_two_helpers_do_not_work_on_one_staging(plan):
    stage(plan, NEW)
    descriptor = os.open(plan / ".plugind-r1", os.O_RDONLY)
    import fcntl

    fcntl.flock(descriptor, fcntl.LOCK_EX)
    for task in (settle, clean):
        with refused("busy", "another helper"):
            task(plan)
    os.close(descriptor)
    assert settle(plan)[0] == "committed"


def test_modes_are_kept_and_set_user_id_is_not(plan):
    (plan / "a").chmod(0o4751)
    (plan / "sub/b").chmod(0o600)
    before = os.umask(0o027)
    try:
        stage(plan, NEW)
    finally:
        os.umask(before)
    settle(plan)
    modes = {path: stat.S_IMODE((plan / path).stat().st_mode) for path in ("a", "sub/b", "made", "x", "x/y/z")}
    assert modes == {"a": 0o751, "sub/b": 0o600, "made": 0o640, "x": 0o750, "x/y/z": 0o640}


def test_an_access_list_is_kept(plan):
    # acl(5) as the kernel has it: version, then tag, permissions, id. The group itself may nothing, user 12345 reads.
    entries = [(1, 6, 2**32 - 1), (2, 4, 12345), (4, 0, 2**32 - 1), (16, 4, 2**32 - 1), (32, 0, 2**32 - 1)]
    listed = struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)
    try:
        os.setxattr(plan / "a", "system.posix_acl_access", listed)
    except OSError as error:
        if error.errno != errno.EOPNOTSUPP:
            raise
        pytest.skip("NOT TESTED: this file system has no access lists")
    stage(plan, NEW)
    settle(plan)
    assert (plan / "a").read_bytes() == b"new a"
    assert os.getxattr(plan / "a", "system.posix_acl_access") == listed


@pytest.mark.root  # gives files away
def test_groups_are_kept_and_given_by_the_folder(plan):
    os.chown(plan / "a", 0, 54321)
    (plan / "sub").chmod(0o2755)
    os.chown(plan / "sub", 0, 54322)
    (plan / "sub").chmod(0o2755)
    stage(plan, {"a": b"1", "sub/new": b"2"})
    settle(plan)
    assert ((plan / "a").stat().st_gid, (plan / "sub/new").stat().st_gid) == (54321, 54322)


def test_a_group_that_cannot_be_kept_gives_nobody_more(plan):
    class NoMember(HookedCalls):
        def fstat(self, descriptor):
            return os.stat_result([*os.fstat(descriptor)[:5], 54321, *os.fstat(descriptor)[6:]])

        def fchown(self, descriptor, gid):
            raise PermissionError

    from plugind.sandbox.plans.files import Found
    from plugind.sandbox.plans.staging import _keep_rights

    (plan / "a").chmod(0o664)
    with (plan / "sub/b").open("wb") as file:
        found = Found(b"", (plan / "a").stat(), b"")
        _keep_rights(NoMember(lambda *_: None), file.fileno(), found, "a")
        assert stat.S_IMODE((plan / "sub/b").stat().st_mode) == 0o644
        with refused("denied", "its access list"):
            _keep_rights(NoMember(lambda *_: None), file.fileno(), Found(b"", (plan / "a").stat(), b"list"), "a")


def test_a_file_system_that_cannot_exchange_is_refused_at_once(plan):
    class Other(HookedCalls):
        def exchange(self, *_):
            raise OSError(errno.EINVAL, "Invalid argument")

    with refused("open", "exchanges names"):
        stage(plan, NEW, calls=Other(lambda *_: None))
    assert contents(plan, ours=True) == BEFORE


def test_a_full_disk_leaves_nothing_behind(plan):
    class Full(HookedCalls):
        def write(self, descriptor, content):
            os.write(descriptor, content[:1])
            raise OSError(errno.ENOSPC, "No space left on device")

    with refused("fault", "No space left"):
        stage(plan, NEW, calls=Full(lambda *_: None))
    assert contents(plan, ours=True) == BEFORE


FOREIGN = {
    "written": lambda plan: (plan / "sub/b").write_bytes(b"theirs"),
    "replaced": lambda plan: ((plan / "tmp").write_bytes(b"old b"), (plan / "tmp").rename(plan / "sub/b")),
    "removed": lambda plan: (plan / "sub/b").unlink(),
    "made": lambda plan: (plan / "made").write_bytes(b"theirs"),
    "deleted file written": lambda plan: (plan / "gone").write_bytes(b"theirs"),
    "linked": lambda plan: ((plan / "sub/b").unlink(), (plan / "sub/b").symlink_to("/etc/passwd")),
    "folder moved": lambda plan: (plan / "sub").rename(plan / "moved"),
    "folder linked": lambda plan: ((plan / "sub").rename(plan / "moved"), (plan / "sub").symlink_to("moved")),
    "file for a folder": lambda plan: (plan / "x").write_bytes(b"theirs"),
    "link for a folder": lambda plan: (plan / "x").symlink_to("sub"),
    "staged file taken": lambda plan: (plan / ".plugind-r1/f1").unlink(),
    "staged file written": lambda plan: (plan / ".plugind-r1/f1").write_bytes(b"other"),
}


def snapshot(plan):
    """What is in the plan, without following a link."""
    return {
        path.relative_to(plan).as_posix(): str(path.readlink())
        if path.is_symlink()
        else path.is_file() and path.read_bytes()
        for path in sorted(plan.rglob("*"))
        if ".plugind-r1" not in path.parts
    }


@pytest.mark.parametrize("what", FOREIGN)
def test_whoever_comes_between_stays_and_all_else_is_put_back(plan, what):
    stage(plan, NEW)
    FOREIGN[what](plan)
    expected = snapshot(plan)
    state, why = settle(plan)
    assert (state, bool(why)) == ("undone", True)
    if what == "staged file written":
        expected["sub/b.plugind-kept-r1"] = b"other"  # nobody can say whose it is
    assert snapshot(plan) == expected
    assert settle(plan) == (state, why)
    clean(plan)
    assert not (plan / ".plugind-r1").exists()


class Between(HookedCalls):
    """Somebody who acts once before, and once after, the first call of this name that means this name."""

    def __init__(self, call, name, before, after):
        super().__init__(lambda *_: None)
        self.acts = [before, after]

        def acting(*arguments):
            if name not in arguments or not self.acts:
                return getattr(HookedCalls, call)(self, *arguments)
            self.acts.pop(0)()
            result = getattr(HookedCalls, call)(self, *arguments)
            self.acts.pop(0)()
            return result

        setattr(self, call, acting)


def put(plan, path, content):
    (plan / "draft").write_bytes(content)
    (plan / "draft").rename(plan / path)


@pytest.mark.parametrize("path, call", [("sub/b", "exchange"), ("gone", "rename")])
def test_two_who_come_between_lose_nothing(plan, path, call):
    """One after we have looked, the other before we have seen what came out."""
    stage(plan, NEW)
    acts = [lambda: put(plan, path, b"first"), lambda: put(plan, path, b"second")]
    state, why = settle(plan, calls=Between(call, path.split("/")[-1], *acts))
    assert state == "undone"
    assert f"{path}: what somebody has put there is {path}.plugind-kept-r1 now" in why
    assert contents(plan) == {**BEFORE, path: b"second", f"{path}.plugind-kept-r1": b"first"}


def test_who_comes_after_us_stays_in_place_when_all_else_is_put_back(plan):
    stage(plan, NEW)
    acts = [lambda: None, lambda: (put(plan, "a", b"after"), put(plan, "sub/b", b"theirs"))]
    assert settle(plan, calls=Between("exchange", "a", *acts))[0] == "undone"
    assert contents(plan) == {**BEFORE, "a": b"after", "sub/b": b"theirs"}


def test_what_is_kept_beside_never_takes_a_name_and_fits(plan):
    name = "é" * 127
    fill(plan, {name: b"old", "x.plugind-kept-r1": b"there"})
    for path in (name, "x"):
        fill(plan, {path: b"old"})
        stage(plan, {path: b"new"})
        acts = [lambda path=path: put(plan, path, b"first"), lambda path=path: put(plan, path, b"second")]
        assert settle(plan, calls=Between("exchange", path, *acts))[0] == "undone"
        clean(plan)
    assert (plan / "x.plugind-kept-r1").read_bytes() == b"there"
    assert (plan / "x.plugind-kept-r1-1").read_bytes() == b"first"
    assert (plan / ("é" * 119 + ".plugind-kept-r1")).read_bytes() == b"first"


def test_a_folder_that_somebody_else_has_made_is_used_and_left(plan):
    stage(plan, NEW)
    (plan / "x").mkdir()
    assert settle(plan) == ("committed", "")
    clean(plan)
    assert contents(plan, ours=True) == AFTER


def test_a_folder_that_we_have_made_and_others_use_stays(plan):
    stage(plan, NEW)
    theirs = [{"x/theirs": b"theirs", "a": b"theirs"}]
    state, _ = settle(
        plan, calls=HookedCalls(lambda when, name: name == "exchange" and theirs and fill(plan, theirs.pop()))
    )
    assert state == "undone"
    assert contents(plan) == {**BEFORE, "a": b"theirs", "x": None, "x/theirs": b"theirs"}


def test_a_program_that_goes_on_writing_to_what_came_out(plan):
    """An editor that has the file open: before the decision it is a conflict, after that its work is kept beside."""
    stage(plan, NEW)
    with (plan / "sub/b").open("r+b") as file:

        def write(when, name):
            if (when, name) == ("after", "exchange") and not file.tell():
                file.write(b"late")
                file.flush()

        state, why = settle(plan, calls=HookedCalls(write))
        assert state == "undone"
        assert "sub/b" in why
        assert contents(plan) == {**BEFORE, "sub/b": b"lateb"}
        clean(plan)
        file.seek(0)
        stage(plan, NEW, "r2")
        assert settle(plan, "r2") == ("committed", "")
        file.write(b"later")
        file.flush()
        assert clean(plan, "r2") == ["sub/b: what somebody has put there is sub/b.plugind-kept-r2 now"]
    assert contents(plan, ours=True) == {**AFTER, "sub/b.plugind-kept-r2": b"later"}


def test_a_write_after_what_came_out_was_looked_at_is_a_conflict_still(plan):
    stage(plan, NEW)
    with (plan / "sub/b").open("r+b") as file:
        calls = HookedCalls(lambda when, name: name == "fsync" and (file.write(b"late"), file.flush()))
        state, why = settle(plan, calls=calls)
    assert (state, "went on writing" in why) == ("undone", True)
    assert (plan / "sub/b").read_bytes().startswith(b"latelate")


def test_a_machine_that_cannot_go_on_takes_back(plan):
    stage(plan, NEW)

    class Failing(HookedCalls):
        times = 0

        def rename(self, *arguments):
            self.times += 1
            if self.times == 3:
                raise OSError(errno.EIO, "Input/output error")
            super().rename(*arguments)

    state, why = settle(plan, calls=Failing(lambda *_: None))
    assert (state, "Input/output error" in why) == ("undone", True)
    assert contents(plan) == BEFORE


def test_a_folder_that_cannot_be_opened_any_more_is_not_taken_for_gone(plan):
    """What is in place there could not be taken back: it would be said to be undone, and would not be."""

    class Shut(HookedCalls):
        def open(self, folder, path, *arguments):
            if path == "sub":
                raise PermissionError(errno.EACCES, "Permission denied")
            return super().open(folder, path, *arguments)

    stage(plan, NEW)
    acts = [lambda: None, lambda: (_ for _ in ()).throw(Crash())]
    with pytest.raises(Crash):
        settle(plan, calls=Between("exchange", "b", *acts))
    for forward in (True, False):
        with refused("denied", "Permission denied"):
            settle(plan, calls=Shut(lambda *_: None), forward=forward)
    assert (plan / "sub/b").read_bytes() == b"new b"
    assert settle(plan, forward=False) == ("undone", "given up")
    assert contents(plan) == BEFORE


def test_everything_is_synced_before_it_is_relied_on(plan):
    """Each file and folder before the journal, the journal before the answer; all names before the decision."""
    trace = []
    calls = HookedCalls(lambda when, name: trace.append(name) if when == "before" else None)
    stage(plan, NEW, calls=calls)
    drafted = len(trace) - 1 - trace[::-1].index("rename")
    assert trace[:drafted].count("fsync") == 5 + 1 + 1, "five new files, the staging, the journal's draft"
    assert [name for name in trace[drafted:] if name != "close"] == ["rename", "fsync", "fsync"]
    trace.clear()
    settle(plan, calls=calls)
    last = max(index for index, name in enumerate(trace) if name == "exchange")
    decided = len(trace) - 1 - trace[::-1].index("rename")
    assert trace[last:decided].count("fsync") >= 5 + 1, "plan, sub, x, x/y, staging, the decision's draft"
    assert [name for name in trace[decided:] if name != "close"] == ["rename", "fsync"]


def test_descriptors_are_given_back(plan):
    before = opened()
    stage(plan, NEW)
    settle(plan)
    clean(plan)
    assert opened() <= before
    assert marks(plan, ["a"])["a"]


def test_more_folders_than_can_be_open_at_once_are_refused_before_anything_is_decided(plan):
    """While it is settled all of them are."""
    fits = {f"{number}/{'d/' * 5}f": b"" for number in range(150)}  # of 6 folders each
    stage(plan, fits)
    assert settle(plan) == ("committed", "")
    clean(plan)
    before = contents(plan)
    with refused("large", "at most 900 folders"):
        stage(plan, {f"other{number}/{'d/' * 5}f": b"" for number in range(151)}, run="r2")
    assert contents(plan) == before


def test_a_decision_is_read_whatever_is_said_in_it(plan):
    stage(plan, NEW)
    with plan_opened(Calls(), str(plan.parent), str(plan)) as opened_plan, staging_opened(opened_plan, "r1") as staging:
        staging.decide("undone", "\U0001f600" * 100_000)
        assert staging.decision()[0] == "undone"
