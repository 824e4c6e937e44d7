"""The launcher's own handlers, fed by a front, a zygote or an instance that says anything, over real sockets.

The same made-up groups and templates as in the unit tests. What must hold: nothing is raised, the front can read every
answer, and no descriptor is left.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import os
import shutil
import socket
import tempfile
from pathlib import Path

from plugind.model import Limits
from plugind.sandbox import channel, codec, protocol
from plugind.sandbox.sealed import sealed_memfd
from plugind.sandbox.supervisor import Instance
from plugind.sandbox.template import Kind
from tests.soak.fuzz import examples
from tests.soak.fuzz.parsers import JSON_WORDS, MESSAGE_WORDS
from tests.soak.fuzz.target import Target
from tests.unit.test_launcher import BUNDLE, DIGEST, PROFILES, FakeGroup, World

TIER = 2
LOOK_EVERY = 500
"""Descriptors are counted so often: that takes longer than a message."""


class Bench:
    """A launcher whose loop is not running: its handlers are called one by one."""

    def __init__(self) -> None:
        folder = Path(tempfile.mkdtemp(prefix="plugind-fuzz-"))
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        self.world = World(folder)
        self.launcher = self.world.launcher
        self.launcher._watch_notifier()
        self.launcher._start_template(TIER)
        memfd = sealed_memfd("bundle", BUNDLE)
        self.launcher._code.load(DIGEST, memfd, set())
        self.spare = [memfd, os.open(folder, os.O_RDONLY), os.eventfd(0), *os.pipe()]
        self.world.front.setblocking(False)
        self.checked = 0
        self.before = 1 << 30
        self.tidy()

    def open_files(self) -> int:
        return len(os.listdir("/proc/self/fd"))

    def instance(self, control: socket.socket | None, *, started: bool) -> Instance:
        owner = self.launcher._tries.take()
        instance = Instance("r1", DIGEST, Kind(TIER), Limits(1, 1, 1, 1, 1, 1), 1, FakeGroup(), owner)
        instance.control = control
        instance.started_ns = int(started)
        self.launcher._instances.add(instance)
        return instance

    def tidy(self) -> None:
        """Everything that was begun has ended, every answer can be read, and nothing is open."""
        self.launcher._waiting.close()
        for instance in self.launcher._instances:
            if instance.control is not None:
                with contextlib.suppress(KeyError):
                    self.launcher._loop.leave(instance.control)
            self.launcher._instances.remove(instance)
            instance.finish(0)
        self.hear()
        self.launcher._loop.stopping = False
        for old in self.world.templates[:-1]:
            assert old.killed
            old.zygote.close()
        del self.world.templates[:-1]
        self.world.zygote(TIER).zygote.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:  # what it was ordered to start
                _, descriptors, _ = channel.receive(self.world.zygote(TIER).zygote, 1 << 16, 8)
                channel.close(descriptors)
        self.checked += 1
        if self.checked % LOOK_EVERY == 0:  # the fuzzer itself opens and closes some at its beginning
            now = self.open_files()
            assert now <= self.before, f"descriptors were left open: {now}, and there were {self.before}"
            self.before = now

    def hear(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while True:
                data, descriptors, cut = channel.receive(self.world.front, protocol.MAX_MESSAGE_BYTES, 2)
                channel.close(descriptors)
                assert not cut
                message = codec.decode(data)
                assert isinstance(message, protocol.ToFront)


@functools.cache
def bench() -> Bench:
    return Bench()


def front(data: bytes) -> None:
    """The first byte chooses the descriptors."""
    it = bench()
    memfd, folder, event, reader, writer = it.spare
    choice = [
        [], [memfd], [memfd, writer, writer, writer], [folder] * 4, [event] * 4, [memfd, reader, writer, writer],
        [memfd] * 4, [writer] * 17,
    ][(data[0] if data else 0) % 8]  # fmt: skip
    channel.send(it.world.front, data[1:], choice)
    it.launcher._from_front()
    if it.launcher._waiting:
        it.launcher._start_waiting()
    it.tidy()


def zygote(data: bytes) -> None:
    it = bench()
    it.instance(None, started=data[:1] == b"\x01")
    it.world.zygote(TIER).zygote.send(data[1:] or b" ")
    it.launcher._from_zygote(it.launcher._templates.get(Kind(TIER)))
    assert it.launcher._templates.get(Kind(TIER)) is it.world.zygote(TIER)
    it.tidy()


def instance(data: bytes) -> None:
    """The first byte chooses the descriptors and whether it has greeted already."""
    it = bench()
    choice = data[0] if data else 0
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        one = it.instance(ours, started=False)
        it.launcher._loop.watch(ours, lambda: None)
        if choice & 4:
            one.pidfd = os.dup(it.spare[2])
        channel.send(theirs, data[1:] or b" ", it.spare[2:3] * (choice & 3))
        it.launcher._hearing.take(one, ours)
        if choice & 8 and "r1" in it.launcher._instances:
            it.launcher._finish(one, 0)
        it.tidy()


WORDS = (*MESSAGE_WORDS, b'"op"', b'"r1"', b'"run"', b'"exited"', b'"failed"', b'"hello"', b'"ready"', b'"detail"')
ZYGOTES = (b'{"op":"exited","run":"r1","exit_code":0,"cpu_ms":1}', b'{"op":"failed","run":"r1","detail":"no"}')
INSTANCES = (b'{"op":"hello"}', b'{"op":"ready"}', b'{"op":"failed","step":"rlimits","detail":"no"}')


def _front_seeds() -> list[bytes]:
    start = codec.encode(protocol.Start("r1", DIGEST, TIER, PROFILES[TIER].default_limits))
    return [
        b"\x02" + start,
        b"\x01" + codec.encode(protocol.Load(DIGEST)),
        *(b"\x00" + m for m in examples.messages()),
    ]


LAUNCHER_SIDE = (
    Target("front", front, _front_seeds, (*WORDS, DIGEST.encode()), 20_000, 12, logs=True),
    Target("zygote", zygote, lambda: [b"\x01" + m for m in ZYGOTES], (*WORDS, *JSON_WORDS), 20_000, 12, logs=True),
    Target("instance", instance, lambda: [b"\x01" + m for m in INSTANCES], WORDS, 20_000, 12, logs=True),
)
