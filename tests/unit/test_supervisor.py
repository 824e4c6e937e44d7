"""When an instance is killed, by what cause, and when the next look is due."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plugind.linux.cgroup import GroupStats
from plugind.model import Limits
from plugind.sandbox import supervisor
from plugind.sandbox.supervisor import KILL_NS, SETUP_NS, Instance
from plugind.sandbox.template import Kind

MS = 10**6
LIMITS = Limits(wall_ms=5000, cpu_ms=2000, memory_bytes=1 << 28, pids=32, output_bytes=1 << 20, scratch_bytes=1 << 20)


class FakeGroup:
    def __init__(self, stats=None, *, broken=False):
        self.used = stats or GroupStats(0, 0, 0, 0)
        self.broken = broken
        self.calls = []

    def attach(self, pid):
        self.calls.append(f"attach {pid}")

    def kill(self):
        self.calls.append("kill")
        if self.broken:
            raise OSError(5, "no kill")

    def stats(self):
        return self.used

    def reins(self):
        return None

    def remove(self):
        self.calls.append("remove")


def started(**used):
    group = FakeGroup(GroupStats(**{"cpu_ns": 0, "memory_peak_bytes": 0, "oom_kills": 0, "pids_refused": 0, **used}))
    instance = Instance("r", "d" * 64, Kind(2), LIMITS, 7, group, 1)
    instance.started()
    return instance, group


@pytest.mark.parametrize(
    ("used", "after_ms", "cause"),
    [
        ({}, 4999, ""),
        ({}, 5000, "timeout"),
        ({"cpu_ns": 2000 * MS}, 10, ""),
        ({"cpu_ns": 2000 * MS + 1}, 10, "cpu_exceeded"),
        ({"oom_kills": 1}, 10, "out_of_memory"),
        ({"pids_refused": 1}, 10, "pids_exceeded"),
        ({"pids_refused": 1, "oom_kills": 1, "cpu_ns": 9000 * MS}, 9000, "out_of_memory"),
        ({"pids_refused": 1, "cpu_ns": 9000 * MS}, 9000, "pids_exceeded"),
        ({"cpu_ns": 9000 * MS}, 9000, "cpu_exceeded"),
    ],
)
def test_a_broken_limit_kills_with_its_cause(used, after_ms, cause) -> None:
    instance, group = started(**used)
    instance.check(instance.started_ns + after_ms * MS)
    assert instance.cause == cause
    assert group.calls == (["kill"] if cause else [])


def test_the_first_cause_stays() -> None:
    instance, _ = started(oom_kills=1)
    instance.kill("canceled")
    first = instance.killed_ns
    instance.kill("killed")
    instance.check(instance.started_ns + 9000 * MS)
    assert (instance.cause, instance.killed_ns) == ("canceled", first)
    assert instance.finish(-9).cause == "canceled"


def test_a_limit_that_was_broken_on_the_way_out_counts() -> None:
    assert started(cpu_ns=2001 * MS)[0].finish(0).cause == "cpu_exceeded"
    assert started(pids_refused=1)[0].finish(0).cause == "pids_exceeded"
    assert started(cpu_ns=1999 * MS)[0].finish(0).cause == ""


def test_what_is_told_at_the_end() -> None:
    instance, group = started(cpu_ns=12 * MS, memory_peak_bytes=4096)
    instance.started_ns -= 30 * MS
    ended = instance.finish(3)
    assert (ended.run, ended.exit_code, ended.cpu_ms, ended.memory_peak_bytes) == ("r", 3, 12, 4096)
    assert 30 <= ended.wall_ms < 1000
    assert group.calls == ["kill", "remove"]  # killed first: that it ended is hearsay


def test_an_instance_that_never_started_has_broken_no_limit() -> None:
    instance = Instance("r", "d" * 64, Kind(2), LIMITS, 7, FakeGroup(GroupStats(9000 * MS, 1, 1, 1)), 1)
    ended = instance.finish(1)
    assert (ended.cause, ended.wall_ms) == ("", 0)


def test_a_jail_that_is_not_complete_in_time() -> None:
    group = FakeGroup()
    instance = Instance("r", "d" * 64, Kind(2), LIMITS, 7, group, 1)
    assert instance.next_check_ns == instance.created_ns + SETUP_NS
    instance.check(instance.created_ns + SETUP_NS - 1)
    assert group.calls == []
    instance.check(instance.created_ns + SETUP_NS)
    assert (instance.cause, group.calls) == ("fault", ["kill"])
    assert instance.failure == ("setup", "not complete after 10 s")


def test_stuck_is_who_outlives_its_kill() -> None:
    instance, _ = started()
    assert not instance.stuck(instance.started_ns + 3600 * 10**9)
    instance.kill("killed")
    assert not instance.stuck(instance.killed_ns + KILL_NS - 1)
    assert instance.stuck(instance.killed_ns + KILL_NS)
    assert instance.next_check_ns == instance.killed_ns + KILL_NS
    instance.check(instance.killed_ns + 1)
    assert instance.next_check_ns == instance.killed_ns + KILL_NS


@given(
    wall_ms=st.integers(1, 10**6),
    cpu_ms=st.integers(1, 10**6),
    passed_ms=st.integers(0, 10**6),
    used_ms=st.integers(0, 10**6),
)
def test_the_next_look_is_never_late(wall_ms, cpu_ms, passed_ms, used_ms) -> None:
    limits = Limits(wall_ms, cpu_ms, 1, 1, 1, 1)
    instance = Instance("r", "d" * 64, Kind(2), limits, 7, FakeGroup(GroupStats(used_ms * MS, 0, 0, 0)), 1)
    instance.started()
    now_ns = instance.started_ns + passed_ms * MS
    instance.check(now_ns)
    if instance.cause:
        assert passed_ms >= wall_ms or used_ms > cpu_ms
        return
    wait_ns = instance.next_check_ns - now_ns
    assert 0 < wait_ns <= 20 * MS
    assert wait_ns <= max(2 * MS, (wall_ms - passed_ms) * MS)
    budget_ns = (cpu_ms - used_ms) * MS
    assert wait_ns <= max(2 * MS, budget_ns // supervisor._CPUS)


def test_kill_reaches_the_process_also_where_the_group_fails() -> None:
    with subprocess.Popen(["sleep", "60"]) as process:
        instance = Instance("r", "d" * 64, Kind(2), LIMITS, 7, FakeGroup(broken=True), 1)
        instance.pidfd = os.pidfd_open(process.pid)
        instance.kill("killed")
        assert process.wait(5) == -signal.SIGKILL
    instance.kill("killed")  # a process that is gone is no error
    os.close(instance.pidfd)


def test_finish_closes_what_is_open() -> None:
    ours, theirs = socket.socketpair()
    instance = Instance("r", "d" * 64, Kind(2), LIMITS, 7, FakeGroup(), 1, ours)
    instance.pidfd = pidfd = os.pidfd_open(os.getpid())
    instance.finish(0)
    assert ours.fileno() == -1
    assert theirs.recv(1) == b""
    theirs.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(pidfd)


def test_the_clock_of_the_limits_starts_with_the_plugins_code() -> None:
    instance = Instance("r", "d" * 64, Kind(2), LIMITS, 7, FakeGroup(), 1)
    instance.created_ns -= 4000 * MS
    instance.started()
    assert abs(instance.started_ns - time.monotonic_ns()) < 1000 * MS
    instance.check(instance.started_ns + 1)
    assert instance.cause == ""
