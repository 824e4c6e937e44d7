"""The launcher's own checks, against a front that was taken over: a real launcher, and messages that no front sends.

After each attempt the launcher has refused, has said so, goes on, and has no descriptor and no memory more.
"""

from __future__ import annotations

import array
import contextlib
import fcntl
import hashlib
import io
import itertools
import os
import re
import select
import signal
import socket
import tarfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from plugind.model import Limits
from plugind.profiles import profiles_dir
from plugind.sandbox import channel, codec, codestore, protocol, uids
from plugind.sandbox.complaints import MOST_A_SECOND
from plugind.sandbox.sealed import sealed_memfd
from tests.escapes.attack import attack
from tests.support.bad_front import (
    BUNDLE,
    DIGEST,
    PROFILES,
    Front,
    limits_of,
    proper_descriptors,
    taken_over,
    unmoved,
)
from tests.support.groups import groups_of_state
from tests.support.jail import assert_gone_within_50_ms, descendants

pytestmark = pytest.mark.root

SEALS = (fcntl.F_SEAL_SEAL, fcntl.F_SEAL_SHRINK, fcntl.F_SEAL_GROW, fcntl.F_SEAL_WRITE)
NO_MEMFD = "input: expected a sealed memfd"
NO_PIPE = "descriptor: expected the write end of a pipe"


@pytest.fixture(scope="module")
def front() -> Iterator[Front]:
    """One launcher for all that it has to survive."""
    with taken_over() as made:
        yield made
        assert made.end() == 0


def memfd(*seals: int, size: int = 10) -> int:
    descriptor = os.memfd_create("x", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(descriptor, size)
    for seal in seals:
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, seal)
    return descriptor


def one_of(ends: tuple[int, int] | tuple[socket.socket, socket.socket], which: int) -> int:
    """One end, and the other is closed."""
    numbers = [end if isinstance(end, int) else end.detach() for end in ends]
    os.close(numbers[1 - which])
    return numbers[which]


def epoll() -> int:
    with select.epoll() as made:
        return os.dup(made.fileno())


def fifo(folder: Path, flags: int) -> int:
    with contextlib.suppress(FileExistsError):
        os.mkfifo(folder / "fifo")
    return os.open(folder / "fifo", flags)


def file(folder: Path, flags: int) -> int:
    return os.open(folder / "file", flags | os.O_CREAT, 0o600)


DESCRIPTORS: dict[str, Callable[[Path], int]] = {
    "folder": lambda folder: os.open(folder, os.O_RDONLY),
    "root of the host": lambda _: os.open("/", os.O_RDONLY | os.O_DIRECTORY),
    "folder by O_PATH": lambda folder: os.open(folder, os.O_PATH),
    "file by O_PATH": lambda _: os.open("/etc/shadow", os.O_PATH),
    "fifo by O_PATH": lambda folder: one_of((fifo(folder, os.O_RDWR), fifo(folder, os.O_PATH)), 1),
    "cgroup": lambda _: os.open("/sys/fs/cgroup", os.O_RDONLY),
    "namespace": lambda _: os.open("/proc/self/ns/mnt", os.O_RDONLY),
    "file to read": lambda folder: file(folder, os.O_RDONLY),
    "file to write": lambda folder: file(folder, os.O_WRONLY),
    "file for both": lambda folder: file(folder, os.O_RDWR),
    "memory of a process": lambda _: os.open("/proc/self/mem", os.O_RDWR),
    "/dev/null": lambda _: os.open("/dev/null", os.O_WRONLY),
    "/dev/zero": lambda _: os.open("/dev/zero", os.O_RDONLY),
    "/dev/full": lambda _: os.open("/dev/full", os.O_RDWR),
    "terminal": lambda _: one_of(os.openpty(), 1),
    "stream socket": lambda _: one_of(socket.socketpair(), 0),
    "packet socket": lambda _: one_of(socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET), 0),
    "listening socket": lambda _: one_of((socket.socket(socket.AF_UNIX), socket.socket(socket.AF_UNIX)), 0),
    "network socket": lambda _: socket.socket(socket.AF_INET).detach(),
    "eventfd": lambda _: os.eventfd(0),
    "epoll": lambda _: epoll(),
    "pidfd": lambda _: os.pidfd_open(os.getpid()),
    "read end": lambda _: one_of(os.pipe(), 0),
    "fifo for both": lambda folder: fifo(folder, os.O_RDWR),
    **{
        f"memfd with seals {sum(chosen):#x}": lambda _, chosen=chosen: memfd(*chosen)
        for count in range(4)
        for chosen in itertools.combinations(SEALS, count)
        if fcntl.F_SEAL_SEAL not in chosen[:-1]  # after that one nothing more can be sealed
    },
    "memfd that cannot be sealed": lambda _: os.memfd_create("x", os.MFD_CLOEXEC),
    "sealed memfd above every limit": lambda _: memfd(*reversed(SEALS), size=channel.INPUT_LIMIT_BYTES + 1),
}
"""What stands for no descriptor of a run, in any of its places."""


