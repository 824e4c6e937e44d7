"""The way into a plan's folder, what is read there, and everything that refuses it by name."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from plugind.errors import PlanError
from plugind.planfiles import Entry
from tests.support.descriptors import opened
from tests.support.plan_kernel import MOST, Crash, CrashingCalls, HookedCalls, fill, work


@pytest.fixture
def plan(tmp_path):
    made = tmp_path / "root" / "plan"
    made.mkdir(parents=True)
    return made


@pytest.fixture
def open_folder():
    """One that everybody may enter, unlike pytest's."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


def read(plan, *patterns, write=(), files=100, size=MOST, calls=None, **facts):
    return work(
        "read", plan, (), calls, read=list(patterns), write=list(write), read_files=files, read_bytes=size, **facts
    )[0]


def refused(code, match, *arguments, **named):
    with pytest.raises(PlanError, match=match) as caught:
        read(*arguments, **named)
    assert caught.value.code == code


def test_what_patterns_mean_is_read_and_nothing_else(plan):
    fill(
        plan, {"a.csv": b"1", "b.md": b"2", "c/d.csv": b"3", "c/e/f.csv": b"4", ".hidden.csv": b"5", ".plugind-x": b""}
    )
    found = read(plan, "*.csv", "c/*.csv", write=["*.md", "a.csv"])
    assert [(path, entry.content) for path, entry in found.items()] == [
        ("a.csv", b"1"),
        ("b.md", None),
        ("c/d.csv", b"3"),
    ]
    assert all(entry.mark and not entry.problem for entry in found.values())
    assert read(plan) == {}
    assert list(read(plan, ".hid*")) == [".hidden.csv"]


def test_a_folder_that_a_file_pattern_matches_does_not_matter(plan):
    fill(plan, {"a.csv/b.csv": b"1"})
    assert read(plan, "*.csv") == {}


def test_a_mark_is_another_one_after_whatever_happens_to_the_file(plan):
    fill(plan, {"a": b"1", "other": b"1"})
    seen = {read(plan, "a")["a"].mark}
    steps = [
        lambda: (plan / "a").write_bytes(b"2"),
        lambda: os.utime(plan / "a", ns=(1, 1)),
        lambda: (plan / "a").chmod(0o600),
        lambda: (plan / "other").rename(plan / "a"),
    ]
    for step in steps:
        step()
        seen.add(read(plan, "a")["a"].mark)
    assert len(seen) == 5
    assert read(plan, "a")["a"].mark in seen, "and the same when nothing does"


SPECIAL = {
    "symlink": lambda path: path.symlink_to("/etc/passwd"),
    "fifo": os.mkfifo,
    "socket": lambda path: socket.socket(socket.AF_UNIX).bind(str(path)),
    "hard link": lambda path: (path.with_name("other").write_bytes(b"1"), os.link(path.with_name("other"), path)),
}


@pytest.mark.parametrize("kind", SPECIAL)
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_what_is_no_regular_file_with_one_name_refuses_by_name(plan, kind, monkeypatch):
    (plan / "sub").mkdir()
    monkeypatch.chdir(plan / "sub")  # a socket's path is short
    SPECIAL[kind]((plan / "sub" / "x.csv").relative_to(plan / "sub"))
    refused("file", rf"sub/x\.csv: expected a regular file with one name, got a {kind}: ", plan, "sub/*.csv")
    assert read(plan, "sub/*.md") == {}, "what no pattern matches does not matter"
    seen = read(plan, write=["sub/*.csv"])["sub/x.csv"]
    assert (seen.content, seen.mark, seen.problem) == (None, "", kind)
    fill(plan, {"fine": b"1"})
    learned = read(plan, all=True)
    assert learned["fine"].content == b"1"
    assert learned["sub/x.csv"].problem == kind


def test_a_link_where_a_pattern_means_a_folder_refuses(plan, tmp_path):
    (tmp_path / "outside").mkdir()
    fill(tmp_path / "outside", {"x.csv": b"secret"})
    (plan / "sub").symlink_to(tmp_path / "outside")
    refused("file", "sub: expected a regular file.*got a symlink", plan, "sub/*.csv")
    refused("file", "sub: .*symlink", plan, "s*/*.csv")
    assert read(plan, "*/x.md", all=True)["sub"].problem == "symlink"
    assert read(plan, write=["sub/*.csv"]) == {}


