"""A zygote or an instance that was taken over: what they may say to the launcher, and what they get."""

from __future__ import annotations

import contextlib
import json
import os
import random
import select
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from plugind.environments.shelf import Shelf
from plugind.sandbox import channel, protocol
from plugind.sandbox.rootfs import Interpreter
from plugind.sandbox.sealed import sealed_memfd
from plugind.sandbox.template import Kind, TemplateSpec
from plugind.sandbox.templates import Templates
from plugind.sandbox.uids import SLICE
from tests.support.descriptors import opened
from tests.unit.test_launcher import TIMEOUT_S, FakeBase, World, is_replaced, works


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    before = opened()
    world = World(tmp_path)
    world.begin()
    assert world.load().error == ""
    yield world
    world.end()
    assert opened() <= before, "a descriptor was left open"


def test_uids_come_again_only_after_all_others_and_never_while_one_is_taken(tmp_path) -> None:
    """Three times around the slice, with instances that end in any order."""
    spec = TemplateSpec(2, 0, SLICE, tmp_path, tmp_path, Interpreter("/x", "/x"), False, b"", b"", b"", False)
    templates = Templates(FakeBase(), {2: spec}, {}, lambda *_: None, lambda *_: None, Shelf(tmp_path))
    order = random.Random(1)
    taken: list[int] = []
    last: dict[int, int] = {}
    for number in range(3 * SLICE):
        if len(taken) >= 32:
            taken.pop(order.randrange(len(taken)))
        uid = templates.free_uid(2, set(taken))
        assert 0 < uid < SLICE
        assert uid not in taken
        assert number - last.get(uid, -SLICE) >= SLICE - 1 - 32, "it came again soon"
        last[uid] = number
        taken.append(uid)
    assert len(last) == SLICE - 1, "every uid of the slice but the zygote's"


@pytest.mark.parametrize(
    "code", ["true", "false", "null", "0.0", "-0.0", "1e2", '"0"', "[0]", "256", "-65", "9" * 4000, "9" * 5000, "NaN"]
)
def test_an_exit_code_that_is_none(world, code) -> None:
    """And the front, which would hang up on an answer that it cannot read, gets none of it."""
    world.run("mine")
    lost = world.zygote()
    lost.zygote.send(f'{{"op":"exited","run":"mine","exit_code":{code}}}'.encode())
    assert world.hear(protocol.Ended).cause == "fault"
    assert is_replaced(world)
    assert works(world)


def test_a_zygote_that_hands_descriptors_over(world, tmp_path) -> None:
    """It has nothing to hand over: the kernel drops them, and it is replaced."""
    world.run("mine")
    lost = world.zygote()
    folder = os.open(tmp_path, os.O_RDONLY)
    channel.send(lost.zygote, b'{"op":"exited","run":"mine","exit_code":0}', [folder] * 100)
    os.close(folder)
    assert world.hear(protocol.Ended).cause == "fault"
    assert is_replaced(world)
    assert works(world)


def test_a_zygote_that_floods(world) -> None:
    """Ten thousand exits of runs that are not there: each is passed over, and limits are held meanwhile."""
    process = world.run("limited", wall_ms=50)
    zygote = world.zygote()
    for number in range(10_000):
        zygote.say(op="exited", run=f"n{number}", exit_code=0)
    assert process.wait(TIMEOUT_S) == -9
    world.exited("limited", exit_code=-9)
    assert world.hear(protocol.Ended).cause == "timeout"
    assert works(world)


@pytest.mark.parametrize("detail", ["\ud800", "\0" * 2000, "\U0001f600" * 1200, "\x1b[2J\n" * 1000], ids=range(4))
def test_what_a_zygote_says_fits_into_an_answer(world, detail) -> None:
    world.ask("mine")
    world.order()
    world.zygote().say(op="failed", run="mine", detail=detail)
    refused = world.hear(protocol.Refused)
    assert (refused.run, refused.step) == ("mine", "clone")
    assert len(refused.detail) <= 1000
    assert works(world)


def say(control: socket.socket, word: bytes, *descriptors: int) -> None:
    channel.send(control, word, descriptors)


def ended(world: World, control: socket.socket, run: str = "r1") -> protocol.Refused:
    """Its control socket was closed, and it was refused when its zygote saw the end of it."""
    with contextlib.suppress(ConnectionResetError):
        while control.recv(16) == b"go":
            pass
    world.exited(run, exit_code=-9)
    return world.hear(protocol.Refused)


@pytest.mark.parametrize("kind", ["folder", "eventfd", "memfd", "socket", "dead", "process of nobody"])
def test_a_hello_with_something_else_than_its_own_pidfd(world, tmp_path, kind) -> None:
    dead = subprocess.Popen(["true"])
    descriptor = {
        "folder": lambda: os.open(tmp_path, os.O_RDONLY),
        "eventfd": lambda: os.eventfd(0),
        "memfd": lambda: sealed_memfd("x", b"Pid:\t1\n"),
        "socket": lambda: os.dup(world.front.fileno()),
        "dead": lambda: os.pidfd_open(dead.pid),
        "process of nobody": lambda: os.open("/proc/self", os.O_RDONLY | os.O_DIRECTORY),
    }[kind]()
    dead.wait()
    world.ask()
    _, control = world.order()
    say(control, b'{"op":"hello"}', descriptor)
    os.close(descriptor)
    world.ask("later")  # when that is answered the hello was heard
    world.order()
    assert [call for call in world.base.groups["r1"].calls if call.startswith("attach")] == []
    world.exited(exit_code=-9)
    refused = world.hear(protocol.Refused)
    assert (refused.step, refused.detail) == ("cgroup", "[Errno 0] expected a pidfd of a living process")
    assert works(world)


