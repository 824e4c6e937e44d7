"""Without its control the attack succeeds: signals between siblings, forged results, what is left or shared.

Rows shown to succeed: 5, 17, 36, 41, 45, 46, 47, 55 and 56.
"""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import os
import random
import secrets
import socket
import subprocess
import sys
import tarfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from plugind import jsontext
from plugind.errors import InvalidJsonError
from plugind.model import Limits, Outcome
from plugind.sandbox import channel, protocol
from plugind.sandbox.inside.runner import HEADER, NONCE_BYTES
from plugind.sandbox.outcome import judge
from plugind.sandbox.sealed import sealed_memfd
from tests.escapes.controls_off import ENTRY, MODULES, Went, attack, shown, shows
from tests.support.bad_front import taken_over
from tests.support.jail import Jail, bundle_of, jail
from tests.support.weakened import profiles_of, weakened

BITS = 16
SLOT_S = 0.04
BEGIN_S = 0.5
"""Both ends have started by then."""
TIMES = 5
"""So often does an attacker try on a busy machine, until all bits came through at once."""


@dataclass(frozen=True)
class Channel:
    """Two ends, what carries the bits, what has to be off for it; `still` holds even then."""

    row: str
    title: str
    sender: str
    receiver: str
    off: str
    unsafe: Mapping[str, Any]
    arguments: Mapping[str, Any] = field(default_factory=dict)
    still: str = ""
    module: str = "file_channels"

    def shown(self) -> list[str]:
        """What is off where it carries something."""
        return [] if self.still else [self.off]

    async def carries(self, box: Jail) -> bool:
        """Whether all bits came through, in one of several times. None may come through in part unnoticed."""
        for _ in range(1 if self.still else TIMES):
            sent, received = await self._once(box)
            if received.value == [bool(bit) for bit in sent]:
                return True
            seen = set(received.value or ())
            if len(seen) < 2:
                return False
        raise AssertionError(f"something came through, but never all of it: sent {sent}, {received}")

    async def _once(self, box: Jail) -> tuple[list[int], Went]:
        bits = [1, 0, *random.sample([0, 1] * BITS, BITS - 2)]
        for _ in range(TIMES):
            given = {"start": time.time() + BEGIN_S, "slot": SLOT_S, **self.arguments}
            sent, received = await asyncio.gather(
                attack(box, f"{self.module}.send_{self.sender}", {"bits": bits, **given}),
                attack(box, f"{self.module}.receive_{self.receiver}", {"count": BITS, **given}),
            )
            late = [each for each in (sent, received) if each.result.error and each.result.error.type == "LateError"]
            if not late:
                return bits, received
        raise AssertionError(f"the machine was too busy for a clock, {TIMES} times")


INOTIFY = {"allow": ["inotify_init1", "inotify_add_watch"]}
FCNTL = {"allow": ["fcntl"]}
CHANNELS = (
    Channel(
        "55",
        "abstract names of socket pairs",
        "datagrams",
        "datagrams",
        "Landlock's scope, and the types of socketpair",
        {"without": ["landlock"], "allow": ["socketpair", "setsockopt"]},
        still="a network namespace of each one's own",
        module="channels",
    ),
    Channel("36", "flock", "flock", "flock", "flock is refused", {"allow": ["flock"]}),
    Channel("36", "inotify", "opens", "inotify", "inotify is refused", INOTIFY),
    Channel("36", "record locks", "record_lock", "record_lock", "fcntl allow-list", FCNTL, {"ofd": False}),
    Channel("36", "locks of a descriptor", "record_lock", "record_lock", "fcntl allow-list", FCNTL, {"ofd": True}),
    Channel("36", "leases", "lease", "lease", "fcntl allow-list", FCNTL, still="leases are for a file's owner"),
    Channel(
        "36",
        "cachestat",
        "page_cache",
        "cachestat",
        "cachestat is refused",
        {"allow": ["cachestat"]},
        still="the kernel tells residency to owners only",
    ),
)


@pytest.mark.parametrize("given", CHANNELS, ids=lambda given: f"{given.row}: {given.title}")
async def test_channels(given: Channel, tmp_path: Path) -> None:
    profiles = profiles_of(tmp_path, 2)
    async with jail(profiles) as box:
        assert not await given.carries(box), "with its control in place"
    async with jail(profiles, weakened(**given.unsafe)) as box:
        assert await given.carries(box) is not bool(given.still), f"off: {given.off}"