@attack(59, "folders, devices, sockets, unsealed memfds as descriptors", "kinds of descriptors are checked")
@pytest.mark.parametrize("kind", DESCRIPTORS)
def test_descriptors_of_every_kind_in_every_place(front: Front, tmp_path: Path, kind: str) -> None:
    with unmoved(front):
        for place in range(4):
            with proper_descriptors() as (descriptors, _):
                bad = DESCRIPTORS[kind](tmp_path)
                front.start(descriptors=[*descriptors[:place], bad, *descriptors[place + 1 :]])
                os.close(bad)
            refused = front.refused()
            assert (NO_PIPE if place else NO_MEMFD) in refused.detail
            assert_logged(front, f"refused start of the front: run r1: {NO_PIPE if place else NO_MEMFD}")
        bad = DESCRIPTORS[kind](tmp_path)
        front.send(codec.encode(protocol.Load("a" * 64)), [bad])
        os.close(bad)
        assert "expected a sealed memfd" in front.hear_of(protocol.Loaded).error
        assert_logged(front, f"refused load of the front: {'a' * 64}: descriptor: expected a sealed memfd")


def assert_logged(front: Front, words: str) -> None:
    """It is in the log, as one line, whatever was said."""
    lines = front.log().splitlines()
    assert any(words in line for line in lines), lines
    assert all(line.startswith("plugind-launcher: ") for line in lines), lines


def test_what_is_right_in_one_place_is_wrong_in_another(front: Front) -> None:
    with unmoved(front), proper_descriptors() as ((given, *pipes), _):
        for descriptors in ([given] * 4, [pipes[0], *pipes], [*pipes, given], [given, given, *pipes[1:]]):
            front.start(descriptors=descriptors)
            assert "expected" in front.refused().detail


@pytest.mark.parametrize("count", [0, 1, 3, 5, 16, 17, 64, 253])
@pytest.mark.parametrize("op", ["load", "start", "kill", "kill_many", "sample", "stop"])
def test_too_many_and_too_few_descriptors(front: Front, op: str, count: int) -> None:
    message = {
        "load": protocol.Load(DIGEST),
        "start": protocol.Start("r1", DIGEST, 2, PROFILES[2].default_limits),
        "kill": protocol.Kill("r1", "killed"),
        "sample": protocol.Sample(),
        "kill_many": protocol.KillMany(("r1",), "killed"),
        "stop": protocol.Stop(),
    }[op]
    if count == message.descriptors:
        count = 2
    with unmoved(front), proper_descriptors() as (descriptors, _):
        front.send(codec.encode(message), (descriptors * 64)[:count])
        assert front.works()
        assert_logged(
            front, f"expected {message.descriptors} descriptors, got" if count <= 16 else "too many descriptors"
        )


def start_text(limit: str = "1", tier: str = "2", run: str = '"r1"', more: str = "") -> bytes:
    names = [name for name, _ in Limits().items()]
    limits = ",".join(f'"{name}":{limit if name == "wall_ms" else 1000000}' for name in names)
    return f'{{"op":"start","run":{run},"digest":"{DIGEST}","tier":{tier},"environment":"","network":[],"reads":0,"write_files":0,"write_bytes":0,"limits":{{{limits}}}{more}}}'.encode()


