"""The launcher's loop with a made-up front, zygote and groups: whatever they do, it goes on, or ends in order."""

from __future__ import annotations

import array
import contextlib
import hashlib
import json
import os
import select
import socket
import subprocess
import threading
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import pyseccomp
import pytest

from plugind.environments.shelf import Shelf
from plugind.errors import IsolationUnavailableError
from plugind.linux.cgroup import GroupStats, GroupUse
from plugind.linux.seccomp_notify import NATIVE, Call
from plugind.model import Limits, Violation
from plugind.profiles import load_profiles
from plugind.sandbox import channel, codec, jailspec, notifier, protocol
from plugind.sandbox.codestore import CodeStore
from plugind.sandbox.crowd import FEW
from plugind.sandbox.importing import Imported
from plugind.sandbox.latch import Latch
from plugind.sandbox.launcher import MOST_IN_SETUP, Launcher
from plugind.sandbox.plans.known import Known
from plugind.sandbox.plans.roots import Roots
from plugind.sandbox.plans.works import Means
from plugind.sandbox.rootfs import Interpreter
from plugind.sandbox.sealed import sealed_memfd
from plugind.sandbox.template import Kind, TemplateSpec
from plugind.sandbox.templates import Templates
from plugind.sandbox.tries import Tries
from tests.support.descriptors import opened
from tests.support.fake_networks import FakeMeans
from tests.support.jail import bundle_of
from tests.support.plan_tasks import perform

PROFILES = load_profiles(Path(__file__).parents[2] / "profiles")
BUNDLE = bundle_of(plugin="def run(payload, context): return 1")
DIGEST = hashlib.sha256(BUNDLE).hexdigest()
TIMEOUT_S = 5


class FakeGroup:
    def __init__(self):
        self.calls = []
        self.used = GroupStats(0, 0, 0, 0)
        self.attach_error = self.stats_error = None
        self.now = GroupUse(0, 0, 0)
        self.has_reins = False
        self.can_freeze = True
        self.go_on = threading.Event()
        self.go_on.set()

    def set_limits(self, limits):
        self.limits = limits

    def attach(self, pid):
        assert self.go_on.wait(TIMEOUT_S)
        self.calls.append(f"attach {pid}")
        if self.attach_error:
            raise self.attach_error

    def kill(self):
        self.calls.append("kill")

    def reins(self):
        return (os.open("/dev/null", os.O_WRONLY), os.open("/dev/null", os.O_RDONLY)) if self.has_reins else None

    def stats(self):
        if self.stats_error:
            raise self.stats_error
        return self.used

    def use(self):
        return self.now

    def remove(self):
        self.calls.append("remove")


class FakeBase:
    def __init__(self):
        self.groups = {}
        self.limits = {}
        self.removed = False
        self.create_error = None

    def create(self, name, limits):
        if self.create_error:
            raise self.create_error
        self.limits[name] = limits
        return self.groups.setdefault(name, FakeGroup())

    def create_template(self, name):
        return self.groups.setdefault(name, FakeGroup())

    def kill_descriptor(self):
        return os.open("/dev/null", os.O_WRONLY)

    def remove(self):
        self.removed = True


class FakeTemplate:
    """The launcher's end, and in `zygote` the other."""

    def __init__(self, kind):
        self.kind, self.tier = kind, kind.tier
        self.sock, self.zygote = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.zygote.settimeout(TIMEOUT_S)
        self.init_pid = os.getpid()
        self.killed = False

    def kill(self):
        self.sock.close()
        self.killed = True

    def say(self, **fields):
        self.zygote.send(json.dumps(fields).encode())


class FakeShelf(Shelf):
    """As many environments as are put into it; none of them has files."""

    def __init__(self, folder):
        super().__init__(folder)
        self.current = {}

    def with_digest(self, digest):
        return self.current.get(digest)


class FakeStarting:
    """A template on its way; `say` is the word that it goes on by, and what `go_on` then makes of it."""

    def __init__(self, kind):
        self.template = FakeTemplate(kind)
        self.sock, self.theirs = socket.socketpair()
        self.deadline_ns = time.monotonic_ns() + 60 * 10**9
        self.imported = Imported(165536, "0000", "user:[1]", 5, {"odd": "ImportError: no"})
        self.abandoned = False

    def go_on(self):
        said = self.sock.recv(1)
        if said == b"!":
            raise IsolationUnavailableError("template", "its packages broke it")
        if said == b"y":
            self.close()
        return said == b"y"

    def abandon(self):
        self.abandoned = True
        self.template.kill()
        self.close()

    def close(self):
        self.sock.close()
        self.theirs.close()

    def say(self, word):
        self.theirs.send(word)