async def test_a_socket_of_the_host_stays_out_of_reach_of_a_plugin_that_may_have_sockets(tmp_path: Path) -> None:
    """Row 17: with sockets allowed and without Landlock the network namespace still holds; its own names it reaches."""
    name = f"plugind-off-{secrets.token_hex(8)}"
    profiles = profiles_of(tmp_path, 2)
    unsafe = weakened(allow=["socket", "connect", "bind", "listen"], without=["landlock"])
    with socket.socket(socket.AF_UNIX) as host:
        host.bind(f"\0{name}")
        host.listen()
        async with jail(profiles, unsafe) as box:
            went = await attack(box, "siblings.abstract_socket", {"name": name})
            own = await value_of(box, CONNECTS, name)
    assert went.value["socket"].startswith("done"), went
    assert {got for what, got in went.value.items() if what.startswith("connect")} == {"ECONNREFUSED"}
    assert own == "connected", "the call itself works"


CONNECTS = """
import socket
def run(name, context):
    with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as client:
        server.bind("\\0" + name)
        server.listen()
        client.connect("\\0" + name)
        return "connected"
"""


def frame_of(name: str, nonce: bytes) -> tuple[protocol.Ended, bytes]:
    """How a run of a results attack ended, and all that it wrote to the result pipe; its nonce is the given one."""
    data = bundle_of(**{**MODULES, "plugin": ENTRY})
    call = {"stage": "", "plan_id": "", "interface": "json", "entrypoint": "plugin:run", "mode": "run"}
    head = json.dumps(call).encode()
    payload = json.dumps({"attack": f"results.{name}", "arguments": {}}).encode()
    readers, writers = zip(*(os.pipe2(os.O_CLOEXEC) for _ in range(3)), strict=True)
    given = [sealed_memfd("input", nonce + len(head).to_bytes(4, "big") + head + payload), *writers]
    with taken_over() as front:
        assert front.load(data).error == ""
        front.start("r", given, digest=hashlib.sha256(data).hexdigest())
        channel.close(given)
        ended = front.hear_of(protocol.Ended, "r")
    written = b"".join(iter(lambda: os.read(readers[0], 65536), b""))
    channel.close(readers)
    return ended, written


@shows("45", off="a nonce that nobody knows")
def test_a_forged_frame_is_believed_where_the_nonce_is_known() -> None:
    """Row 45. The attack signs with sixteen zeros; what it is worth depends on whether those are the run's nonce."""
    for nonce, outcome, output in (
        (os.urandom(NONCE_BYTES), Outcome.OUTPUT_INVALID, None),
        (bytes(NONCE_BYTES), Outcome.OK, b'"forged"'),
    ):
        verdict = judge(*frame_of("wrong_nonce", nonce), nonce, Limits())
        assert (verdict.outcome, verdict.output_json) == (outcome, output)


@shows("45", off="exactly one frame")
def test_a_forged_frame_is_believed_where_the_first_one_counts() -> None:
    """Row 45. A plugin shares the interpreter with its nonce, so only that there is one frame stops a second one."""
    nonce = os.urandom(NONCE_BYTES)
    ended, written = frame_of("two_frames", nonce)
    assert judge(ended, written, nonce, Limits()).outcome is Outcome.OUTPUT_INVALID
    first = written[: HEADER.size + HEADER.unpack_from(written)[2]]
    assert judge(ended, first, nonce, Limits()).output_json == b'"forged"'


@shows("46", off="strict parsing")
@pytest.mark.parametrize(
    ("text", "taken"),
    [
        ('{"a": 1, "a": 2}', {"a": 2}),
        ("[-Infinity]", [float("-inf")]),
        ('"\\ud800"', "\ud800"),
        ("1e999", float("inf")),
    ],
)
async def test_a_lax_parser_takes_what_is_no_json(text: str, taken: object, tmp_path: Path) -> None:
    """Row 46. The jail lets the bytes through; the strict parser behind it refuses what Python's own takes."""
    async with jail(profiles_of(tmp_path, 2)) as box:
        went = await attack(box, "results.raw_json", {"text": text})
    data = went.result.output_json
    assert data is not None, went
    with pytest.raises(InvalidJsonError):
        jsontext.loads(data, max_bytes=1000)
    assert json.loads(data) == taken


