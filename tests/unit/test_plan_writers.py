"""Two writers, people who write as they like, and crashes, in any order: nobody's work is lost, nothing is half there."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plugind.errors import PlanError
from plugind.planfiles import Entry
from tests.escapes.attack import attack
from tests.support.plan_kernel import MOST, UNSYNCED, Crash, HookedCalls, changes, fill, settle, work

PATHS = ("a", "sub/b", "sub/c")


class Stepped(HookedCalls):
    """A kernel that makes one step each time it is let."""

    def __init__(self):
        super().__init__(self._wait)
        self.let, self.made = threading.Semaphore(0), threading.Semaphore(0)
        self.crashes = False
        self.next = ""
        """The call that it is about to make."""

    def _wait(self, when, name):
        if when == "before" or self.crashes:
            self.next = name
            self.made.release()
            self.let.acquire()
            if self.crashes:
                raise Crash


class Writer(threading.Thread):
    """One run: sees the files, stages, and when that is done settles and cleans."""

    def __init__(self, plan, run, new):
        super().__init__(daemon=True)
        self.plan, self.run_name, self.new = plan, run, new
        self.calls, self.answer, self.state, self.entries = Stepped(), None, "none", []
        self.over, self.crashed, self.fault = False, False, None

    def run(self):
        self.calls.let.acquire()
        try:
            self._work()
        except PlanError as error:
            if error.code not in ("conflict", "file"):
                self.fault = error
        except Crash:
            self.crashed = True
        self.over = True
        self.calls.made.release()

    def _work(self):
        seen, _ = work("compare", self.plan, [Entry(path) for path in self.new], self.calls, most_bytes=MOST)
        entries = [
            Entry(path, content, seen[path].mark, facts={"delete": True} if content is None else {})
            for path, content in self.new.items()
        ]
        answer, _ = work("stage", self.plan, entries, self.calls, run=self.run_name, most_bytes=MOST)
        self.answer = {path: entry.content for path, entry in answer.items()}
        self.finish(self.calls)

    def finish(self, calls=None):
        state, _ = settle(self.plan, self.run_name, calls, forward=self.answer is not None)
        if state != "nothing":
            assert self.state in ("none", state), "told again, it says the same"
            self.state = state
            work("clean", self.plan, (), calls, run=self.run_name)

    def step(self):
        """Let it make one system call, or begin."""
        if not self.over:
            self.calls.let.release()
            self.calls.made.acquire()

    def go(self, there):
        """Some steps, or until it has staged, or is about to make a call of this name: before or after its renames."""
        if isinstance(there, int):
            for _ in range(there):
                self.step()
        while there == "staged" and self.answer is None and not self.over:
            self.step()
        if there in ("exchange", "rename", "unlink"):
            self.step()
            while self.calls.next != there and not self.over:
                self.step()

    def crash(self):
        if not self.over:
            self.calls.crashes = True
            while not self.over:
                self.step()

    def end(self):
        """Let it come to its end; what has crashed is settled by the next one."""
        while not self.over:
            self.step()
        self.join()
        assert self.fault is None
        if self.crashed:
            self.finish()


class People:
    """Whoever writes to the plan without asking: they know what they write over, and what they remove."""

    def __init__(self, plan):
        self.plan, self.wrote, self.knew, self.held = plan, [], set(), []

    def act(self, kind, path):
        target = self.plan / path
        content = b"people's %d" % len(self.wrote)
        if kind == "hold":
            if target.is_file():
                self.held.append(os.open(target, os.O_RDWR))
            return
        if kind == "late":
            for held in self.held:
                if os.fstat(held).st_nlink:  # after that it is lost without us too
                    self.wrote.append(content + b" held %d" % held)
                    self.knew.add(os.pread(held, 1000, 0))
                    os.ftruncate(held, 0)
                    os.pwrite(held, self.wrote[-1], 0)
            return
        if target.is_file():
            self.knew.add(target.read_bytes())
        if kind == "remove":
            target.unlink(missing_ok=True)
            return
        target.parent.mkdir(exist_ok=True)
        self.wrote.append(content)
        if kind == "write":
            target.write_bytes(content)
        else:
            (self.plan / "draft").write_bytes(content)
            (self.plan / "draft").rename(target)

    def leave(self):
        for held in self.held:
            os.close(held)


ACTS = st.tuples(st.sampled_from(["write", "rename", "remove", "hold", "late"]), st.sampled_from(PATHS))
STEPS = st.sampled_from(["staged", "exchange", "exchange", "rename", "unlink"]) | st.integers(1, 12)
MOVES = st.lists(
    st.tuples(st.sampled_from([0, 1]), STEPS)
    | st.tuples(st.just(0), STEPS)
    | ACTS
    | st.tuples(st.just("crash"), st.sampled_from([0, 1])),
    max_size=16,
)


def play(plan, old, new, moves):
    fill(plan, old)
    writers = [Writer(plan, f"r{number}", each) for number, each in enumerate(new)]
    people = People(plan)
    for writer in writers:
        writer.start()
    for kind, detail in moves:
        if kind in (0, 1):
            writers[kind].go(detail)
        elif kind == "crash":
            writers[detail].crash()
        elif kind != "late" or all(writer.over or writer.state == "none" for writer in writers):
            people.act(kind, detail)  # while what came out is removed, there is a moment in which nobody can help
    for writer in writers:
        writer.end()
    people.leave()
    return writers, people


@pytest.mark.slow
@settings(max_examples=400, deadline=None)
@given(
    st.sets(st.sampled_from(PATHS)),
    st.tuples(*[st.dictionaries(st.sampled_from(PATHS), st.booleans(), min_size=1)] * 2),
    MOVES,
)
def test_no_lost_update_and_nothing_by_halves(present, wanted, moves):
    old = {path: f"old {path}".encode() for path in present}
    new = [
        {path: f"new {number} {path}".encode() if writes else None for path, writes in each.items()}
        for number, each in enumerate(wanted)
    ]
    with tempfile.TemporaryDirectory(dir=UNSYNCED) as folder:
        plan = Path(folder) / "plan"
        plan.mkdir()
        writers, people = play(plan, old, new, moves)
        now = {path.relative_to(plan).as_posix(): path.read_bytes() for path in plan.rglob("*") if path.is_file()}
        assert not list(plan.rglob(".plugind-*")), "everything is decided and cleaned"
        there = set(now.values())
        committed = [writer for writer in writers if writer.state == "committed"]
        replaced = {content for writer in writers if writer.answer for content in writer.answer.values()}
        for content in (*old.values(), *people.wrote):
            assert content in there | replaced | people.knew, (content, now)
        for writer in committed:
            for path, content in writer.new.items():
                others = replaced_by([other for other in writers if other is not writer])
                if content is not None:
                    assert content in there | others | people.knew, (path, now)
        for writer in writers:
            if writer not in committed:
                for content in filter(None, writer.new.values()):
                    others = replaced_by([other for other in writers if other is not writer])
                    assert content not in there - others, (writer.state, content, now)


def replaced_by(writers):
    return {content for writer in writers if writer.answer for content in writer.answer.values()}


def test_of_two_that_overlap_one_commits(unsynced_path):
    plan = unsynced_path / "plan"
    plan.mkdir()
    old, new = {"a": b"old"}, [{"a": b"0", "sub/b": b"0"}, {"a": b"1", "sub/b": b"1"}]
    states = set()
    for first in range(0, 400, 7):
        writers, _ = play(plan, old, new, [(0, first), (1, 400), (0, 400)])
        states.add(tuple(writer.state for writer in writers))
        assert {path: (plan / path).read_bytes() for path in ("a", "sub/b")} in new
        assert os.listdir(plan / "sub") == ["b"]
        (plan / "sub/b").unlink()
        (plan / "sub").rmdir()
    # It did not get to its stage, was overtaken while it settled, or was through before the other looked.
    assert states == {("none", "committed"), ("undone", "committed"), ("committed", "committed")}


SWAPS = """
import os, sys, time
from plugind.linux import constants as c
from plugind.linux.paths import renameat2