class FakeNotifier:
    """The launcher's end; `watched` is whom it was told to answer for, and `say` what it finds."""

    def __init__(self, table):
        self.table = table
        self.sock, self.theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.watched = []
        self.watch_error = None
        self.ended = False

    def watch(self, owner, most, listener):
        if self.watch_error:
            raise self.watch_error
        os.fstat(listener)
        self.watched.append((owner, most))

    def receive(self):
        data = self.sock.recv(64)
        if not data:
            raise EOFError
        return tuple(json.loads(data))

    def say(self, owner, why):
        self.theirs.send(json.dumps([owner, why]).encode())

    def end(self):
        self.sock.close()
        self.theirs.close()
        self.ended = True


class World:
    """A launcher in a thread of its own, and everybody that it talks to."""

    def __init__(self, folder):
        self.base = FakeBase()
        self.templates = []
        self.broken = set()
        self.notifiers = []
        self.broken_notifier = False
        self.shelf = FakeShelf(folder)
        self.means = FakeMeans()
        self.begun = []
        self.front, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.front.settimeout(TIMEOUT_S)
        self.theirs = theirs
        (folder / "code").mkdir()
        nowhere = Interpreter("/nowhere", "/nowhere")
        specs = {
            tier: TemplateSpec(tier, 0, 65536, folder, folder, nowhere, False, b"", b"", b"", False)
            for tier in (0, 1, 2)
        }
        self.launcher = Launcher(
            theirs,
            self.base,
            PROFILES,
            Templates(self.base, specs, {0: "not today"}, self.start_template, self.begin_template, self.shelf),
            CodeStore(folder / "code"),
            frozenset(),
            Latch(folder / "state.killed"),
            partial(jailspec.build, ground=jailspec.Ground(0, ())),
            Tries(self.base, self.start_notifier),
            self.means,
            Means(Roots(None, development=True), Known(folder / "state.plans"), perform),
        )
        self.thread = threading.Thread(target=self.launcher.serve, args=("fake",), daemon=True)
        self.open_files = contextlib.ExitStack()

    def start_template(self, spec, group):
        if spec.tier in self.broken:
            raise IsolationUnavailableError(f"template of tier {spec.tier}", "no such luck")
        self.templates.append(FakeTemplate(spec.kind))
        return self.templates[-1]

    def begin_template(self, spec, group):
        self.begun.append(FakeStarting(spec.kind))
        self.templates.append(self.begun[-1].template)
        return self.begun[-1]

    def start_notifier(self, table, group):
        if self.broken_notifier:
            raise IsolationUnavailableError("notifier", "no such luck")
        self.notifiers.append(FakeNotifier(table))
        return self.notifiers[-1]

    def zygote(self, tier=2, environment=""):
        return [each for each in self.templates if each.kind == Kind(tier, environment)][-1]

    def begin(self):
        self.thread.start()
        return self.hear(protocol.Ready)

    def end(self):
        self.launcher.stop()
        self.thread.join(TIMEOUT_S)
        assert not self.thread.is_alive()
        if not self.base.removed:
            self.launcher.shut_down()
        assert self.base.removed
        self.open_files.close()
        for each in self.templates:
            assert each.killed
            each.zygote.close()
        assert all(each.ended for each in (*self.notifiers, *self.means.keepers, *self.means.resolvers))
        self.front.close()
        self.theirs.close()

    def say(self, message, descriptors=()):
        channel.send(self.front, codec.encode(message), descriptors)

    def hear(self, kind):
        data, control, _, _ = self.front.recvmsg(protocol.MAX_MESSAGE_BYTES, socket.CMSG_SPACE(8))
        for _, _, content in control:
            channel.close(array.array("i", content))
        message = codec.decode(data)
        assert isinstance(message, kind), message
        return message

    def load(self, data=BUNDLE, digest=DIGEST):
        memfd = sealed_memfd("bundle", data)
        self.say(protocol.Load(digest), [memfd])
        os.close(memfd)
        return self.hear(protocol.Loaded)

    def ask(self, run="r1", tier=2, digest=DIGEST, environment="", network=(), **limits):
        reader, writer = os.pipe()
        memfd = sealed_memfd("input", b"")
        wanted = replace(PROFILES.get(tier, PROFILES[2]).default_limits, **limits)
        self.say(protocol.Start(run, digest, tier, wanted, environment, network), [memfd, writer, writer, writer])
        channel.close([reader, writer, memfd])

    def park(self, run, tier=2):
        reader, writer = os.pipe()
        memfd = sealed_memfd("input", b"")
        self.say(protocol.Park(run, DIGEST, tier, PROFILES[tier].default_limits), [memfd, writer, writer])
        channel.close([reader, writer, memfd])

    def order(self, tier=2, environment="", more=0):
        """What the zygote is told: the order, and the instance's end of its control socket."""
        data, control, _, _ = self.zygote(tier, environment).zygote.recvmsg(1 << 16, socket.CMSG_SPACE(64))
        descriptors = list(array.array("i", control[0][2]))
        assert len(descriptors) == 5 + more
        channel.close(descriptors[1:])
        sock = self.open_files.enter_context(socket.socket(fileno=descriptors[0]))
        sock.settimeout(TIMEOUT_S)
        return json.loads(data), sock

    def process(self):
        """A process that stands for an instance."""
        process = subprocess.Popen(["sleep", "60"])
        self.open_files.callback(process.wait)
        self.open_files.callback(process.kill)
        return process

    def greet(self, control):
        process = self.process()
        pidfd = os.pidfd_open(process.pid)
        channel.send(control, b'{"op":"hello"}', [pidfd])
        os.close(pidfd)
        return process

    def run(self, run="r1", tier=2, **limits):
        """An instance that runs plugin code."""
        self.ask(run, tier, **limits)
        _, control = self.order(tier)
        process = self.greet(control)
        assert control.recv(16) == b"go"
        self.ready(control)
        assert self.hear(protocol.Started).run == run
        return process

    def ready(self, control):
        """The jail is complete, and here is its listener."""
        with Path("/dev/null").open("rb") as listener:
            channel.send(control, b'{"op":"ready"}', [listener.fileno()])

    def exited(self, run="r1", tier=2, exit_code=0):
        self.zygote(tier).say(op="exited", run=run, exit_code=exit_code, cpu_ms=1)