MALFORMED = {
    "not JSON": b"\x00" * 100,
    "not UTF-8": b'{"op":"stop\xff"}',
    "UTF-16": '{"op":"stop"}'.encode("utf-16"),
    "UTF-8 with a mark": b'\xef\xbb\xbf{"op":"stop"}',
    "cut off": start_text()[:-1],
    "two at once": b'{"op":"stop"}{"op":"stop"}',
    "a list": b'[{"op":"stop"}]',
    "a word": b'"stop"',
    "no op": b"{}",
    "op is a list": b'{"op":["stop"]}',
    "an op of nobody's": b'{"op":"exec","command":"/bin/sh"}',
    "stop with a field": b'{"op":"stop","now":true}',
    "nested a thousand times": b'{"op":' + b"[" * 1000 + b"]" * 1000 + b"}",
    "nested 16,000 times": b"[" * 16_000,
    "limits nested to the edge": start_text("[" * 980 + "]" * 980),
    "exactly as long as allowed": b'{"op":"exec"}'.ljust(protocol.MAX_MESSAGE_BYTES),
    "one byte longer": b'{"op":"stop"}'.ljust(protocol.MAX_MESSAGE_BYTES + 1),
    "100 KB": b'{"op":"stop"}'.ljust(100_000),
    "an integer of 5000 digits": start_text("9" * 5000),
    "NaN": start_text("NaN"),
    "Infinity": start_text("Infinity"),
    "1e400": start_text("1e400"),
    "a float": start_text("1000.0"),
    "2^53": start_text(str(2**53)),
    "2^64": start_text(str(2**64)),
    "below -2^31": start_text(str(-(2**31) - 1)),
    "a limit as text": start_text('"1000"'),
    "a limit that is true": start_text("true"),
    "a limit that is null": start_text("null"),
    "tier as text": start_text(tier='"2"'),
    "tier as a float": start_text(tier="2.0"),
    "tier true": start_text(tier="true"),
    "tier null": start_text(tier="null"),
    "limits as a list": start_text().replace(b'"limits":{', b'"limits":[{').replace(b"}}", b"}]}"),
    "a limit more": start_text().replace(b'"wall_ms"', b'"nice":-20,"wall_ms"'),
    "a limit less": start_text().replace(b'"pids":1000000,', b""),
    "a uid": start_text(more=',"uid":0'),
    "steps": start_text(more=',"steps":[]'),
    "a program": start_text(more=',"exec_allowed":true'),
    "a run that is a number": start_text(run="1"),
    "an empty run": start_text(run='""'),
    "a run that goes up": start_text(run='"../../../x"'),
    "a run with a slash": start_text(run='"a/b"'),
    "a run with a dot": start_text(run='"cgroup.kill"'),
    "a run with a line end": start_text(run='"a\\n"'),
    "a run with a zero": start_text(run='"a\\u0000"'),
    "a run of another alphabet": start_text(run='"r\\u0661"'),
    "a run of 65 characters": start_text(run=f'"{"a" * 65}"'),
    "a digest in capitals": start_text().replace(DIGEST.encode(), DIGEST.upper().encode()),
    "a digest that goes up": start_text().replace(DIGEST.encode(), b"../" * 21 + b"x"),
    "a digest that is too long": start_text().replace(DIGEST.encode(), DIGEST.encode() + b"0"),
    "an environment by its name": start_text().replace(b'"environment":""', b'"environment":"science"'),
    "an environment that goes up": start_text().replace(b'"environment":""', b'"environment":"../../etc"'),
    "an environment that is null": start_text().replace(b'"environment":""', b'"environment":null'),
    "no reads": start_text().replace(b'"reads":0,', b""),
    "reads by a path": start_text().replace(b'"reads":0', b'"reads":"/etc/shadow"'),
    "a folder to write to": start_text().replace(b'"write_files":0', b'"write_files":["/etc"]'),
    "bytes to write as a float": start_text().replace(b'"write_bytes":0', b'"write_bytes":1.0'),
    "a network that is null": start_text().replace(b'"network":[]', b'"network":null'),
    "a network of nothing": start_text().replace(b'"network":[]', b'"network":[{}]'),
    "a peer by a text": start_text().replace(b'"network":[]', b'"network":["8.8.8.8:443"]'),
    "a peer with a port that is a text": start_text().replace(
        b'"network":[]', b'"network":[{"host":"8.8.8.8","port":"443","protocol":"tcp"}]'
    ),
    "a peer by another protocol": start_text().replace(
        b'"network":[]', b'"network":[{"host":"8.8.8.8","port":443,"protocol":"icmp"}]'
    ),
    "a peer with more to it": start_text().replace(
        b'"network":[]', b'"network":[{"host":"8.8.8.8","port":443,"protocol":"tcp","mark":1}]'
    ),
    "no network": start_text().replace(b'"network":[],', b""),
    "no environment": start_text().replace(b'"environment":"",', b""),
    "a forged line of the log": start_text(run='"x\\nplugind-launcher: all is well \\u001b[2J"'),
    "a sample of one run": b'{"op":"sample","run":"r1"}',
    "a sample of a group": b'{"op":"sample","group":"/sys/fs/cgroup"}',
    "its own sampled": codec.encode(protocol.Sampled((), (), protocol.ProcessUse(1, 0, 0, 0), 0)),
    "its own ready": codec.encode(protocol.Ready("v2", {})),
    "its own loaded": codec.encode(protocol.Loaded(DIGEST, "")),
    "its own placed": codec.encode(protocol.Placed("r1")),
    "its own started": codec.encode(protocol.Started("r1")),
    "its own refused": codec.encode(protocol.Refused("r1", "setup", "no")),
    "its own wrote": codec.encode(protocol.Wrote("r1")),
    "its own ended": codec.encode(protocol.Ended("r1", "", 0, 0, 0, 0)),
    "a zygote's word": b'{"op":"exited","run":"r1","exit_code":0}',
    "an instance's word": b'{"op":"hello"}',
}