def test_ceilings_hold_before_anything_is_read(plan):
    fill(plan, {"a": b"12345", "b": b"123"})
    assert len(read(plan, "*", files=2, size=8)) == 2
    refused("large", "b: expected at most 1 files", plan, "*", files=1)
    opened = []
    calls = HookedCalls(lambda when, name: opened.append(name))
    refused("large", "expected at most 4 bytes", plan, "a", size=4, calls=calls)
    assert "read" not in opened
    with (plan / "huge").open("wb") as file:
        file.truncate(2**40)
    refused("large", "huge", plan, "huge")


def test_too_many_names_in_a_folder(plan, monkeypatch):
    class Endless(HookedCalls):
        def names(self, folder):
            return (f"{number}" for number in range(10**9))

    refused("large", "100000 names", plan, "x", calls=Endless(lambda *_: None))


@pytest.mark.parametrize("name", ["back\\slash.csv", "new\nline.csv", "\udcff.csv"])
def test_a_name_that_is_no_path_refuses(plan, name):
    (plan / name).write_bytes(b"1")
    refused("file", "expected a path that is printable", plan, "*.csv")
    assert read(plan, "*.md") == {}
    assert read(plan, all=True) == {}


def test_a_file_that_changes_while_it_is_read_is_read_again_and_refused_when_it_does_not_stop(plan):
    fill(plan, {"a": b"0"})
    times = [0]

    def write(when, name):
        if (when, name) == ("before", "read") and times[0] < stop:
            times[0] += 1
            (plan / "a").write_bytes(b"%d" % times[0])

    for stop in (1, 2):
        times[0] = 0
        assert read(plan, "a", calls=HookedCalls(write))["a"].content == b"%d" % stop
    stop, times[0] = 3, 0
    refused("file", "a: expected a file that stays", plan, "a", calls=HookedCalls(write))


def test_a_file_that_vanishes_is_not_there(plan):
    fill(plan, {"a": b"0"})
    calls = HookedCalls(lambda when, name: (when, name) == ("after", "stat") and (plan / "a").unlink(missing_ok=True))
    assert read(plan, "a", calls=calls) == {}


def test_a_fifo_in_the_place_of_a_file_blocks_nobody(plan):
    fill(plan, {"a": b"0"})

    def swap(when, name):
        if (when, name) == ("after", "stat"):
            (plan / "a").unlink(missing_ok=True)
            os.mkfifo(plan / "a")

    started = time.monotonic()
    refused("file", "a: .*fifo|a: ", plan, "a", calls=HookedCalls(swap))
    assert time.monotonic() - started < 5


@pytest.mark.parametrize("change", ["link", "file", "gone", "through"])
def test_a_plan_that_is_no_folder(tmp_path, plan, change):
    fill(plan, {"a": b"1"})
    named = plan
    if change == "link":
        named = plan.with_name("link")
        named.symlink_to(plan)
    elif change == "file":
        named = plan.with_name("file")
        named.write_bytes(b"")
    elif change == "gone":
        named = plan.with_name("none")
    else:
        (plan.parent / "up").symlink_to(plan.parent)
        named = plan.parent / "up" / "plan"
    said = {"link": "a link", "file": "no folder", "gone": "no such folder", "through": "a link"}[change]
    refused("open", f"expected a folder, got .*{said}", named, "a", root=plan.parent)


def test_a_root_behind_a_link_is_none(tmp_path, plan):
    (tmp_path / "link").symlink_to(plan.parent)
    refused("open", "got a link", tmp_path / "link" / "plan", "a")


@pytest.mark.parametrize("named", ["/etc", "{root}", "{root}/../x", "{root}/./plan", "{root}x/plan", "plan"])
def test_what_is_not_below_the_root(plan, named):
    refused("root", "expected an absolute path below", named.format(root=plan.parent), "a", root=plan.parent)


def test_a_staging_is_no_plan(plan):
    (plan / ".plugind-r1").mkdir()
    refused("open", "plugind's own", plan / ".plugind-r1", "a", root=plan.parent)