@pytest.fixture
def world(tmp_path):
    before = opened()
    world = World(tmp_path)
    world.begin()
    assert world.load().error == ""
    yield world
    world.end()
    assert opened() <= before, "a descriptor was left open"


def is_replaced(world, tier=2):
    deadline = time.monotonic() + TIMEOUT_S
    while [each.tier for each in world.templates].count(tier) != 2:
        assert time.monotonic() < deadline, "no second template came"
        time.sleep(0.001)
    return True


def wait_for(what):
    """Until it holds."""
    deadline = time.monotonic() + TIMEOUT_S
    while not what():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.001)


def works(world, tier=2):
    """It still does what it is for."""
    world.run("after", tier)
    world.exited("after", tier)
    assert world.hear(protocol.Ended).run == "after"
    return True


def test_ready_names_the_driver_and_the_tiers_that_cannot_run(tmp_path) -> None:
    world = World(tmp_path)
    world.broken.add(1)
    ready = world.begin()
    assert ready.cgroup_driver == "fake"
    assert ready.unavailable == {"0": "not today", "1": "template of tier 1: no such luck"}
    world.end()


def test_the_life_of_an_instance(world) -> None:
    world.ask(memory_bytes=1 << 24)
    order, control = world.order()
    assert (order["op"], order["run"]) == ("start", "r1")
    assert order["steps"][-1] == ["seccomp", {}]
    process = world.greet(control)
    assert control.recv(16) == b"go"
    group = world.base.groups["r1"]
    assert group.calls == [f"attach {process.pid}"]
    assert world.base.limits["r1"].memory_bytes == 1 << 24
    world.ready(control)
    world.hear(protocol.Started)
    assert control.recv(16) == b"", "the control socket is closed before plugin code runs"
    group.used = GroupStats(7_000_000, 4096, 0, 0)
    world.exited(exit_code=3)
    ended = world.hear(protocol.Ended)
    assert (ended.cause, ended.exit_code, ended.cpu_ms, ended.memory_peak_bytes) == ("", 3, 7, 4096)
    assert group.calls[-1] == "remove"


def test_every_instance_has_a_uid_of_its_own(world) -> None:
    seen = set()
    for run in ("a", "b", "c"):
        world.ask(run)
        order, _ = world.order()
        seen.add(dict(order["steps"])["identity"]["uid"])
    assert len(seen) == 3
    assert 0 not in seen


@pytest.mark.parametrize(
    ("asked", "step", "detail"),
    [
        ({"tier": 3}, "launcher", "tier: expected 0, 1 or 2, got 3"),
        ({"tier": -1}, "launcher", "tier: expected 0, 1 or 2, got -1"),
        ({"tier": 0}, "launcher", "not in the root-owned list"),
        ({"digest": "b" * 64}, protocol.NOT_LOADED, "was not loaded"),
        ({"wall_ms": 10**9}, "launcher", "wall_ms: expected 1 to 60000 in tier 2, got 1000000000"),
        ({"pids": 0}, "launcher", "pids: expected 1 to 64"),
        ({"scratch_bytes": -1}, "launcher", "scratch_bytes"),
    ],
)
def test_what_the_launcher_refuses_whatever_the_front_says(world, asked, step, detail) -> None:
    world.ask(**asked)
    refused = world.hear(protocol.Refused)
    assert (refused.run, refused.step) == ("r1", step)
    assert detail in refused.detail
    assert "r1" not in world.base.groups
    assert works(world)