@attack(59, "malformed, oversized, nested and foreign messages", "size, UTF-8, exact fields and types")
@pytest.mark.parametrize("kind", MALFORMED)
def test_malformed_messages(front: Front, kind: str) -> None:
    """With the descriptors that a start or a placed has, so that they are not the reason."""
    data = MALFORMED[kind]
    with unmoved(front), proper_descriptors() as (descriptors, _):
        many = 4 if b'"start"' in data else 2 if b'"placed"' in data else 1 if b'"wrote"' in data else 0
        front.send(data, descriptors[:many])
        assert front.works()
        assert_logged(front, "refused ")


@attack(59, "limits above the profile's", "the root-owned profiles are ceilings")
@pytest.mark.parametrize("tier", [1, 2])
def test_no_limit_above_the_profile(front: Front, tier: int) -> None:
    with unmoved(front):
        for name, ceiling in PROFILES[tier].ceilings.items():
            for value in (ceiling + 1, 0, -1, -(2**31), 2**53 - 1):
                front.start(tier=tier, limits=limits_of(tier, **{name: value}))
                assert f"{name}: expected 1 to {ceiling} in tier {tier}, got {value}" in front.refused().detail
                assert_logged(front, f"refused start of the front: run r1: {name}: expected 1 to {ceiling}")


@attack(59, "Tier 0 for what is not on the list, tiers that there are not", "the root-owned list")
@pytest.mark.parametrize(
    ("tier", "words"),
    [
        (0, "is not in the root-owned list"),
        (3, "expected 0, 1 or 2"),
        (-1, "expected 0, 1 or 2"),
        (2**52, "expected 0"),
    ],
)
def test_no_tier_that_it_may_not_have(front: Front, tier: int, words: str) -> None:
    with unmoved(front):
        front.start(tier=tier)
        assert words in front.refused().detail
        assert_logged(front, "refused start of the front: run r1: tier")


@attack(59, "a digest that was never loaded, bytes of another digest", "sha256 of what is unpacked")
def test_no_digest_that_was_not_loaded(front: Front) -> None:
    with unmoved(front):
        front.start(digest="0" * 64)
        assert front.refused().step == protocol.NOT_LOADED
        data = BUNDLE + bytes(512)
        loaded = front.load(data, DIGEST)  # another's bytes under a digest that is trusted
        assert f"sha256: expected {DIGEST}, got {hashlib.sha256(data).hexdigest()}" in loaded.error
        assert_logged(front, f"refused load of the front: {DIGEST}: bundle sha256")
        front.start(digest=hashlib.sha256(data).hexdigest())
        assert front.refused().step == protocol.NOT_LOADED


@attack(
    59,
    "a network for Tier 2, for an import ahead, to metadata, private and loopback addresses, to more peers than there may be",
    "the profile has none for Tier 2; every address is judged by the launcher",
)
def test_no_network_beyond_what_the_profile_gives(front: Front) -> None:
    peer = {"host": "8.8.8.8", "port": 443, "protocol": "tcp"}
    with unmoved(front):
        for fields, words in (
            ({"tier": 2, "network": [peer]}, "network: expected none in tier 2, got some"),
            ({"tier": 7, "network": [peer]}, "network: expected none in tier 7, got some"),
            ({"tier": 1, "network": [peer] * 65}, "network: expected at most 64 peers, got 65"),
            ({"tier": 1, "network": [peer | {"port": 0}]}, "port: expected 1 to 65535, got 0"),
            ({"tier": 1, "network": [peer | {"host": "a\n1.1.1.1 bank.example"}]}, "expected a name or an address"),
        ):
            front.start(**fields)
            assert words in front.refused().detail
        for host in ("169.254.169.254", "10.0.0.1", "127.0.0.1", "::1", "::ffff:8.8.8.8", "198.19.0.1", "localhost"):
            front.start(tier=1, network=[peer | {"host": host}])
            refused = front.refused()
            assert refused.step == protocol.ADDRESSES
            assert host in refused.detail