def test_a_hello_with_a_pidfd_of_somebody_else(world) -> None:
    """The launcher would put that process into the instance's group, and end it with the instance."""
    shell = subprocess.run(
        ["sh", "-c", "sleep 60 >/dev/null 2>&1 & echo $!"], stdout=subprocess.PIPE, text=True, check=True
    )
    stranger = int(shell.stdout)  # whose parent has ended: nobody above it is of this template
    pidfd = os.pidfd_open(stranger)
    try:
        world.ask()
        _, control = world.order()
        say(control, b'{"op":"hello"}', pidfd)
        world.ask("later")
        world.order()
        assert [call for call in world.base.groups["r1"].calls if call.startswith("attach")] == []
        world.exited(exit_code=-9)
        assert world.hear(protocol.Refused).detail == "[Errno 0] expected a pidfd of its own"
        assert not select.select([pidfd], [], [], 0)[0], "it was killed"
        assert works(world)
    finally:
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        os.close(pidfd)


@pytest.mark.parametrize("count", [0, 2, 3, 200])
def test_a_hello_with_more_or_fewer_descriptors(world, count) -> None:
    world.ask()
    _, control = world.order()
    pidfd = os.pidfd_open(world.process().pid)
    say(control, b'{"op":"hello"}', *([pidfd] * count))
    os.close(pidfd)
    assert ended(world, control).step == "setup"
    assert works(world)


def test_a_second_hello_does_not_take_the_place_of_the_first(world) -> None:
    world.ask()
    _, control = world.order()
    first = world.greet(control)
    assert control.recv(16) == b"go"
    second = world.greet(control)
    assert ended(world, control).step == "setup"
    assert world.base.groups["r1"].calls[0] == f"attach {first.pid}"
    assert f"attach {second.pid}" not in world.base.groups["r1"].calls
    assert works(world)


def test_ready_before_hello_is_no_start(world) -> None:
    """Nobody has put it into its groups: no limit would hold it."""
    world.ask()
    _, control = world.order()
    world.ready(control)
    refused = ended(world, control)
    assert "before it was in its groups" in refused.detail
    assert world.notifiers[-1].watched == []
    assert works(world)


@pytest.mark.parametrize("count", [0, 2, 16])
def test_ready_with_more_or_fewer_listeners_is_no_start(world, count) -> None:
    world.ask()
    _, control = world.order()
    world.greet(control)
    assert control.recv(16) == b"go"
    say(control, b'{"op":"ready"}', *([world.front.fileno()] * count))
    assert ended(world, control).step == "setup"
    assert works(world)


@pytest.mark.parametrize(
    "step", ["[" * 900 + "]" * 900, '"\\ud800"', '"' + "\\u0000" * 2000 + '"', "1e999", "9" * 4000, "null", "{}"]
)
def test_a_failure_of_any_shape_is_told(world, step) -> None:
    world.ask()
    _, control = world.order()
    say(control, f'{{"op":"failed","step":{step},"detail":{step}}}'.encode())
    refused = ended(world, control)
    assert len(refused.step) <= 64
    assert len(refused.detail) <= 1000
    assert works(world)


def test_an_instance_that_floods_its_socket_is_heard_once(world) -> None:
    world.ask()
    _, control = world.order()
    control.setblocking(False)
    with contextlib.suppress(OSError):
        for _ in range(10_000):
            control.send(b"x" * 10_000)
    control.settimeout(TIMEOUT_S)
    assert ended(world, control).step == "setup"
    assert works(world)


WORDS = st.sampled_from(["op", "exited", "failed", "hello", "ready", "run", "r1", "exit_code", "detail", "step"])
VALUES = st.recursive(
    WORDS | st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=4),
    max_leaves=8,
)
MESSAGES = st.binary(min_size=1, max_size=200) | VALUES.map(lambda value: json.dumps(value).encode())


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(st.lists(MESSAGES, max_size=5))
def test_whatever_an_instance_says(world, said) -> None:
    """The launcher goes on, and the front hears at most that the run was refused."""
    world.ask()
    _, control = world.order()
    for message in said:
        with contextlib.suppress(OSError):
            say(control, message)
    control.close()
    world.exited(exit_code=1)
    assert world.hear(protocol.Refused).run == "r1"
    assert not select.select([world.front], [], [], 0)[0]
    world.open_files.close()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(MESSAGES)
def test_whatever_a_zygote_says(world, message) -> None:
    """Either it is understood, or the zygote is replaced; the next run works, with one or the other."""
    world.zygote().zygote.send(message)
    world.ask("next", tier=1)  # when that is under way the message was heard
    _, control = world.order(1)
    control.close()
    world.exited("next", 1, exit_code=1)
    assert world.hear(protocol.Refused).run == "next"
    assert world.launcher._templates.get(Kind(2)) is world.zygote()
    world.open_files.close()