def test_the_same_run_twice(world) -> None:
    world.run()
    world.ask()
    assert "there already" in world.hear(protocol.Refused).detail
    world.exited()
    assert world.hear(protocol.Ended).cause == ""


def test_no_more_instances_than_the_profile_allows(world) -> None:
    for number in range(PROFILES[1].instances):
        world.run(f"n{number}", 1)
    world.ask("one-more", tier=1)
    assert "has its 16 instances" in world.hear(protocol.Refused).detail
    assert works(world)


def test_those_that_were_killed_leave_their_places_to_others_as_many_as_there_are(world) -> None:
    most = PROFILES[1].instances
    for first in (0, most):
        for number in range(first, first + most):
            world.run(f"n{number}", 1)
        for number in range(first, first + most):
            world.say(protocol.Kill(f"n{number}", "killed"))
    world.ask("one-more", tier=1)
    assert "has its 16 instances" in world.hear(protocol.Refused).detail
    for number in range(2 * most):
        world.exited(f"n{number}", 1, exit_code=-9)
        assert world.hear(protocol.Ended).run == f"n{number}"
    assert works(world, 1)


def test_a_burst_waits_until_jails_are_complete(world) -> None:
    """More orders at a time would not fit into a zygote's socket."""
    for number in range(MOST_IN_SETUP + 2):
        world.ask(f"n{number}")
    controls = [world.order()[1] for _ in range(MOST_IN_SETUP)]
    world.say(protocol.Kill(f"n{MOST_IN_SETUP}", "canceled"))
    refused = world.hear(protocol.Refused)
    assert (refused.run, refused.step) == (f"n{MOST_IN_SETUP}", "setup")
    assert "canceled before its jail was begun" in refused.detail
    world.ask(f"n{MOST_IN_SETUP + 1}")
    assert "there already" in world.hear(protocol.Refused).detail
    assert select.select([world.zygote().zygote], [], [], 0.05)[0] == [], "the last one waits"
    world.greet(controls[0])
    assert controls[0].recv(16) == b"go"
    world.ready(controls[0])
    world.hear(protocol.Started)
    assert world.order()[0]["run"] == f"n{MOST_IN_SETUP + 1}"


def test_what_waits_to_import_ahead_takes_no_place_of_a_run(world) -> None:
    for number in range(MOST_IN_SETUP):
        world.ask(f"n{number}", tier=1)
    world.park("ahead", tier=1)
    for number in range(MOST_IN_SETUP, PROFILES[1].instances):
        world.ask(f"n{number}", tier=1)
    world.ask("one-more", tier=1)
    assert world.hear(protocol.Refused).run == "one-more", "and none before it"


def test_no_more_wait_to_import_ahead_than_may(world) -> None:
    most = 2 * PROFILES[2].parked
    for number in range(MOST_IN_SETUP):
        world.ask(f"n{number}")
    for number in range(most):
        world.park(f"ahead{number}")
    world.park("one-more")
    refused = world.hear(protocol.Refused)
    assert refused.run == "one-more", "and none before it"
    assert f"has its {PROFILES[2].parked} parked instances" in refused.detail
    for number in range(most):
        world.say(protocol.Kill(f"ahead{number}", "canceled"))
        assert world.hear(protocol.Refused).run == f"ahead{number}"
    world.park("after")
    world.say(protocol.Kill("after", "canceled"))
    assert "before its jail was begun" in world.hear(protocol.Refused).detail


def test_descriptors_are_looked_at(world, tmp_path) -> None:
    folder = os.open(tmp_path, os.O_RDONLY)
    world.say(protocol.Start("r1", DIGEST, 2, PROFILES[2].default_limits), [folder] * 4)
    os.close(folder)
    assert "expected a sealed memfd" in world.hear(protocol.Refused).detail


@pytest.mark.parametrize(
    ("data", "count"),
    [
        (b"{", 0),
        (b" " * 50_000, 0),
        (b"[" * 9000, 0),
        (b'{"op":"ready","cgroup_driver":"x","unavailable":{}}', 0),
        (b'{"op":"kill","run":"r1","cause":"because"}', 0),
        (b'{"op":"kill","run":"nobody","cause":"killed"}', 0),
        (b'{"op":"load","digest":"' + b"a" * 64 + b'"}', 0),
        (b'{"op":"stop"}', 3),
    ],
)
def test_what_it_does_not_understand_is_passed_over(world, data, count) -> None:
    null = os.open("/dev/null", os.O_RDONLY)
    world.front.sendmsg([data], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [null] * count))])
    os.close(null)
    assert works(world)


