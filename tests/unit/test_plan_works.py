"""The front's side of work in plans' folders: one answer each, whatever the launcher says, and nothing left pending."""

from __future__ import annotations

import asyncio
import os
import socket

import pytest

from plugind.errors import IsolationUnavailableError, LauncherGoneError, PlanError
from plugind.model import Caller
from plugind.planfiles import Entry, pack, unpack
from plugind.sandbox import channel, codec, link, protocol
from plugind.sandbox.client import LauncherClient
from plugind.sandbox.sealed import sealed_memfd
from tests.support.descriptors import opened

CALLER = Caller(uid=1000, gid=100, pid=4711, since_ns=2**60)
"""Of a machine that has run for 36 years."""


class Launcher:
    """The other end, by hand."""

    def __init__(self):
        theirs, self.sock = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.client = LauncherClient(theirs)
        self.say(protocol.Ready("fake", {}))

    def say(self, message, *descriptors):
        channel.send(self.sock, codec.encode(message), descriptors)
        channel.close(descriptors)

    async def asked(self):
        """The next message, and the order that came with it."""
        async with asyncio.timeout(5):
            while True:
                try:
                    message, (descriptor,) = channel.receive_message(self.sock)
                except BlockingIOError:
                    await asyncio.sleep(0.001)
                    continue
                order = os.pread(descriptor, 1 << 20, 0)
                channel.check_sealed(descriptor, "order")
                os.close(descriptor)
                return message, unpack(order, 100, 1 << 20)

    def work(self, task="read", **facts):
        return asyncio.ensure_future(self.client.plan_work(task, "/srv/plans/p", CALLER, facts, [Entry("a", b"1")]))

    def done(self, run, data=None):
        self.say(
            protocol.PlanDone(run), sealed_memfd("x", pack([Entry("b", b"2")], {"n": 1}) if data is None else data)
        )


@pytest.fixture
async def launcher():
    before = opened()
    made = Launcher()
    made.sock.setblocking(False)
    await made.client.open()
    yield made
    await made.client.hang_up()
    made.sock.close()
    assert len(made.client._works) == 0
    assert opened() <= before, "a descriptor was left open"


async def test_what_is_asked_and_what_comes_back(launcher):
    work = launcher.work(read=["*.md"])
    message, (entries, facts) = await launcher.asked()
    assert message == protocol.PlanWork(message.run, "read", "/srv/plans/p", 4711, 1000, 100, 2**60)
    assert (entries, facts) == ([Entry("a", b"1")], {"read": ["*.md"]})
    launcher.done(message.run)
    assert await work == ([Entry("b", b"2")], {"n": 1})


async def test_many_at_once_in_any_order(launcher):
    works = [launcher.work() for _ in range(20)]
    asked = [(await launcher.asked())[0].run for _ in works]
    assert len(set(asked)) == 20
    for number, run in reversed(list(enumerate(asked))):
        launcher.done(run, pack([], {"n": number}))
    assert [(await work)[1]["n"] for work in works] == list(range(20))


@pytest.mark.parametrize(("code", "raised"), [("denied", "denied"), ("deadline", "deadline"), ("new", "fault")])
async def test_why_not(launcher, code, raised):
    work = launcher.work()
    message, _ = await launcher.asked()
    launcher.say(protocol.PlanFailed(message.run, code, "no such luck"))
    with pytest.raises(PlanError, match="no such luck") as caught:
        await work
    assert caught.value.code == raised


@pytest.mark.parametrize("data", [b"", b"\0\0\0\2{}", b"\xff" * 100, pack([Entry("../a", b"")])])
async def test_an_answer_that_is_none(launcher, data):
    work = launcher.work()
    message, _ = await launcher.asked()
    launcher.done(message.run, data)
    with pytest.raises(PlanError, match="the plan helper's answer") as caught:
        await work
    assert caught.value.code == "fault"


async def test_descriptors_that_are_no_answer(launcher):
    for descriptors in ((), (os.open("/dev/null", os.O_RDONLY),), (os.memfd_create("x"),)):
        work = launcher.work()
        message, _ = await launcher.asked()
        launcher.say(protocol.PlanDone(message.run), *descriptors)
        with pytest.raises(PlanError, match="the plan helper's answer"):
            await work


async def test_answers_for_nobody_are_closed(launcher):
    """Of work that was canceled, that was answered already, and that nobody asked for."""
    canceled, work = launcher.work(), launcher.work()
    first, _ = await launcher.asked()
    second, _ = await launcher.asked()
    canceled.cancel()
    await asyncio.wait([canceled])
    assert len(launcher.client._works) == 1
    for run in (first.run, second.run, second.run, "nobody"):
        launcher.done(run)
    launcher.say(protocol.PlanFailed(first.run, "fault", "late"))
    assert (await work)[1] == {"n": 1}
    await asyncio.sleep(0.05)


async def test_a_launcher_that_ends_ends_the_waiting(launcher):
    works = [launcher.work() for _ in range(3)]
    await launcher.asked()
    launcher.sock.close()
    for work in works:
        with pytest.raises(LauncherGoneError):
            await work
    with pytest.raises(LauncherGoneError):
        await launcher.work()


async def test_what_cannot_be_asked_leaves_nothing(launcher):
    with pytest.raises(AttributeError):
        await launcher.client.plan_work("read", "/srv/plans/p", CALLER, {}, [object()])


async def test_the_link_passes_it_on_and_says_when_there_is_no_launcher():
    theirs, ours = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.send(codec.encode(protocol.Ready("fake", {})))
    made = link.Link(link.fixed(theirs), print)
    with pytest.raises(IsolationUnavailableError):
        await made.plan_work("read", "/srv/plans/p", CALLER, {})
    await made.open()
    work = asyncio.ensure_future(made.plan_work("read", "/srv/plans/p", CALLER, {}))
    await asyncio.sleep(0.01)
    message, descriptors = channel.receive_message(ours)
    channel.close(descriptors)
    channel.send(ours, codec.encode(protocol.PlanFailed(message.run, "busy", "later")))
    with pytest.raises(PlanError, match="later"):
        await work
    await made.stop(end_launcher=False)
    ours.close()
