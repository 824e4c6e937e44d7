"""What the kernel enforces in an instance's groups, in whichever of both cgroup worlds this machine is.

v1 controllers (beside them the unified hierarchy or not) and the unified hierarchy alone: each test holds in both, and says where they
differ. `make test-vm` boots a machine of the second kind.
"""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from plugind.model import Outcome
from plugind.sandbox import features
from tests.support.jail import INSTANCE, Jail, descendants, jail, living_instances
from tests.support.pace import stretched

pytestmark = pytest.mark.root

MIB = 1 << 20
LIMITS = {"memory_bytes": 80 * MIB, "pids": 7, "wall_ms": 60_000}
SLEEPER = "import time\ndef run(payload, context):\n    time.sleep(60)"
TWO_AND_A_HOG = """
import os, time
def run(payload, context):
    if os.fork() == 0:
        time.sleep(60)
    if os.fork() == 0:
        time.sleep(0.5)
        bytearray(400 << 20)
    time.sleep(60)
"""


def _mounts() -> list[list[str]]:
    return [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]


def unified_alone() -> bool:
    """Whether the unified hierarchy has the controllers here. Found out by looking, not by asking plugind."""
    tops = [Path(fields[1]) for fields in _mounts() if fields[2] == "cgroup2"]
    return any({"memory", "pids", "cpu"} <= set((top / "cgroup.controllers").read_text().split()) for top in tops)


UNIFIED = unified_alone()
IN_FORCE = (
    {
        "memory.max": str(80 * MIB),
        "memory.swap.max": "0",
        "memory.oom.group": "1",
        "pids.max": "7",
        "cpu.max": "100000 100000",
    }
    if UNIFIED
    else {
        "memory.limit_in_bytes": str(80 * MIB),
        "pids.max": "7",
        "cpu.cfs_period_us": "100000",
        "cpu.cfs_quota_us": "100000",
    }
)


def groups_of(pid: int) -> dict[str, Path]:
    """A process's group in each hierarchy, by the names of the controllers; the unified one's name is empty."""
    tops: dict[str, str] = {}
    for _, where, kind, options, *_ in _mounts():
        tops |= (
            {"": where} if kind == "cgroup2" else dict.fromkeys(options.split(",") if kind == "cgroup" else [], where)
        )
    found = {}
    for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
        _, names, path = line.split(":", 2)
        found |= {name: Path(tops[name] + path) for name in names.split(",") if name in tops}
    return found


@asynccontextmanager
async def running(box: Jail, code: str, processes: int, **limits: int) -> AsyncIterator[tuple[list[int], Any]]:
    """The pids of an instance that runs and has so many processes, and its task."""
    started = asyncio.Event()  # it bears its name already before it is in its groups
    task = asyncio.create_task(box.run(code, on_started=started.set, **limits))

    def are_there() -> bool:
        return started.is_set() and len(living_instances(descendants(box.launcher_pid))) == processes

    try:
        await until(lambda: task.done() or are_there())
        assert not task.done(), await task
        yield living_instances(descendants(box.launcher_pid)), task
    finally:
        if not task.done():
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task


async def until(condition, seconds: float = 5) -> None:
    end = asyncio.get_running_loop().time() + stretched(seconds)
    while not condition():
        assert asyncio.get_running_loop().time() < end, "it did not happen in time"
        await asyncio.sleep(0.005)


def test_the_driver_is_the_one_that_this_machine_has() -> None:
    wanted = os.environ.get("PLUGIND_TEST_HIERARCHY")  # `make test-vm` says what its machine has
    assert wanted in (None, "unified" if UNIFIED else "v1/hybrid")
    found = features.probe()["cgroups"]
    assert found.ok
    assert re.match(r"driver unified\b" if UNIFIED else r"driver v1(/hybrid)?\b", found.found)


async def test_limits_are_in_force_in_the_groups_of_a_running_instance() -> None:
    async with jail() as box, running(box, SLEEPER, 1, **LIMITS) as ((pid,), _):
        cpu_percent = box.profiles[2].cpu_percent
        files = {name: folder for folder in groups_of(pid).values() for name in os.listdir(folder)}
        seen = {name: (files[name] / name).read_text().strip() for name in IN_FORCE if name in files}
    quota = str(cpu_percent * 1000)
    wanted = {
        name: text.replace("100000", quota, 1) if name in ("cpu.max", "cpu.cfs_quota_us") else text
        for name, text in IN_FORCE.items()
    }
    if not swap_is_accounted():
        wanted.pop("memory.swap.max", None)
    assert seen == wanted