@attack(
    59, "packages that root did not build", "only digests that a root-owned record names, and the files' own sha256"
)
def test_no_environment_that_root_did_not_build(front: Front) -> None:
    with unmoved(front):
        for tier in (1, 2):
            front.start(environment="0" * 64, tier=tier)
            assert front.refused().step == "environment"
        front.start(environment="0" * 64, tier=7)
        assert "expected 0, 1 or 2, got 7" in front.refused().detail
        assert_logged(front, "refused start of the front: run r1: tier")


def tar_of(*members: tuple[str, bytes, dict[str, object]]) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for name, kind, fields in members:
            info = tarfile.TarInfo(name)
            info.type = kind
            for field, value in fields.items():
                setattr(info, field, value)
            archive.addfile(info, io.BytesIO(bytes(info.size)))
    return stream.getvalue()


PLAIN = ("plugin.py", tarfile.REGTYPE, {"size": 1})
BUNDLES = {
    "a symbolic link": tar_of(PLAIN, ("link", tarfile.SYMTYPE, {"linkname": "/etc/shadow"})),
    "a link and a file through it": tar_of(("d", tarfile.SYMTYPE, {"linkname": "/etc"}), ("d/x", tarfile.REGTYPE, {})),
    "a hard link": tar_of(PLAIN, ("link", tarfile.LNKTYPE, {"linkname": "plugin.py"})),
    "a character device": tar_of(("mem", tarfile.CHRTYPE, {"devmajor": 1, "devminor": 1})),
    "a block device": tar_of(("disk", tarfile.BLKTYPE, {"devmajor": 8})),
    "a fifo": tar_of(("fifo", tarfile.FIFOTYPE, {})),
    "a folder": tar_of(("folder", tarfile.DIRTYPE, {})),
    "a path that goes up": tar_of(("../up", tarfile.REGTYPE, {"size": 1})),
    "a path that goes down and up": tar_of(("a/../../up", tarfile.REGTYPE, {"size": 1})),
    "an absolute path": tar_of(PLAIN, ("/run/up", tarfile.REGTYPE, {"size": 1})),
    "a name twice": tar_of(PLAIN, PLAIN),
    "a file and a folder of one name": tar_of(("a", tarfile.REGTYPE, {}), ("a/b", tarfile.REGTYPE, {})),
    "a long name": tar_of(("x" * 200, tarfile.REGTYPE, {})),
    "too many files": tar_of(*((f"f{n}", tarfile.REGTYPE, {}) for n in range(codestore.MAX_INODES + 1))),
    "too many folders": tar_of(*(("a/" * 40 + f"f{n}/x", tarfile.REGTYPE, {}) for n in range(codestore.MAX_INODES))),
    "a file of 8 GB": tar_of(PLAIN)[:124] + b"77777777777\0" + tar_of(PLAIN)[136:],
    "something behind its end": BUNDLE + b"x",
    "no tar": b"x" * 10_000,
    "nothing": b"",
    "more than a bundle may have": bytes(codestore.MAX_BUNDLE_BYTES + 1),
}


@pytest.mark.parametrize("kind", [each for each in BUNDLES if each != "nothing"])
def test_no_bundle_but_regular_files_below_it(front: Front, kind: str) -> None:
    """Refused whole: nothing of it lies anywhere (`unmoved` looks)."""
    assert front.load(BUNDLES[kind]).error != ""  # what its largest bundle takes the allocator may keep, once
    with unmoved(front):
        for _ in range(3):
            assert front.load(BUNDLES[kind]).error != ""
        digest = hashlib.sha256(BUNDLES[kind]).hexdigest()
        assert_logged(front, f"refused load of the front: {digest}")
        front.start(digest=digest)
        assert front.refused().step == protocol.NOT_LOADED


def test_run_names_that_the_kernel_has_itself(front: Front) -> None:
    """A run's name becomes a folder's: those of the kernel's files and of our own groups are no way to anything."""
    with unmoved(front):
        for run in ("tasks", "notify_on_release", "tier0", "tier2", "instances", "templates", "-", "_" * 64):
            front.start(run)
            message = front.hear_of((protocol.Refused, protocol.Ended), run)  # type: ignore[arg-type]
            assert isinstance(message, protocol.Ended) or "File exists" in message.detail


