"""Plan work in folders of a test: orders, and a kernel in which tests crash and interfere before and after each call."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from plugind.planfiles import Entry, pack, unpack
from plugind.sandbox.plans.calls import Calls
from plugind.sandbox.plans.tasks import perform

UNSYNCED = "/dev/shm" if os.path.ismount("/dev/shm") else None
"""Where fsync(2) costs nothing, for tests that crash hundreds of times; None: there is no such place."""
MOST = 1024 * 1024


class Crash(BaseException):
    """The helper is gone: nothing of it runs any more."""


class HookedCalls(Calls):
    """The kernel, with `step(when, name)` before and after every call."""

    def __init__(self, step):
        self.step = step


def _hooked(name):
    def method(self, *arguments):
        self.step("before", name)
        result = getattr(Calls, name)(self, *arguments)
        try:
            self.step("after", name)
        except BaseException:
            if name in ("open", "open_root"):
                os.close(result)  # as the kernel does when a process ends
            raise
        return result

    return method


STEPS = tuple(name for name in vars(Calls) if not name.startswith("_") and name not in ("close", "now_ns", "pause"))
for _name in STEPS:
    setattr(HookedCalls, _name, _hooked(_name))


class CrashingCalls(HookedCalls):
    """A kernel that goes down at one step, counted from 0. What was written and not synced is gone with it."""

    def __init__(self, at=None):
        super().__init__(self._step)
        self.at = at
        self.steps = 0
        self.dead = False
        self._unsynced = {}

    def _step(self, when, name):
        if self.dead or self.steps == self.at:
            self._die()
        self.steps += 1

    def _die(self):
        self.dead = True
        for descriptor in self._unsynced.values():
            os.ftruncate(descriptor, 0)
        self.release()
        raise Crash

    def release(self):
        for descriptor in self._unsynced.values():
            os.close(descriptor)
        self._unsynced = {}

    def write(self, descriptor, content):
        self._step("before", "write")
        inode = os.fstat(descriptor).st_ino
        if inode not in self._unsynced:
            self._unsynced[inode] = os.dup(descriptor)
        os.write(descriptor, content[: len(content) // 2])
        self._step("within", "write")
        os.write(descriptor, content[len(content) // 2 :])
        self._step("after", "write")

    def fsync(self, descriptor):
        super().fsync(descriptor)
        synced = self._unsynced.pop(os.fstat(descriptor).st_ino, None)
        if synced is not None:
            os.close(synced)


def work(task, plan, entries=(), calls=None, root=None, **facts):
    """One piece of plan work: entries by path, and facts."""
    kernel = {} if calls is None else {"calls": calls}
    answer = perform(task, str(root or Path(plan).parent), str(plan), pack(list(entries), facts), **kernel)
    entries, facts = unpack(answer, 100_000, 2**32)
    return {entry.path: entry for entry in entries}, facts


def marks(plan, paths):
    """What is there now, by path: the mark, empty where nothing is."""
    found, _ = work("compare", plan, [Entry(path) for path in paths], most_bytes=MOST)
    return {path: entry.mark for path, entry in found.items()}


def changes(plan, new):
    """Entries for these contents (None: delete), expecting what is there now."""
    seen = marks(plan, new)
    return [
        Entry(path, content, seen[path], facts={"delete": True} if content is None else {})
        for path, content in new.items()
    ]


def stage(plan, new, run="r1", calls=None):
    return work("stage", plan, changes(plan, new), calls, run=run, most_bytes=MOST)[0]


def settle(plan, run="r1", calls=None, *, forward=True):
    facts = work("settle", plan, (), calls, run=run, forward=forward)[1]
    return facts["state"], facts["why"]


def clean(plan, run="r1", calls=None):
    return work("clean", plan, (), calls, run=run)[1]["kept"]


def fill(plan, files):
    for path, content in files.items():
        (Path(plan) / path).parent.mkdir(parents=True, exist_ok=True)
        (Path(plan) / path).write_bytes(content)


def contents(plan, *, ours=False):
    """Every file's content, and None for every folder, by path; without stagings."""
    found = {}
    for path in sorted(Path(plan).rglob("*")):
        name = path.relative_to(plan).as_posix()
        if ours or not name.startswith(".plugind-"):
            found[name] = None if path.is_dir() else path.read_bytes()
    return found


def sha256(content):
    return hashlib.sha256(content).hexdigest()