def swap_is_accounted() -> bool:
    return not UNIFIED or any(groups_of(os.getpid())[""].glob("memory.swap.max"))


async def test_the_group_dies_as_a_whole_when_one_process_takes_too_much_memory() -> None:
    """In the unified hierarchy the kernel does it. v1 kills one process only, and the launcher sees to the rest."""
    async with jail() as box:
        async with running(box, TWO_AND_A_HOG, 3, memory_bytes=64 * MIB, wall_ms=60_000) as (pids, task):
            os.kill(box.launcher_pid, signal.SIGSTOP)
            try:
                if UNIFIED:
                    await until(lambda: living_instances(pids) == [], 10)
                else:
                    await until(lambda: len(living_instances(pids)) == 2, 10)
            finally:
                os.kill(box.launcher_pid, signal.SIGCONT)
            result = await task
        assert result.outcome is Outcome.OUT_OF_MEMORY, result
        assert INSTANCE not in descendants(box.launcher_pid).values()


async def test_the_record_has_the_peak_of_memory_and_the_cpu_time() -> None:
    code = "def run(payload, context):\n    kept = bytearray(40 << 20)\n    return sum(range(2_000_000)) + len(kept)"
    async with jail() as box:
        result = await box.run(code, memory_bytes=128 * MIB, wall_ms=30_000, cpu_ms=30_000)
    assert result.outcome is Outcome.OK, result
    assert 40 * MIB <= result.usage.memory_peak_bytes <= 128 * MIB
    assert 1 <= result.usage.cpu_ms <= 30_000


async def test_a_fork_bomb_is_stopped_at_the_limit_and_named() -> None:
    code = "import os, time\ndef run(payload, context):\n    while True:\n        if os.fork() == 0: time.sleep(30)"
    async with jail() as box:
        result = await box.run(code, pids=5, wall_ms=60_000)
        assert result.outcome is Outcome.PIDS_EXCEEDED, result
        assert living_instances(descendants(box.launcher_pid)) == []


async def test_groups_are_gone_with_the_instance_and_with_the_launcher() -> None:
    async with jail() as box:
        async with running(box, SLEEPER, 1, **LIMITS) as ((pid,), _):
            instance = [folder for folder in set(groups_of(pid).values()) if "plugind-" in str(folder)]
            assert instance
            assert all(folder.exists() for folder in instance)
        await until(lambda: not any(folder.exists() for folder in instance))
        tops = [folder.parents[1] for folder in instance]
        assert all(folder.exists() for folder in tops)
    assert not any(folder.exists() for folder in tops)


async def test_launchers_that_start_one_after_another_do_not_nest() -> None:
    """In the unified hierarchy the first moves the processes of its group into a leaf, and the second finds itself there."""
    places = []
    async with jail() as first, running(first, SLEEPER, 1, **LIMITS) as ((pid,), _):
        places.append({folder.parents[2] for folder in groups_of(pid).values() if "plugind-" in folder.parents[1].name})
        async with jail() as second, running(second, SLEEPER, 1, **LIMITS) as ((other,), _):
            places.append(
                {folder.parents[2] for folder in groups_of(other).values() if "plugind-" in folder.parents[1].name}
            )
    assert places[0] == places[1] != set()


RUN_ONE = """
import asyncio
from tests.support.jail import jail
async def main():
    async with jail() as box:
        print((await box.run("def run(p, c):\\n    return 7")).outcome.value)
asyncio.run(main())
"""


def test_a_launcher_in_a_group_without_controllers_makes_its_groups_at_the_top(tmp_path: Path) -> None:
    """As in a login session, which systemd gives no cpu controller. In v1 hierarchies groups are made at the top anyway."""
    own = groups_of(os.getpid())
    # The group of this process hands no controllers down.
    group = own[""] / f"plugind-test-session-{os.getpid()}" if "" in own else None
    enter = f"echo $$ > {group}/cgroup.procs; " if group else ""
    if group:
        group.mkdir()
    try:
        done = subprocess.run(
            ["sh", "-ec", f'{enter}exec "$@"', "sh", sys.executable, "-c", RUN_ONE],
            capture_output=True,
            text=True,
            timeout=stretched(60),
            check=False,
            cwd=Path(__file__).parents[2],
        )
        assert (done.returncode, done.stdout) == (0, "ok\n"), done.stderr
    finally:
        if group:
            group.rmdir()