def test_a_run_twice(front: Front) -> None:
    with unmoved(front), proper_descriptors("sleep") as (descriptors, _):
        front.start("twice", descriptors)
        front.hear_of(protocol.Started, "twice")
        for tier in (1, 2):
            front.start("twice", tier=tier)
            assert "is there already" in front.refused("twice").detail
        front.send(codec.encode(protocol.Kill("twice", "canceled")))
        assert front.hear_of(protocol.Ended, "twice").cause == "canceled"


@pytest.mark.parametrize("cause", ["cpu_exceeded", "violation", "fault", "", "ok", "killed ", "\\", "x" * 4096])
def test_a_kill_for_a_cause_that_is_not_the_front_s(front: Front, cause: str) -> None:
    """What is for the launcher to find cannot be claimed: the run goes on."""
    with unmoved(front), proper_descriptors("sleep") as (descriptors, _):
        front.start("sleeper", descriptors)
        front.hear_of(protocol.Started, "sleeper")
        front.send({"op": "kill", "run": "sleeper", "cause": cause})
        assert front.works()
        assert len(front.instances()) == 1
        assert_logged(
            front, "refused kill of the front: cause: expected one of canceled, killed, output_limit, timeout, got"
        )
        front.send({"op": "kill", "run": "sleeper", "cause": "killed"})
        assert front.hear_of(protocol.Ended, "sleeper").cause == "killed"


def test_a_kill_of_what_is_not_there(front: Front) -> None:
    with unmoved(front):
        for run in ("nobody", "tier2", "instances", "proper"):
            front.send({"op": "kill", "run": run, "cause": "killed"})


FLOOD = 10_000


@attack(
    59,
    "what is used asked ten thousand times at once, with every place taken",
    "one message at a time, and ten a second; a twentieth of the launcher's time",
)
def test_a_flood_of_questions_gets_ten_answers_a_second(front: Front) -> None:
    """And limits are held meanwhile. Each answer has every instance, and nobody else's processes."""
    most = PROFILES[2].instances
    with unmoved(front), proper_descriptors("sleep") as (descriptors, _):
        for number in range(most):
            front.start(f"used{number}", descriptors)
        for _ in range(most):
            front.hear_of(protocol.Started)
        began, answers = time.monotonic(), []
        for _ in range(FLOOD):
            front.sample()
            while not front.silent():
                answers.append(front.hear_of(protocol.Sampled))
        took_s = time.monotonic() - began
        answers += [front.hear_of(protocol.Sampled)]  # to what was asked last
        assert len(answers) <= took_s / 0.1 + 2
        for told in answers:
            assert {use.run for use in told.instances} == {f"used{number}" for number in range(most)}
            assert all(use.pids == 1 and use.memory_bytes > 0 and use.refused_calls == 0 for use in told.instances)
            assert (told.parked, told.left_out, told.launcher.pid) == ((), 0, front.pid)
        for number in range(most):
            front.send({"op": "kill", "run": f"used{number}", "cause": "killed"})
        for _ in range(most):
            front.hear_of(protocol.Ended)
        assert front.works()
        assert front.silent()


def test_one_that_asks_what_is_used_and_never_reads_is_left() -> None:
    """What it is told it has to take, as all else: in the end the launcher ends, and keeps no answers for it."""
    with taken_over() as front:
        sleeping(front)
        below = descendants(front.pid)
        deadline = time.monotonic() + 10
        with proper_descriptors() as (descriptors, _), contextlib.suppress(BrokenPipeError, ConnectionResetError):
            while time.monotonic() < deadline:
                front.sample()
                front.send(start_text("0"), descriptors)
        assert_ends_in_order(front, below)


@attack(59, "ten thousand messages at once", "nothing blocks; the log is bounded")
def test_a_flood_of_messages_holds_nothing_up(front: Front) -> None:
    """While ten thousand of all kinds come, the limits of a plugin that runs are held."""
    wrong = [
        codec.encode(protocol.Kill("nobody", "killed")),
        b'{"op":"exec"}'.ljust(protocol.MAX_MESSAGE_BYTES),
        b"\xff" * 1000,
        start_text("0"),
        codec.encode(protocol.Load("a" * 64)),
    ]
    with unmoved(front), proper_descriptors("sleep") as (descriptors, _):
        front.start("limited", descriptors, wall_ms=300)
        began = front.hear_of(protocol.Started, "limited") and time.monotonic()
        ended = None
        for number in range(FLOOD):
            data = wrong[number % len(wrong)]
            front.send(data, descriptors if b'"start"' in data else descriptors[:1] if b'"load"' in data else ())
            while not front.silent():
                message = front.hear()
                if isinstance(message, protocol.Ended):
                    ended = time.monotonic()
                    assert (message.run, message.cause) == ("limited", "timeout")
        ended = ended or (front.hear_of(protocol.Ended, "limited") and time.monotonic())
        assert ended - began < 10  # a launcher that was held up would have come to it when the flood is over
        assert front.works()
        time.sleep(1)
        front.send(b"?")  # the next refusal tells how many were not told one by one
        assert front.works()
        lines = front.log().splitlines()
        assert len(lines) <= MOST_A_SECOND * (time.monotonic() - began + 2), "the log can be filled"
        assert max(map(len, lines)) < 1200
        assert any("more before this" in line for line in lines)