@shows("47", off="imported in the jail only")
async def test_code_that_is_imported_outside_reaches_the_host(tmp_path: Path) -> None:
    """Row 47. The control is where it is imported: in the jail, or by an interpreter of the host."""
    mark = tmp_path / "mark"
    tmp_path.chmod(0o777)
    code = f"try:\n    open({str(mark)!r}, 'w').close()\nexcept OSError:\n    pass\ndef run(payload, context):\n    return 1\n"
    async with jail(profiles_of(tmp_path, 2)) as box:
        assert await box.value(code) == 1
    assert not mark.exists()
    (tmp_path / "plugin.py").write_text(code)
    script = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import plugin"
    subprocess.run([sys.executable, "-I", "-B", "-c", script], check=True)
    assert mark.exists()


TWICE = "import siblings\ndef run(payload, context):\n    return [siblings.leave_marks() for _ in range(payload)]\n"


@shows("41", off="a fresh instance for each run")
async def test_marks_are_found_where_an_instance_is_used_again(tmp_path: Path) -> None:
    """Row 41. The control is a fresh instance for each run; without, the second call finds what the first one left."""
    untouched = ("done: []", "done: []", False, False)
    marked = ("done: ['mark']", "done: ['mark']", True, True)
    async with jail(profiles_of(tmp_path, 2)) as box:
        assert [found(each) for _ in range(2) for each in await value_of(box, TWICE, 1)] == [untouched, untouched]
        assert [found(each) for each in await value_of(box, TWICE, 2)] == [untouched, marked]


def found(seen: Mapping[str, Any]) -> tuple[object, ...]:
    """What was there of an earlier call's marks."""
    return seen["/tmp"], seen["/dev/shm"], seen["modules"], "MARK" in seen["environment"]


async def value_of(box: Jail, code: str, payload: object) -> Any:
    """What code that uses the attacks' modules returned."""
    went = Went(await box.run(code, payload, files=MODULES))
    assert went.outcome == "ok", went
    return went.value


TWINS = """
import json, os, raw, twins
def run(payload, context):
    drawn = []
    twins.draw()  # so that there is a state to inherit
    for _ in range(2):
        reader, writer = os.pipe()
        pid = os.fork() if payload == "reseeded" else raw.syscall("clone", 17, 0, 0, 0, 0)
        if pid == 0:
            os.write(writer, json.dumps(twins.draw()).encode())
            os._exit(0)
        os.waitpid(pid, 0)
        drawn.append(json.loads(os.read(reader, 65536)))
    return [first == second for first, second in zip(*drawn)]
"""


@shows("56", off="reseeding in the clone")
async def test_twins_draw_the_same_where_nobody_reseeds_them(tmp_path: Path) -> None:
    """Row 56. The raw clone that the zygote uses runs no hooks: without reseeding, siblings have one random state."""
    async with jail(profiles_of(tmp_path, 2)) as box:
        reseeded = await value_of(box, TWINS, "reseeded")
        raw = await value_of(box, TWINS, "raw")
    assert not any(reseeded)
    assert raw[0], "random.random()"
    assert not raw[1], "what comes from the kernel differs in any case"


@shows("5", off="regular files only, by their exact bytes")
@pytest.mark.parametrize(("kind", "name"), [(tarfile.SYMTYPE, "inside.py"), (tarfile.REGTYPE, "../outside.py")])
def test_a_plain_unpacker_follows_where_a_bundle_leads(kind: bytes, name: str, tmp_path: Path) -> None:
    """Row 5. The launcher refuses these bytes, and an unpacker that takes them as they are is led out by them."""
    secret, target = tmp_path / "secret", tmp_path / "unpacked"
    secret.write_text("secret")
    target.mkdir()
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, str(secret)
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        archive.addfile(member)
    with taken_over() as front:
        assert front.load(stream.getvalue()).error, "the launcher takes it"
    stream.seek(0)
    with tarfile.open(fileobj=stream) as archive:
        archive.extractall(target, filter="fully_trusted")
    assert (tmp_path / "outside.py").exists() or (target / "inside.py").read_text() == "secret"


def test_at_least_twenty_rows_are_shown() -> None:
    """With its control off, an attack of each of these rows succeeds."""
    rows = shown()
    assert len(rows.keys() - {"+"}) >= 20, sorted(rows)
    assert {*"2 3 5 6 7 8 9 10 11 12 13 15 16 17 18 19".split()} <= rows.keys()
    assert {*"21 22 23 25 27 31 32 34 35 36 41 45 46 47 51 55 56 60".split()} <= rows.keys()
