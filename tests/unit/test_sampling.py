"""When the front asks what is used, and what becomes of it where the launcher does not answer."""

from __future__ import annotations

import asyncio
import os

import pytest

from plugind.admission import InFlight
from plugind.api.runs import running_message
from plugind.errors import LauncherGoneError
from plugind.model import Caller
from plugind.sampling import EVERY_S, Sampling
from plugind.sandbox.protocol import InstanceUse, ProcessUse, Sample, Sampled
from plugind.sandbox.samples import Samples, Seen

OWN = ProcessUse(7, 1, 2, 3)


class FakeSource:
    """A launcher that answers when it is told to."""

    def __init__(self):
        self.asked = 0
        self.error = None
        self.answers = asyncio.Event()
        self.answers.set()
        self.long = False
        self.parked = ()
        self.launcher = None

    async def sample(self):
        self.asked += 1
        if self.error:
            raise self.error
        await self.answers.wait()

    def has_long(self):
        return self.long

    def uses(self):
        return {"r1": Seen(InstanceUse("r1", self.asked, 0, 0, 0))}


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


async def test_many_lookers_ask_once_a_second() -> None:
    source, clock = FakeSource(), Clock()
    made = Sampling(source, clock)
    for _ in range(3):
        told = await asyncio.gather(*(made.fresh() for _ in range(20)))
        assert all(each["r1"].use.cpu_ms == source.asked for each in told)
        clock.now += EVERY_S / 2
    assert source.asked == 2


async def test_a_launcher_that_does_not_answer_is_not_waited_for() -> None:
    source, clock = FakeSource(), Clock()
    source.answers.clear()
    made = Sampling(source, clock, patience_s=0.01)
    assert "r1" in await made.fresh()
    clock.now += 5
    await made.fresh()
    assert source.asked == 1, "what was asked was not answered yet"
    source.answers.set()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    await made.fresh()
    assert source.asked == 2


async def test_no_launcher_is_no_error() -> None:
    source = FakeSource()
    source.error = LauncherGoneError("gone")
    assert "r1" in await Sampling(source, Clock()).fresh()


@pytest.mark.parametrize("long", [True, False])
async def test_only_long_runs_are_looked_at_by_itself(long) -> None:
    source = FakeSource()
    source.long = long
    keeper = asyncio.create_task(Sampling(source, every_s=0.001).keep())
    await asyncio.sleep(0.1)
    keeper.cancel()
    assert bool(source.asked) is long


def test_the_daemon_s_own_processes() -> None:
    source = FakeSource()
    front = Sampling(source).processes()["front"]
    assert front.pid == os.getpid()
    assert front.memory_bytes > 1 << 20
    assert front.open_files > 2
    assert front.cpu_ms > 0
    source.launcher = OWN
    assert Sampling(source).processes()["launcher"] == OWN


# -- the questions themselves


async def test_who_asks_meanwhile_waits_for_the_same_round() -> None:
    sent = []

    async def send(message):
        sent.append(message)

    samples = Samples(send)
    asking = [asyncio.create_task(samples.ask()) for _ in range(3)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert sent == [Sample()]
    assert samples.heard(Sampled((), (), OWN, 4)), "there is more to ask for"
    assert not any(each.done() for each in asking)
    assert not samples.heard(Sampled((), (), OWN, 0))
    await asyncio.gather(*asking)
    assert samples.launcher == OWN
    assert not samples.heard(Sampled((), (), OWN, 0)), "one that nobody asked for is no error"


async def test_a_launcher_that_is_lost_ends_the_waiting() -> None:
    async def send(message):
        pass

    samples = Samples(send)
    asking = asyncio.create_task(samples.ask())
    await asyncio.sleep(0)
    samples.fail(LauncherGoneError("gone"))
    with pytest.raises(LauncherGoneError):
        await asking


async def test_a_question_that_cannot_be_sent_is_not_waited_for() -> None:
    async def send(message):
        raise LauncherGoneError("gone")

    samples = Samples(send)
    for _ in range(2):
        with pytest.raises(LauncherGoneError):
            await samples.ask()


# -- as it is told


def test_what_is_not_known_is_absent() -> None:
    run = InFlight("r1", Caller(1000, 1000, 1), "", 5)
    nothing = running_message(run, None)
    assert not any(nothing.HasField(name) for name in ("memory_bytes", "cpu_ms", "pids", "refused_calls"))
    some = running_message(run, Seen(InstanceUse("x", -1, 4096, 0, 0), at_unix_ms=9))
    assert not some.HasField("cpu_ms")
    assert (nothing.sampled_unix_ms, some.sampled_unix_ms) == (0, 9)
    assert (some.memory_bytes, some.pids, some.refused_calls) == (4096, 0, 0)
    assert all(some.HasField(name) for name in ("memory_bytes", "pids", "refused_calls"))