def test_bundles_are_checked(world, tmp_path) -> None:
    loaded = world.load(BUNDLE, "c" * 64)
    assert loaded.digest == "c" * 64
    assert f"sha256: expected {'c' * 64}, got {DIGEST}" in loaded.error
    junk = b"no tar at all"
    assert "USTAR" in world.load(junk, hashlib.sha256(junk).hexdigest()).error
    plain = os.open(tmp_path / "plain", os.O_RDWR | os.O_CREAT)
    world.say(protocol.Load(DIGEST), [plain])
    os.close(plain)
    assert "sealed memfd" in world.hear(protocol.Loaded).error
    assert works(world)


def test_a_step_that_failed_is_named(world) -> None:
    world.ask()
    _, control = world.order()
    world.greet(control)
    assert control.recv(16) == b"go"
    control.send(json.dumps({"op": "failed", "step": "rlimits", "detail": "too \0 much"}).encode())
    world.exited(exit_code=1)
    assert world.hear(protocol.Refused) == protocol.Refused("r1", "rlimits", "too ? much")


def test_a_clone_that_failed(world) -> None:
    world.ask()
    world.order()
    world.zygote().say(op="failed", run="r1", detail="[Errno 11] clone")
    assert world.hear(protocol.Refused) == protocol.Refused("r1", "clone", "[Errno 11] clone")
    assert world.base.groups["r1"].calls[-1] == "remove"


def test_an_instance_that_cannot_be_put_into_its_groups_ends(world) -> None:
    group = world.base.groups["r1"] = FakeGroup()
    group.attach_error = OSError(3, "no such process")
    world.ask()
    _, control = world.order()
    process = world.greet(control)
    assert process.wait(TIMEOUT_S) == -9
    world.exited(exit_code=-9)
    refused = world.hear(protocol.Refused)
    assert (refused.step, "no such process" in refused.detail) == ("cgroup", True)


def test_the_front_gets_the_reins_before_the_plugin_can_run(world) -> None:
    group = world.base.groups["r1"] = FakeGroup()
    group.has_reins = True
    world.ask()
    _, control = world.order()
    world.greet(control)
    assert world.hear(protocol.Placed).run == "r1"
    assert control.recv(16) == b"go"


def test_groups_that_cannot_be_made_refuse_the_run(world) -> None:
    world.base.create_error = OSError(28, "no space left")
    world.ask()
    assert "no space left" in world.hear(protocol.Refused).detail
    world.base.create_error = None
    assert works(world)


@pytest.mark.parametrize("cause", ["canceled", "killed", "output_limit"])
def test_a_kill_comes_back_with_its_cause(world, cause) -> None:
    process = world.run()
    world.say(protocol.Kill("r1", cause))
    assert process.wait(TIMEOUT_S) == -9
    assert "kill" in world.base.groups["r1"].calls
    world.exited(exit_code=-9)
    assert world.hear(protocol.Ended).cause == cause


def test_a_crowd_is_killed_with_one_message_and_told_of_when_the_last_one_has_ended(world) -> None:
    assert world.load().error == ""
    crowd = [f"c{number}" for number in range(FEW + 1)]
    for run in crowd:
        world.run(run)
    world.say(protocol.KillMany((*crowd, "nobody"), "killed"))
    for run in crowd:
        world.exited(run, exit_code=-9)
    ended = [world.hear(protocol.Ended) for _ in crowd]
    assert ([each.run for each in ended], {each.cause for each in ended}) == (crowd, {"killed"})
    assert all(world.base.groups[run].calls[-1] == "remove" for run in crowd)


def test_who_was_killed_before_its_greeting_gets_no_further(world) -> None:
    world.ask()
    _, control = world.order()
    world.say(protocol.Kill("r1", "killed"))
    world.ask("later")  # answered after the kill was heard
    world.order()
    process = world.greet(control)
    assert process.wait(TIMEOUT_S) == -9
    control.settimeout(0.02)
    with pytest.raises(TimeoutError):
        control.recv(16)
    world.exited(exit_code=-9)
    assert world.hear(protocol.Refused) == protocol.Refused("r1", "setup", "killed before its jail was complete")


def test_an_exit_that_is_seen_before_the_last_message(world) -> None:
    """Both are there when the launcher looks, and what the first handler closes is not touched for the second."""
    group = world.base.groups["r1"] = FakeGroup()
    group.go_on.clear()
    world.ask()
    _, control = world.order()
    world.greet(control)  # the launcher now waits within attach()
    world.exited()
    world.ready(control)
    group.go_on.set()
    world.hear(protocol.Started)
    assert world.hear(protocol.Ended).exit_code == 0
    assert works(world)