@pytest.mark.skipif(not os.path.ismount("/dev/shm"), reason="NOT TESTED: needs a mount that is there anyway")
def test_a_plan_on_another_mount_than_its_root_is_not_entered():
    refused("open", "got another mount", "/dev/shm", "*")


@pytest.mark.skipif(not os.path.ismount("/sys/fs/cgroup"), reason="NOT TESTED: needs a mount that is there anyway")
def test_a_mount_within_a_plan_is_not_entered():
    refused("file", "cgroup: .*got a mount", "/sys/fs", "cgroup/cgroup.procs")
    refused("file", "cgroup: .*got a mount", "/sys/fs", "c*/*")
    assert read("/sys/fs", "*.csv", write=["cgroup/x"]) == {}
    found, _ = work("compare", "/sys/fs", [Entry("cgroup/cgroup.procs")], most_bytes=1)
    assert found["cgroup/cgroup.procs"].problem == "mount"
    with pytest.raises(PlanError, match="another mount"):
        work("stage", "/sys/fs", [Entry("cgroup/x", b"1")], run="r1", most_bytes=1)


DENIED = """
import os, sys
from plugind.errors import PlanError
from tests.support.plan_kernel import work
os.setgroups([]); os.setgid(65534); os.setuid(65534)  # after the imports: Python may live below a 0700 home
def code(task, *arguments, **facts):
    try:
        work(task, *arguments, **facts)
    except PlanError as error:
        return error.code
plan = sys.argv[1]
print(code("read", plan, read=["*"], write=[], read_files=9, read_bytes=9),
      code("read", plan + "/shut", root=plan, read=["*"], write=[], read_files=9, read_bytes=9))
"""


@pytest.mark.root  # becomes another user
def test_what_the_caller_may_not_read_is_denied(open_folder):
    plan = open_folder / "plan"
    plan.mkdir()
    fill(plan, {"a": b"1", "shut/b": b"2"})
    (plan / "a").chmod(0)
    (plan / "shut").chmod(0)
    shown = subprocess.run(
        [sys.executable, "-c", DENIED, str(plan)], capture_output=True, text=True, timeout=60, check=False
    )
    assert shown.stdout == "denied denied\n", shown.stderr


def test_compare_says_what_is_there(plan):
    fill(plan, {"a": b"1", "sub/b": b"22"})
    (plan / "link").symlink_to("a")
    (plan / "sublink").symlink_to("sub")
    os.mkfifo(plan / "fifo")
    names = ["a", "sub/b", "none", "none/x", "a/x", "link", "sublink/b", "fifo", "sub"]
    found, _ = work("compare", plan, [Entry(name) for name in names], most_bytes=3)
    assert {name: found[name].content for name in names if found[name].content is not None} == {
        "a": b"1",
        "sub/b": b"22",
    }
    assert {name: found[name].problem for name in names if found[name].problem} == {
        "link": "symlink",
        "sublink/b": "symlink",
        "fifo": "fifo",
        "sub": "folder",
    }
    with pytest.raises(PlanError) as caught:
        work("compare", plan, [Entry("a"), Entry("sub/b")], most_bytes=2)
    assert caught.value.code == "large"


@pytest.mark.parametrize(
    "task, facts",
    [
        ("read", {"read": "a", "write": [], "read_files": 1, "read_bytes": 1}),
        ("read", {"read": ["a"], "write": [], "read_files": True, "read_bytes": 1}),
        ("read", {"read": ["a"], "write": [], "read_files": 1, "read_bytes": -1}),
        ("settle", {"run": "../x", "forward": True}),
        ("settle", {"run": "r1", "forward": 1}),
        ("clean", {"run": ""}),
        ("stage", {"run": "r1", "most_bytes": "1"}),
        ("erase", {}),
    ],
)
def test_an_order_that_cannot_be_is_a_fault(plan, task, facts):
    with pytest.raises(PlanError) as caught:
        work(task, plan, (), **facts)
    assert caught.value.code == "fault"


def test_descriptors_are_given_back_whatever_happens(plan):
    fill(plan, {"a": b"1", "b/c": b"2"})
    before = opened()
    read(plan, "*", "b/*")
    for at in range(40):
        with contextlib.suppress(Crash):
            read(plan, "*", "b/*", calls=CrashingCalls(at))
    assert opened() <= before