def test_a_burst_beyond_every_place(front: Front) -> None:
    """More starts than there are places: those are used, what is beyond is refused, and none is lost."""
    many = 4 * PROFILES[2].instances
    with unmoved(front):
        for number in range(many):
            front.start(f"b{number}")
        answers = [front.hear_of((protocol.Refused, protocol.Ended)) for _ in range(many)]  # type: ignore[arg-type]
        assert {each.run for each in answers} == {f"b{number}" for number in range(many)}
        ended = [each for each in answers if isinstance(each, protocol.Ended)]
        assert len(ended) >= PROFILES[2].instances
        assert all("has its 32 instances" in each.detail for each in answers if isinstance(each, protocol.Refused))


@attack(59, "a uid outside the tier's slice", "no message names a uid")
@pytest.mark.parametrize("tier", [0, 1, 2])
def test_every_host_uid_lies_in_the_slice_of_its_tier(tmp_path: Path, tier: int) -> None:
    """Nothing that the front can say names a uid, and each instance has one of its own."""
    fields = {*protocol.Start.__dataclass_fields__, *Limits.__dataclass_fields__}
    assert not {name for name in fields if "uid" in name or "gid" in name or "user" in name}
    for path in profiles_dir().iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "builtin.list").write_text(f"{DIGEST}\n")
    base, count = uids.slice_of(tier)
    with taken_over(tmp_path) as front, proper_descriptors("sleep") as (descriptors, _):
        seen: list[int] = []
        for round_ in range(3):
            runs = [f"u{round_}-{number}" for number in range(PROFILES[tier].instances)]
            for run in runs:
                front.start(run, descriptors, tier=tier, limits=limits_of(tier))
            for _ in runs:
                front.hear_of(protocol.Started)
            deadline = time.monotonic() + 10
            while len(front.instances()) < len(runs):  # one look into /proc is not all at the same moment
                assert time.monotonic() < deadline, front.instances()
            together = [uid_of(pid) for pid in front.instances()]
            assert len(set(together)) == len(runs)
            seen += together
            for run in runs:
                front.send({"op": "kill", "run": run, "cause": "killed"})
            for _ in runs:
                front.hear_of(protocol.Ended)
        assert len(set(seen)) == len(seen), "a uid came back while there were others"
        assert all(base < uid < base + count for uid in seen), "0 is the zygote's"
        assert front.end() == 0


def uid_of(pid: int) -> int:
    text = Path(f"/proc/{pid}/status").read_text()
    real, effective, saved, files = next(line.split()[1:] for line in text.splitlines() if line.startswith("Uid:"))
    assert real == effective == saved == files
    return int(real)


# -- what ends a launcher: in order, with every instance gone


def sleeping(front: Front, runs: int = 4) -> None:
    """So many instances run plugin code."""
    with proper_descriptors("sleep") as (descriptors, _):
        for number in range(runs):
            front.start(f"s{number}", descriptors)
        for _ in range(runs):
            front.hear_of(protocol.Started)


def assert_ends_in_order(front: Front, below: dict[int, str]) -> None:
    """It has ended by itself, and nothing of it is left: no process, no group, no unpacked code."""
    assert front.wait() == 0
    assert_gone_within_50_ms(below)
    assert [pid for pid in below if Path(f"/proc/{pid}").exists()] == []
    status = front.state.stat()
    name = f"plugind-{status.st_dev:x}-{status.st_ino:x}"
    assert not Path("/run", name).exists()
    assert groups_of_state(front.state) == []


def test_one_that_never_reads_is_left() -> None:
    """The launcher does not wait for it, and does not keep its messages: it ends, and so does everything below."""
    with taken_over() as front:
        sleeping(front)
        below = descendants(front.pid)
        with proper_descriptors() as (descriptors, _), contextlib.suppress(BrokenPipeError, ConnectionResetError):
            for _ in range(100_000):
                front.send(start_text("0"), descriptors)
        assert_ends_in_order(front, below)
        assert "the front does not listen any more" in front.log()