def test_an_instance_that_dies_with_an_unread_message(world) -> None:
    world.ask()
    _, control = world.order()
    world.greet(control)
    while not world.base.groups["r1"].calls:
        time.sleep(0.001)
    time.sleep(0.02)  # until "go" is in its queue
    control.close()
    world.exited(exit_code=-9)
    assert world.hear(protocol.Refused).step == "setup"
    assert works(world)


def test_an_instance_that_says_hello_twice_or_nonsense(world) -> None:
    for run, word in (("x", b'{"op":"hello"}'), ("y", b"\xff"), ("z", b"[]"), ("w", b'{"op":"hello"}' + b" " * 20_000)):
        world.ask(run)
        _, control = world.order()
        if run == "x":
            world.greet(control)
            assert control.recv(16) == b"go"
        control.send(word)
        assert control.recv(16) == b""
        world.exited(run, exit_code=1)
        assert world.hear(protocol.Refused).run == run
    assert works(world)


def test_a_limit_is_held_while_nobody_says_anything(world) -> None:
    process = world.run(wall_ms=30)
    assert process.wait(TIMEOUT_S) == -9
    world.exited(exit_code=-9)
    assert world.hear(protocol.Ended).cause == "timeout"


def test_an_instance_that_cannot_be_watched_ends(world) -> None:
    process = world.run()
    world.base.groups["r1"].stats_error = OSError(19, "no such device")
    assert process.wait(TIMEOUT_S) == -9
    world.base.groups["r1"].stats_error = None
    world.exited(exit_code=-9)
    assert world.hear(protocol.Ended).cause == "fault"


def test_a_lost_zygote_ends_its_instances_and_comes_back(world) -> None:
    world.run("mine")
    world.run("other", tier=1)
    lost = world.zygote()
    lost.zygote.close()
    ended = world.hear(protocol.Ended)
    assert (ended.run, ended.cause) == ("mine", "fault")
    assert is_replaced(world)
    assert lost.killed
    assert works(world)
    world.exited("other", tier=1)
    assert world.hear(protocol.Ended).cause == ""


@pytest.mark.parametrize(
    "message",
    [
        b"{", b"[]", b"{}", b"[" * 9000, b"x" * 60_000, b'{"op":"exited"}', b'{"op":"exited","run":"mine"}',
        b'{"op":"exited","run":"mine","exit_code":"0"}', b'{"op":"exited","run":"mine","exit_code":1e300}',
        b'{"op":"exited","run":"mine","exit_code":100000}', b'{"op":"exited","run":["mine"],"exit_code":0}',
        b'{"op":"failed","run":"mine"}', b'{"op":"hello","run":"mine"}',
    ],
    ids=lambda message: message[:60].decode(),
)  # fmt: skip
def test_a_zygote_that_talks_nonsense_is_replaced(world, message) -> None:
    world.run("mine")
    lost = world.zygote()
    lost.zygote.send(message)
    assert world.hear(protocol.Ended).cause == "fault"
    assert is_replaced(world)
    assert lost.killed
    assert works(world)


def test_a_zygote_speaks_for_its_own_instances_only(world) -> None:
    world.run("mine", tier=1)
    world.exited("mine", tier=2)
    world.zygote(2).say(op="failed", run="mine", detail="")
    world.exited("unknown", tier=2)
    assert works(world)
    assert "remove" not in world.base.groups["mine"].calls


def test_a_zygote_that_does_not_read_refuses_the_run_and_holds_nobody_up(world) -> None:
    full = world.zygote()
    with contextlib.suppress(BlockingIOError):
        while True:
            channel.send(full.sock, b"x" * 1000)
    world.ask()
    assert world.hear(protocol.Refused).step == "launcher"
    assert world.base.groups["r1"].calls[-1] == "remove"
    assert works(world, tier=1)


def test_a_template_that_cannot_start_is_tried_again_later(world) -> None:
    world.broken.add(2)
    world.zygote().zygote.close()
    world.ask("early")
    refused = world.hear(protocol.Refused)
    assert (refused.step, "no such luck" in refused.detail) == ("template of tier 2", True)
    world.broken.clear()
    world.launcher._templates._retry_ns[Kind(2)] = 0
    world.ask("late")
    assert is_replaced(world)
    order, _ = world.order()
    assert order["run"] == "late"


