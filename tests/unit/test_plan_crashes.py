"""Whatever ends a helper at whatever step: afterwards all is new or all is old, and the state says which."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.plan_kernel import (
    UNSYNCED,
    Crash,
    CrashingCalls,
    changes,
    clean,
    contents,
    fill,
    settle,
    stage,
    work,
)

OLD = {"a": b"old a", "sub/b": b"old b", "gone": b"old gone"}
NEW = {"a": b"new a", "sub/b": b"new b", "gone": None, "made": b"new", "x/y": b"deep"}


def applied(old, new):
    """What the files are once all of it is in place."""
    return {path: content for path, content in {**old, **new}.items() if content is not None}


def files(plan):
    return {path: content for path, content in contents(plan, ours=True).items() if content is not None}


def folders(plan):
    return {path for path, content in contents(plan, ours=True).items() if content is None}


class Life:
    """stage, the outcome, settle and clean, as the front has them done, by helpers that crash."""

    def __init__(self, plan, new):
        self.plan = plan
        self.has_outcome = False
        self._entries = changes(plan, new)

    def run(self, calls):
        work("stage", self.plan, self._entries, calls, run="r1", most_bytes=1000)
        self.has_outcome = True
        self.finish(calls)

    def finish(self, calls):
        """What the next daemon does: forward what has an outcome, give up all else."""
        state, _ = settle(self.plan, calls=calls, forward=self.has_outcome)
        if state != "nothing":
            clean(self.plan, calls=calls)
        return state


def check(plan, old, new, before, crashes):
    """Crash at each of these steps, one helper after the other; then one that does not."""
    fill(plan, old)
    life, decided = Life(plan, new), set()
    attempts = [life.run, *[life.finish] * len(crashes)]
    ended = False
    for attempt, at in zip(attempts, crashes, strict=False):
        calls = CrashingCalls(at)
        try:
            attempt(calls)
            ended = True
            break
        except Crash:
            pass
        if (plan / ".plugind-r1/decision.json").exists():
            decided.add((plan / ".plugind-r1/decision.json").read_text())
    state = "nothing" if ended else life.finish(CrashingCalls())
    now = files(plan)
    assert now in (applied(old, new), old)
    assert len(decided) <= 1
    if state == "committed" or life.has_outcome:
        assert now == applied(old, new), "nobody came between: what has an outcome is settled forward"
    elif state == "undone" or not life.has_outcome:
        assert now == old
    if now == old and new != old:
        assert folders(plan) == before, "no folder is left over"
    return life, state


def steps_of(folder):
    plan = folder / "root" / "counted"
    fill(plan, OLD)
    calls = CrashingCalls()
    Life(plan, NEW).run(calls)
    return calls.steps


@pytest.mark.slow
def test_a_crash_at_every_step(unsynced_path):
    steps = steps_of(unsynced_path)
    assert steps > 300
    seen = set()
    for at in range(steps):
        plan = unsynced_path / "root" / f"plan{at}"
        life, state = check(plan, OLD, NEW, {"sub"}, [at])
        seen.add((life.has_outcome, state))
        shutil.rmtree(plan)
    assert seen == {(False, "nothing"), (False, "undone"), (True, "committed"), (True, "nothing")}


def test_settling_that_is_told_back_after_a_crash_at_every_step(unsynced_path):
    """Not what the front does once there is an outcome, but all or nothing still."""
    at, states = 0, []
    while True:
        plan = unsynced_path / "root" / f"plan{at}"
        fill(plan, OLD)
        stage(plan, NEW)
        calls = CrashingCalls(at)
        try:
            settle(plan, calls=calls)
            break
        except Crash:
            state, _ = settle(plan, forward=False)
        clean(plan)
        assert files(plan) == {"undone": OLD, "committed": applied(OLD, NEW)}[state]
        assert state == "committed" or folders(plan) == {"sub"}
        states.append(state)
        shutil.rmtree(plan)
        at += 1
    assert states == sorted(states, reverse=True), "undone up to the decision, committed from there on"
    assert set(states) == {"undone", "committed"}


NAMES = st.sampled_from(["a", "b", "sub/a", "sub/b", "sub/deep/c", "other/d"])
CONTENT = st.sampled_from([b"", b"1", b"22", b"a longer content"])


@settings(max_examples=150, deadline=None)
@given(
    st.dictionaries(NAMES, CONTENT, max_size=4),
    st.dictionaries(NAMES, st.none() | CONTENT, min_size=1, max_size=5),
    st.lists(st.integers(0, 500), min_size=1, max_size=4),
)
def test_crashes_in_crashes(old, new, crashes):
    with tempfile.TemporaryDirectory(dir=UNSYNCED) as folder:
        plan = Path(folder) / "plan"
        plan.mkdir()
        fill(plan, old)
        check(plan, old, new, folders(plan), crashes)


KILLED = """
import os, random, shutil, signal, sys, time
from pathlib import Path
from tests.support.plan_kernel import clean, settle, stage
from tests.unit.test_plan_crashes import NEW, OLD, applied, files, fill

