"""What is told of a running instance, beside what the kernel's own files of its processes say."""

from __future__ import annotations

import asyncio
import contextlib
import time

import psutil
import pytest

from plugind.sandbox.protocol import InstanceUse
from tests.support.jail import Jail, descendants, jail, living_instances

pytestmark = [pytest.mark.root, pytest.mark.alone]

HELD = 50 << 20
REFUSED = 7
HOLDS_AND_BURNS = f"""
import contextlib, socket, threading, time
held = []
def burn():
    while True:
        sum(range(1000))
def run(payload, context):
    for _ in range({REFUSED}):
        with contextlib.suppress(OSError):
            socket.socket(socket.AF_INET)
    held.append(bytearray(b"x") * {HELD})
    for _ in range(2):
        threading.Thread(target=burn, daemon=True).start()
    burn()
"""
THREADS = 3
SLEEPS = "import time\ndef run(payload, context):\n    time.sleep(60)"


@contextlib.asynccontextmanager
async def running(box: Jail, code: str, name: str):
    """It runs; canceled afterwards."""
    started = asyncio.Event()
    task = asyncio.create_task(box.run(code, name=name, on_started=started.set, wall_ms=60_000, cpu_ms=30_000))
    try:
        await asyncio.wait_for(started.wait(), 20)
        yield task
    finally:
        task.cancel()
        await asyncio.wait([task])


async def sample(box: Jail, name: str) -> InstanceUse:
    await box.client.samples.ask()
    return box.client.uses()[name].use


def of_processes(box: Jail) -> tuple[int, float, int]:
    """Memory of their own, processor time in milliseconds, and threads of all instances, by psutil."""
    found = [psutil.Process(pid) for pid in living_instances(descendants(box.launcher_pid))]
    times = [process.cpu_times() for process in found]
    return (
        sum(process.memory_full_info().uss for process in found),
        sum(each.user + each.system for each in times) * 1000,
        sum(process.num_threads() for process in found),
    )


async def test_a_sample_is_what_the_processes_say() -> None:
    """A plugin that holds 50 MB, in three threads, and burns its processor time."""
    async with jail() as box, running(box, HOLDS_AND_BURNS, "burner") as task:
        deadline = time.monotonic() + 20
        while of_processes(box)[1] < 700 or of_processes(box)[2] < THREADS:
            assert not task.done(), await task
            assert time.monotonic() < deadline
            await asyncio.sleep(0.05)
        before = of_processes(box)
        told = await sample(box, "burner")
        after = of_processes(box)
        assert told.memory_bytes == pytest.approx(before[0], rel=0.2)
        assert told.memory_bytes >= HELD
        assert 0.8 * before[1] <= told.cpu_ms <= 1.2 * after[1]
        assert told.pids == THREADS == before[2]
        assert told.refused_calls == REFUSED


async def test_what_sleeps_uses_next_to_nothing_and_what_is_over_is_not_told_of() -> None:
    async with jail() as box:
        async with running(box, SLEEPS, "sleeper"):
            told = await sample(box, "sleeper")
            assert (told.pids, told.refused_calls) == (1, 0)
            assert told.memory_bytes < HELD / 5
        await box.client.samples.ask()
        assert box.client.uses() == {}


async def test_the_launcher_tells_what_it_uses_itself() -> None:
    async with jail() as box:
        await box.client.samples.ask()
        told, seen = box.client.samples.launcher, psutil.Process(box.launcher_pid)
        assert told is not None
        assert told.pid == box.launcher_pid
        assert told.memory_bytes == pytest.approx(seen.memory_info().rss, rel=0.2)
        assert told.open_files == seen.num_fds()
        times = seen.cpu_times()
        assert told.cpu_ms == pytest.approx((times.user + times.system) * 1000, abs=50)


async def test_with_every_place_of_a_tier_taken_each_is_told_of() -> None:
    async with jail() as box, contextlib.AsyncExitStack() as stack:
        names = [f"many{number}-{'x' * 50}" for number in range(box.profiles[2].instances)]
        await asyncio.gather(*(stack.enter_async_context(running(box, SLEEPS, name)) for name in names))
        await box.client.samples.ask()
        assert set(box.client.uses()) == set(names)