def test_a_run_that_is_asked_for_when_its_zygote_has_just_ended(tmp_path) -> None:
    world = World(tmp_path)
    world.begin()
    assert world.load().error == ""
    world.launcher.stop()  # from here on this thread is the launcher's: the run comes first, the news second
    world.thread.join(TIMEOUT_S)
    world.zygote().zygote.close()
    world.ask()
    world.launcher._from_front()
    assert [each.tier for each in world.templates].count(2) == 2
    order, _ = world.order()
    assert order["run"] == "r1"
    world.end()


def test_two_that_outlive_their_kill_cost_one_template(tmp_path) -> None:
    world = World(tmp_path)
    world.begin()
    assert world.load().error == ""
    world.run("a", wall_ms=60_000)
    world.run("b", wall_ms=60_000)
    world.launcher.stop()
    world.thread.join(TIMEOUT_S)
    for instance in world.launcher._instances:
        instance.killed_ns = 1
    world.launcher._check_limits()
    assert [each.tier for each in world.templates].count(2) == 2
    assert {world.hear(protocol.Ended).run, world.hear(protocol.Ended).run} == {"a", "b"}
    world.end()


def test_a_front_that_is_gone_ends_it(world) -> None:
    world.run()
    world.ask("unread", tier=3)
    assert select.select([world.front], [], [], TIMEOUT_S)[0]  # its end is then an error, with an answer left unread
    world.front.close()
    world.thread.join(TIMEOUT_S)
    assert not world.thread.is_alive()


def test_a_front_that_does_not_read_ends_it_and_never_holds_it_up(world) -> None:
    process = world.run()
    world.front.settimeout(0.1)
    kill = protocol.Load("d" * 64)
    with contextlib.suppress(OSError):
        for _ in range(20_000):
            memfd = sealed_memfd("x", b"")
            try:
                world.say(kill, [memfd])
            except BlockingIOError:
                time.sleep(0.001)
            finally:
                os.close(memfd)
            if not world.thread.is_alive():
                break
    world.thread.join(TIMEOUT_S)
    assert not world.thread.is_alive()
    assert process.poll() is None


def test_stop_ends_it_with_every_instance_killed(world) -> None:
    processes = [world.run("a"), world.run("b", tier=1)]
    world.say(protocol.Stop())
    world.thread.join(TIMEOUT_S)
    assert not world.thread.is_alive()
    world.launcher.shut_down()
    assert [process.wait(TIMEOUT_S) for process in processes] == [-9, -9]
    assert world.base.groups["a"].calls[-1] == world.base.groups["tier1"].calls[-1] == "remove"


def test_limits_are_all_checked_against_the_profile() -> None:
    assert {name for name, _ in Limits().items()} == {name for name, _ in PROFILES[2].ceilings.items()}


# -- the notifier


def owner_of(world, place=-1):
    """The number under which the newest instance's refused calls are counted."""
    return world.notifiers[-1].watched[place][0]


def tried(world, owner, name, *, dangerous, times=1):
    call = Call(pyseccomp.resolve_syscall(pyseccomp.system_arch(), name), NATIVE, 0)
    for _ in range(times):
        world.notifiers[-1].table.count(owner, call, dangerous=dangerous)


def test_a_run_is_watched_before_its_code_begins_and_says_what_was_refused(world) -> None:
    world.run()
    assert world.notifiers[0].watched == [(owner_of(world), PROFILES[2].refused_calls)]
    tried(world, owner_of(world), "chroot", dangerous=False, times=3)
    world.exited()
    ended = world.hear(protocol.Ended)
    assert ended.cause == ""
    assert ended.violations == (Violation("syscall", "chroot", 3, "refused with EPERM"),)


def test_a_dangerous_call_ends_its_run_and_no_other(world) -> None:
    world.run("other")
    world.run("bad")
    tried(world, owner_of(world), "mount", dangerous=True)
    world.notifiers[0].say(owner_of(world), notifier.DANGEROUS)
    wait_for(lambda: "kill" in world.base.groups["bad"].calls)
    world.exited("bad", exit_code=-9)
    ended = world.hear(protocol.Ended)
    assert (ended.run, ended.cause, ended.detail) == ("bad", "violation", "")
    assert [(each.name, each.count) for each in ended.violations] == [("mount", 1)]
    assert "kill" not in world.base.groups["other"].calls
    assert works(world)


@pytest.mark.parametrize("greeted", [False, True])
def test_an_import_ahead_that_dies_in_its_jail_is_seen_to_by_its_words_end_first(world, greeted) -> None:
    """Of its two ways to the launcher the one for words can be seen to close before the other."""
    world.park("x")
    _, ancillary, _, _ = world.zygote().zygote.recvmsg(1 << 16, socket.CMSG_SPACE(64))
    control, *others = array.array("i", ancillary[0][2])
    with socket.socket(fileno=control) as sock:
        sock.settimeout(TIMEOUT_S)
        if greeted:
            world.greet(sock)
            assert sock.recv(16) == b"go"
        channel.close(others)
        world.say(protocol.Kill("x", "killed"))
        time.sleep(0.05)  # the launcher has heard both
    world.exited("x", exit_code=-9)
    assert world.hear(protocol.Refused).run == "x"
    assert works(world)