plan, outside, most = sys.argv[1], sys.argv[2], int(sys.argv[3])
folder = os.open(plan, os.O_RDONLY)
def swap(one, other):
    try:
        renameat2(folder, one, folder, other, c.RENAME_EXCHANGE)
        return 1
    except FileNotFoundError:
        return 0
swaps = 0
pairs = (("sub", "sublink"), ("sub/x.txt", "filelink"), ("top.txt", "filelink"), ("top.txt", "fifo"), ("top.txt", "hard"),
         ("sub/x.txt", "hard"), ("sub", "subdeep/link"), ("sub/x.txt", "fifo"))
number = 0
while swaps < most:
    pair = pairs[number % len(pairs)]
    number += 1
    swaps += swap(*pair)
    time.sleep(0.0003)
    swaps += swap(*pair)
    if number % 16 == 0:
        time.sleep(0.006)
print(swaps)
"""


def guarded(outside):
    """All that a write or a rename would change outside."""
    return {
        path.relative_to(outside).as_posix(): (
            path.lstat().st_ino,
            path.lstat().st_mtime_ns,
            path.is_file() and path.read_bytes(),
        )
        for path in [outside, *sorted(outside.rglob("*"))]
    }


@pytest.mark.slow
@attack(
    5,
    "ten thousand swaps of files and folders with links in a plan, while it is read and written",
    "openat2: BENEATH, NO_SYMLINKS, NO_XDEV",
)
def test_ten_thousand_swaps_lead_nobody_outside(unsynced_path):
    plan, outside = unsynced_path / "root/plan", unsynced_path / "outside"
    fill(plan, {"top.txt": b"top", "sub/x.txt": b"x", "subdeep/y.txt": b"y"})
    fill(outside, {"canary": b"CANARY", "x.txt": b"CANARY", "y.txt": b"CANARY", "new.txt": b"CANARY"})
    for link, target in (("sublink", outside), ("filelink", outside / "canary"), ("subdeep/link", outside)):
        (plan / link).symlink_to(target)
    os.mkfifo(plan / "fifo")
    os.link(outside / "canary", plan / "hard")
    before = guarded(outside)
    swapper = subprocess.Popen([sys.executable, "-c", SWAPS, str(plan), str(outside), "10000"], stdout=subprocess.PIPE)
    counts = {"read": 0, "file": 0, "committed": 0, "undone": 0, "conflict": 0, "fault": 0}
    number = 0
    while swapper.poll() is None:
        number += 1
        attempt(plan, number, counts)
    assert int(swapper.communicate()[0]) >= 10_000
    assert swapper.returncode == 0
    assert guarded(outside) == before
    assert counts["read"] >= 20, counts
    assert counts["file"] >= 20, counts
    assert counts["committed"] >= 3, counts
    assert counts["fault"] == 0, counts
    print(counts)


def attempt(plan, number, counts):
    """A read, and a run's stage, settle and clean, each of which may be refused."""
    try:
        found, _ = work("read", plan, read=["*.txt", "sub/*.txt"], write=["*"], read_files=9, read_bytes=MOST)
        counts["read"] += 1
        assert not [path for path, entry in found.items() if b"CANARY" in (entry.content or b"")]
        new = {"sub/new.txt": b"%d" % number, "sub/x.txt": b"x%d" % number, f"made{number % 3}/new.txt": b"1"}
        if number % 2:
            new = {"top.txt": b"top%d" % number, "sub/x.txt": b"x%d" % number}
        old, _ = work("stage", plan, changes(plan, new), run="r1", most_bytes=MOST)
        assert not [path for path, entry in old.items() if b"CANARY" in (entry.content or b"")]
        state, _ = settle(plan)
        counts[state] += 1
        work("clean", plan, run="r1")
    except PlanError as error:
        counts[error.code] = counts.get(error.code, 0) + 1
