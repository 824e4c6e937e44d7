"""Using things up: whatever a plugin takes is bounded, the outcome says what ended it, and the host does not notice."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import psutil
import pytest

from tests.escapes.attack import OWN, attack, succeeds
from tests.escapes.box import Box, Ran
from tests.support.jail import INSTANCE, descendants
from tests.support.pace import stretched

MIB = 1 << 20
LIMIT = 64 * MIB
SMALL = {"memory_bytes": LIMIT, "wall_ms": 20_000, "cpu_ms": 15_000}


def assert_the_next_run_is_well(box: Box) -> None:
    assert box.left() == []
    assert box.run("processes.capabilities").outcome == "ok"


@attack(21, "fork bomb and thread bomb", "pids limit of the group")
@pytest.mark.parametrize("bomb", ["fork_bomb", "thread_bomb"])
def test_bombs_end_at_the_limit(box: Box, bomb: str) -> None:
    ran = box.run(f"exhaustion.{bomb}", limits={"pids": 16})
    assert ran.outcome == "pids_exceeded", ran.why()
    assert "16" in ran.result.outcome_detail
    assert_the_next_run_is_well(box)


@attack(22, "memory through many processes, each below the limit", "memory limit of the group, killed as a group")
def test_memory_of_many_processes_counts_together(box: Box) -> None:
    ran = box.run("exhaustion.memory_of_many", children=8, each_mib=16, limits=SMALL)
    assert ran.outcome == "out_of_memory", ran.why()
    assert ran.result.usage.memory_peak_bytes <= LIMIT
    assert_the_next_run_is_well(box)


CHARGED = ("memfd", "shared segments", "semaphores", "message queues", "page tables")
"""Bounded by the memory of the group."""
BOUNDED = ("tmpfs", "shared memory files", "pipes", "sockets", "mappings", "names", "timers")
"""Bounded by something else too, or given back under pressure."""


@attack(
    23,
    "memory that is no process's own: memfd, SysV shared memory, semaphores, queues, page tables",
    "charged to the group",
)
@pytest.mark.parametrize("way", CHARGED)
def test_kernel_memory_is_charged(box: Box, way: str) -> None:
    segments = Path("/proc/sysvipc/shm").read_text()
    ran = box.run("exhaustion.memory_by", way=way, mib=1024, limits=SMALL)
    assert ran.outcome == "out_of_memory" or (ran.outcome == "ok" and ran.value()["error"]), ran.why()
    assert ran.result.usage.memory_peak_bytes <= LIMIT
    assert Path("/proc/sysvipc/shm").read_text() == segments
    assert_the_next_run_is_well(box)


@attack(23, "tmpfs at /tmp and /dev/shm", "sized, and charged to the group")
@attack(
    OWN, "pipe buffers, socket buffers, mappings, names that are not there, timers", "charged, or bounded by rlimits"
)
@pytest.mark.parametrize("way", BOUNDED)
def test_everything_else_is_bounded(box: Box, way: str) -> None:
    ran = box.run("exhaustion.memory_by", way=way, mib=12 if way == "names" else 1024, limits=SMALL)
    assert ran.outcome in ("out_of_memory", "ok", "failed"), ran.why()
    assert ran.result.usage.memory_peak_bytes <= LIMIT
    if ran.outcome == "ok":
        got = ran.value()
        assert got["error"] or way == "names"
        assert got["mib"] <= LIMIT / MIB
    assert_the_next_run_is_well(box)


@attack(24, "have memory swapped out, where the limit does not count it", "no swap on top of the limit")
def test_nothing_is_swapped(box: Box) -> None:
    def limits_of_the_group() -> list[str]:
        while not (found := box.instances()):
            pass
        groups = dict(line.split(":")[1:] for line in Path(f"/proc/{found[0]}/cgroup").read_text().splitlines())
        return _swap_limit(groups)

    ran, seen = box.together(lambda: box.run("exhaustion.swap", mib=32), limits_of_the_group)  # type: ignore[list-item]
    assert ran.value() == 0
    assert seen, "this kernel's control groups do not tell of swap"


def _swap_limit(groups: dict[str, str]) -> list[str]:
    """What the group says of swap: nothing on top of its memory. Where the kernel counts none, there has to be none."""
    v1, v2 = Path("/sys/fs/cgroup/memory"), Path("/sys/fs/cgroup")
    if "memory" in groups:
        folder = v1 / groups["memory"].lstrip("/")
        both = folder / "memory.memsw.limit_in_bytes"
        if both.exists():
            assert both.read_text() == (folder / "memory.limit_in_bytes").read_text()
            return ["memsw"]
    else:
        swap = v2 / groups[""].lstrip("/") / "memory.swap.max"
        if swap.exists():
            assert swap.read_text().strip() == "0"
            return ["swap.max"]
    assert len(Path("/proc/swaps").read_text().splitlines()) == 1, "there is swap, and no limit of it"
    return ["none"]


@attack(25, "use up inodes by empty files, folders and links", "nr_inodes of the tmpfs")
def test_inodes_end_inside_only(box: Box) -> None:
    before = os.statvfs("/").f_favail
    got = box.run("exhaustion.inodes").value()
    assert set(got["answers"].values()) <= {"ENOSPC", "ENOMEM"}
    assert len(got["answers"]) == 6
    assert sum(got["made"].values()) <= {1: 2 * 16384, 2: 2 * 1024}[box.tier]
    assert before - os.statvfs("/").f_favail < 1000
    assert_the_next_run_is_well(box)


@attack(OWN, "a folder within a folder as deep as it goes", "nr_inodes; the tmpfs goes as a whole")
def test_deep_trees_end_and_go_away(box: Box) -> None:
    got = box.run("exhaustion.deep_tree").value()
    assert (got["error"], got["depth"] < 1024) == {1: ("", False), 2: ("ENOSPC", True)}[box.tier]
    assert_the_next_run_is_well(box)


@attack(OWN, "sparse files larger than the disk", "RLIMIT_FSIZE")
def test_sparse_files_stay_small(box: Box) -> None:
    answers = box.run("exhaustion.sparse_files").value()
    assert answers.pop("size") <= {1: 256, 2: 64}[box.tier] * MIB
    assert set(answers.values()) <= {"EFBIG", "ENOSPC", "EINVAL"}, answers


@attack(27, "flood standard output and standard error, in lines and as one", "a bounded drain, then the run ends")
@pytest.mark.parametrize("descriptor", [1, 2])
@pytest.mark.parametrize("line", [0, 1, 10_000])
def test_output_floods_end_the_run(box: Box, descriptor: int, line: int) -> None:
    front = psutil.Process(box.daemon.pids[0])
    before = front.memory_info().rss
    ran = box.run("exhaustion.flood_output", descriptor=descriptor, mib=512, line=line)
    assert ran.outcome == "output_limit", ran.why()
    kept = len(ran.result.stdout), len(ran.result.stderr)
    assert max(kept) <= MIB
    assert front.memory_info().rss - before < 64 * MIB


@attack(27, "flood the result pipe", "the same")
def test_result_floods_end_the_run(box: Box) -> None:
    front = psutil.Process(box.daemon.pids[0])
    before = front.memory_info().rss
    ran = box.run("exhaustion.flood_output", descriptor=3, mib=512)
    assert ran.outcome == "output_limit", ran.why()
    assert front.memory_info().rss - before < 64 * MIB


@attack(
    32,
    "burn CPU with many processes and threads below the wall limit; with children that end at once",
    "CPU-time budget of the whole tree",
)
@pytest.mark.parametrize(
    ("how", "arguments"),
    [
        ("burn", {"processes": 8}),
        ("burn", {"processes": 2, "threads": 6}),
        ("burn_briefly", {"seconds": 19}),
    ],
)
def test_cpu_time_counts_over_the_tree(box: Box, how: str, arguments: dict[str, int]) -> None:
    ran = box.run(f"exhaustion.{how}", limits={"cpu_ms": 500, "wall_ms": 20_000}, **arguments)
    assert ran.outcome == "cpu_exceeded", ran.why()
    assert ran.result.usage.cpu_ms < 1500
    assert_the_next_run_is_well(box)


@attack(
    OWN,
    "millions of record locks: kernel memory that no group is charged with",
    "refused in Tier 2; in Tier 1 none but file_locks in its profile",
)
@succeeds("Linux charges record locks to nobody, and Tier 1 may lock files")
def test_record_locks_are_bounded(tier1: Box) -> None:
    def locks_in_the_kernel() -> int:
        lines = Path("/proc/slabinfo").read_text().splitlines()
        return sum(int(line.split()[2]) * int(line.split()[3]) for line in lines if line.startswith("file_lock_cache"))

    sampled = [locks_in_the_kernel()]

    over = threading.Event()

    def lock() -> Ran:
        try:
            limits = SMALL | {"memory_bytes": 32 * MIB}
            return tier1.run("exhaustion.record_locks", files=450, each=450, limits=limits)
        finally:
            over.set()

    def sample() -> None:
        while not over.wait(0.02):
            sampled.append(locks_in_the_kernel())

    ran, _ = tier1.together(lock, sample)  # type: ignore[list-item]
    taken = ran.lines[-1:] or ran.outcome
    grown = max(sampled) - sampled[0]
    assert grown < 16 * MIB, (
        f"{taken}: {grown >> 20} MiB of locks, and {ran.result.usage.memory_peak_bytes >> 20} were charged"
    )


@attack(OWN, "a stack without end", "memory limit, or SIGSEGV of its own")
def test_endless_recursion_ends(box: Box) -> None:
    ran = box.run("exhaustion.recurse", limits=SMALL)
    assert ran.outcome in ("out_of_memory", "failed"), ran.why()
    assert_the_next_run_is_well(box)


def test_all_that_was_taken_was_given_back(box: Box) -> None:
    """After all of the above: no process and no control group of an instance is left."""
    assert box.left() == []
    deadline = time.monotonic() + stretched(1)  # what is importing has that name at first, and what is dying still has
    while INSTANCE in descendants(box.daemon.pids[0]).values():
        assert time.monotonic() < deadline, "a process of an instance is left"
        time.sleep(0.005)