def test_a_run_that_ended_by_itself_before_its_dangerous_call_was_heard_of(world) -> None:
    world.run()
    tried(world, owner_of(world), "mount", dangerous=True)
    world.exited()
    assert world.hear(protocol.Ended).cause == "violation"


def test_one_call_too_many_is_told_apart(world) -> None:
    world.run()
    world.notifiers[0].say(owner_of(world), notifier.TOO_MANY)
    wait_for(lambda: "kill" in world.base.groups["r1"].calls)
    world.exited(exit_code=-9)
    ended = world.hear(protocol.Ended)
    assert (ended.cause, ended.detail) == ("violation", "more than 10000 refused system calls")


def test_the_notifier_may_speak_of_a_run_that_has_ended(world) -> None:
    world.run()
    world.exited()
    world.hear(protocol.Ended)
    world.notifiers[0].say(owner_of(world), notifier.DANGEROUS)
    world.notifiers[0].say(10**6, notifier.TOO_MANY)
    assert works(world)


def test_without_a_notifier_nothing_goes_on_and_a_new_one_comes(world) -> None:
    world.run()
    world.notifiers[0].theirs.close()
    wait_for(lambda: len(world.notifiers) == 2)
    world.exited(exit_code=-9)
    assert world.hear(protocol.Ended).cause == "fault"
    assert works(world)
    assert world.notifiers[0].ended


def test_a_notifier_that_cannot_be_started_again_ends_the_launcher(world) -> None:
    world.broken_notifier = True
    world.notifiers[0].theirs.close()
    world.thread.join(TIMEOUT_S)
    assert not world.thread.is_alive()


def test_an_instance_that_nobody_can_watch_does_not_begin(world) -> None:
    world.notifiers[0].watch_error = OSError(11, "no room")
    world.ask()
    _, control = world.order()
    world.greet(control)
    assert control.recv(16) == b"go"
    world.ready(control)
    wait_for(lambda: "kill" in world.base.groups["r1"].calls)
    world.exited(exit_code=-9)
    refused = world.hear(protocol.Refused)
    assert (refused.step, refused.detail) == ("notifier", "[Errno 11] no room")
    world.notifiers[0].watch_error = None
    assert works(world)


def test_an_instance_without_a_listener_does_not_count_as_begun(world) -> None:
    world.ask()
    _, control = world.order()
    world.greet(control)
    assert control.recv(16) == b"go"
    control.send(b'{"op":"ready"}')
    assert control.recv(16) == b""
    world.exited(exit_code=1)
    assert world.hear(protocol.Refused).step == "setup"
    assert world.notifiers[0].watched == []


def test_what_instances_use_is_told_when_it_is_asked_for(world) -> None:
    world.run("a")
    world.run("b", tier=1)
    world.base.groups["a"].now = GroupUse(7_900_000, 4096, 3)
    world.base.groups["b"].now = GroupUse(-1, -1, -1)
    owners = [owner for owner, _ in world.notifiers[0].watched]
    for _ in range(5):
        world.notifiers[0].table.count(owners[0], Call(1, NATIVE, 0), dangerous=False)
    world.say(protocol.Sample())
    told = world.hear(protocol.Sampled)
    assert told.instances == (
        protocol.InstanceUse("a", 7, 4096, 3, 5),
        protocol.InstanceUse("b", -1, -1, -1, 0),
    )
    assert (told.parked, told.left_out) == ((), 0)
    assert told.launcher.pid == os.getpid()  # here it is a thread of ours
    assert told.launcher.memory_bytes > 1 << 20
    assert told.launcher.open_files > 3


def test_what_waits_is_summed_by_tier(world) -> None:
    for run in ("p", "q"):
        world.park(run)
        world.order(more=1)
        world.base.groups[run].now = GroupUse(0, 1000, 1)
    world.say(protocol.Sample())
    assert world.hear(protocol.Sampled).parked == (protocol.ParkedUse(2, 2, 2000),)


def test_a_flood_of_questions_gets_one_answer_at_a_time(world) -> None:
    began = time.monotonic()
    for _ in range(200):
        world.say(protocol.Sample())
    answers = 0
    while time.monotonic() - began < 0.5:
        if select.select([world.front], [], [], 0.01)[0]:
            world.hear(protocol.Sampled)
            answers += 1
    assert 1 <= answers <= 6  # one every 100 ms
    assert works(world)