@pytest.mark.parametrize("how", ["close", "half", "other half", "nothing said", "reset"])
def test_one_that_hangs_up_in_the_middle(how: str) -> None:
    """While jails run, while they are built, and while more wait for their turn."""
    with taken_over() as front:
        sleeping(front)
        with proper_descriptors("sleep") as (descriptors, _):
            for number in range(24):
                front.start(f"m{number}", descriptors)
        below = descendants(front.pid)
        match how:
            case "close":
                front.sock.close()
            case "half":
                front.sock.shutdown(socket.SHUT_WR)
            case "other half":
                front.sock.shutdown(socket.SHUT_RD)
            case "nothing said":
                front.sock.send(b"")
            case "reset":
                front.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
                front.sock.close()
        assert_ends_in_order(front, below)


def test_one_that_is_stopped_is_left_when_its_socket_is_full() -> None:
    """A front that only stands still keeps what it has: limits are held all the same."""
    with taken_over() as front, proper_descriptors("sleep") as (descriptors, _):
        front.start("limited", descriptors, wall_ms=200)
        front.hear_of(protocol.Started)
        (pid,) = front.instances()
        deadline = time.monotonic() + 10
        while front.instances() == [pid]:  # nobody reads meanwhile
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert front.hear_of(protocol.Ended).cause == "timeout"
        assert front.works()


def test_reins_end_instances_and_reach_nothing_else(front: Front) -> None:
    """The descriptors that a front is given: each ends one instance, or all; they are no folders, and write no limit."""
    with unmoved(front), proper_descriptors("sleep") as (descriptors, _):
        front.start("reined", descriptors)
        given: list[int] = []
        while not given:
            data, given, _ = receive(front)
        kill, events = given
        assert codec.decode(data) == protocol.Placed("reined")
        front.hear_of(protocol.Started, "reined")
        for descriptor in (kill, events):
            with pytest.raises(NotADirectoryError):
                os.open("..", os.O_RDONLY | os.O_DIRECTORY, dir_fd=descriptor)
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.write(events, b"0")
        for word in (b"0", b"max", b"2", b"x" * 5000):
            with pytest.raises(OSError):
                os.write(kill, word)
        os.write(kill, b"1")
        ended = front.hear_of(protocol.Ended, "reined")
        assert (ended.cause, ended.exit_code) == ("", -signal.SIGKILL)
        channel.close(given)


def receive(front: Front) -> tuple[bytes, list[int], bool]:
    assert select.select([front.sock], [], [], 20)[0]
    return channel.receive(front.sock, protocol.MAX_MESSAGE_BYTES, 2)


def test_the_launcher_s_own_socket_as_a_descriptor(front: Front) -> None:
    """Sockets in sockets, which keep themselves alive in the kernel: refused and closed as anything else."""
    with unmoved(front):
        for _ in range(100):
            one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            rights = array.array("i", [one.fileno(), other.fileno()])
            one.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])
            front.start(descriptors=[one.fileno(), other.fileno(), front.sock.fileno(), front.sock.fileno()])
            one.close()
            other.close()
            assert NO_MEMFD in front.refused().detail


def test_one_input_for_many_and_one_that_is_no_json(front: Front) -> None:
    """What is in the input only its own instance reads: nonsense there is that run's failure."""
    with unmoved(front), proper_descriptors() as (descriptors, _):
        for content in (b"", b"\0" * 15, bytes(16) + b"\xff" * 4, bytes(20) + b"{" * 1000, os.urandom(5000)):
            nonsense = sealed_memfd("input", content)
            front.start("nonsense", [nonsense, *descriptors[1:]])
            os.close(nonsense)
            assert front.hear_of(protocol.Ended, "nonsense").exit_code != 0


def test_the_launcher_keeps_its_privileges_to_itself(front: Front) -> None:
    """Nobody below it has a capability in the host's user namespace, whatever the front asked for."""
    assert front.works()
    own = Path("/proc/self/ns/user").readlink()
    below = descendants(front.pid)
    assert {"plugind-init", "plugind-zygote"} <= set(below.values())
    for pid, name in below.items():
        status = Path(f"/proc/{pid}/status").read_text()
        sets = re.findall(r"^Cap(?:Inh|Prm|Eff|Bnd|Amb):\s(\w+)$", status, re.MULTILINE)
        powerless = len(sets) == 5 and not any(int(each, 16) for each in sets)
        assert powerless or Path(f"/proc/{pid}/ns/user").readlink() != own, name
        assert uid_of(pid) >= uids.FIRST, name