root = Path(sys.argv[1])
seed = int(sys.argv[2])
chance = random.Random(seed)
longest, counts = 0.0, {"within": 0, "before": 0, "after": 0}
for number in range(400):
    plan = root / f"plan{number}"
    fill(plan, OLD)
    stage(plan, NEW)
    began = time.monotonic()
    pid = os.fork()
    if pid == 0:
        settle(plan)
        os._exit(0)
    if number < 5:  # how long it takes when nobody comes between
        os.waitpid(pid, 0)
        longest = max(longest, time.monotonic() - began)
    else:
        time.sleep(chance.uniform(0, longest))
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        decided, now = (plan / ".plugind-r1/decision.json").exists(), files(plan)
        now = {path: content for path, content in now.items() if not path.startswith(".plugind-")}
        met = "after" if decided else "before" if now == OLD else "within"
        counts[met] += 1
        # On a busy machine how long it takes changes: mostly too late is as good as never.
        longest *= {"after": 0.97, "before": 1.03, "within": 1}[met]
        forward = chance.random() < 0.5
        state, why = settle(plan, forward=forward)
        assert (state, why) == settle(plan, forward=not forward), "told again"
        assert state == ("committed" if forward or decided else "undone"), (seed, number, state, why)
        clean(plan)
        assert files(plan) == (applied(OLD, NEW) if state == "committed" else OLD), (seed, number, state)
    shutil.rmtree(plan)
print(counts)
assert sum(counts.values()) == 395 and counts["within"] >= 5, counts
"""


@pytest.mark.slow
def test_killed_at_random_moments(unsynced_path):
    seed = int.from_bytes(os.urandom(4), "big")
    shown = subprocess.run(
        [sys.executable, "-c", KILLED, str(unsynced_path), str(seed)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert shown.returncode == 0, (seed, shown.stdout, shown.stderr)


KILLED_AT = """
import os, shutil, signal, sys
from pathlib import Path
from tests.support.plan_kernel import HookedCalls, clean, settle, stage
from tests.unit.test_plan_crashes import NEW, OLD, applied, files, fill

root, met = Path(sys.argv[1]), set()
for at in range(2000):
    plan, outcome = root / f"plan{at}", root / f"outcome{at}"
    fill(plan, OLD)
    pid = os.fork()
    if pid == 0:
        steps = 0
        def step(when, name):
            global steps
            if steps == at:
                os.kill(os.getpid(), signal.SIGKILL)
            steps += 1
        calls = HookedCalls(step)
        stage(plan, NEW, calls=calls)
        outcome.touch()
        settle(plan, calls=calls)
        clean(plan, calls=calls)
        os._exit(0)
    _, status = os.waitpid(pid, 0)
    if not os.WIFSIGNALED(status):
        assert os.waitstatus_to_exitcode(status) == 0
        break
    assert os.WTERMSIG(status) == signal.SIGKILL
    state, why = settle(plan, forward=outcome.exists())
    if state != "nothing":
        clean(plan)
    met.add((outcome.exists(), state))
    assert files(plan) == (applied(OLD, NEW) if outcome.exists() else OLD), (at, state, why)
    shutil.rmtree(plan)
print(at, met)
assert at > 250, at
assert met == {(False, "nothing"), (False, "undone"), (True, "committed"), (True, "nothing")}, met
"""


@pytest.mark.slow
def test_killed_at_every_step(unsynced_path):
    """SIGKILL, and not an exception: no `finally` runs, and the kernel closes and unlocks."""
    shown = subprocess.run(
        [sys.executable, "-c", KILLED_AT, str(unsynced_path)], capture_output=True, text=True, timeout=120, check=False
    )
    assert shown.returncode == 0, (shown.stdout, shown.stderr)


def test_the_crashing_kernel_crashes(tmp_path):
    """It would prove nothing otherwise: what is written and not synced is gone, and nothing is done after that."""
    fill(tmp_path, {"f": b""})
    calls = CrashingCalls(3)
    descriptor = os.open(tmp_path / "f", os.O_WRONLY)
    calls.write(descriptor, b"content")
    with pytest.raises(Crash):
        calls.mkdir(descriptor, "x", 0o700)
    with pytest.raises(Crash):
        calls.stat(descriptor, "x")
    os.close(descriptor)
    assert (tmp_path / "f").read_bytes() == b""
