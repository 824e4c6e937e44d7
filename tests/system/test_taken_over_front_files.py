"""The launcher's own checks of files of plans, against a front that was taken over: files, folders and sizes."""

from __future__ import annotations

import contextlib
import json
import os
import select
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from plugind import planfiles
from plugind.planfiles import Entry
from plugind.sandbox import channel, codec, grants, protocol
from plugind.sandbox.sealed import mapped, sealed_memfd
from tests.escapes.attack import attack
from tests.support.bad_front import (
    PROFILES,
    TIMEOUT_S,
    Front,
    limits_of,
    proper_descriptors,
    session_descriptors,
    taken_over,
    unmoved,
)
from tests.system.test_taken_over_front import DESCRIPTORS, assert_logged

pytestmark = pytest.mark.root

FILES = PROFILES[1].files
MOST = grants.most_packed_bytes(FILES)
NO_FILES = f"files: expected a sealed memfd of at most {MOST} bytes"
GOOD = planfiles.pack([Entry("a/b", b"1"), Entry("c", b"2")])


@pytest.fixture(scope="module")
def front() -> Iterator[Front]:
    """One launcher for all that it has to survive."""
    with taken_over() as made:
        with proper_descriptors() as (descriptors, _), memfd(GOOD) as files:
            made.start("before", [*descriptors, files], tier=1, reads=1)
            assert made.hear_of(protocol.Ended, "before").exit_code == 0
        yield made
        assert made.end() == 0


@contextlib.contextmanager
def memfd(content: bytes) -> Iterator[int]:
    made = sealed_memfd("files", content)
    try:
        yield made
    finally:
        os.close(made)


def start(front: Front, content: bytes, run: str = "r1", tier: int = 1) -> None:
    """A start that is as it should be but for its files."""
    with proper_descriptors() as (descriptors, _), memfd(content) as files:
        front.start(run, [*descriptors, files], tier=tier, reads=1)


def index(*listed: object, facts: object = None, **more: object) -> bytes:
    text = json.dumps({"facts": facts or {}, "files": listed, **more}).encode()
    return len(text).to_bytes(4, "big") + text


def listed(path: object = "a", size: object = 0, **more: object) -> dict[str, object]:
    return {"path": path, "bytes": size, "mark": "", "problem": "", "facts": {}, **more}


@attack(59, "folders, devices, sockets, unsealed memfds as the files of a plan", "a sealed memfd, of bounded size")
@pytest.mark.parametrize("kind", DESCRIPTORS)
def test_files_are_a_sealed_memfd(front: Front, tmp_path: Path, kind: str) -> None:
    with unmoved(front):
        for op, given in (("start", proper_descriptors()), ("open", session_descriptors())):
            with given as (descriptors, *_):
                bad = DESCRIPTORS[kind](tmp_path)
                front.start(op=op, descriptors=[*descriptors, bad], tier=1, reads=1)
                os.close(bad)
            assert NO_FILES in front.refused().detail
            assert_logged(front, f"refused start of the front: run r1: {NO_FILES}")


ODD = {
    "nothing": b"",
    "two bytes": b"xx",
    "zeros": bytes(1000),
    "an index longer than all of it": b"\xff\xff\xff\xff" + bytes(100),
    "an index that is no JSON": b"\0\0\0\x01x",
    "an index in UTF-16": len("{}".encode("utf-16")).to_bytes(4, "big") + "{}".encode("utf-16"),
    "an index nested 100,000 times": (100_000).to_bytes(4, "big") + b"[" * 100_000,
    "a list": index()[:4] + b"[]",
    "no files": b"\0\0\0\x0c" + b'{"facts":{}}',
    "files that are a number": b"\0\0\0\x16" + b'{"facts":{},"files":1}',
    "facts that are a list": index(facts=["x"]),
    "a file without a size": index({"path": "a"}),
    "a size that is a text": index(listed(size="1")),
    "a size that is true": index(listed(size=True)) + b"1",
    "a size below -1": index(listed(size=-2)),
    "a size of 2^40": index(listed(size=2**40)),
    "a size of 2^70": index(listed(size=2**70)),
    "more than there is": index(listed(size=2)) + b"1",
    "less than there is": index(listed(size=1)) + b"12",
    "a path that goes up": index(listed("../x")),
    "a path that goes down and up": index(listed("a/../../x")),
    "an absolute path": index(listed("/etc/passwd")),
    "a path of nothing": index(listed("")),
    "a path with an empty part": index(listed("a//b")),
    "a path with a zero": index(listed("a\0b")),
    "a path with a line end": index(listed("a\nb")),
    "a path with half a character": index(listed("\ud800")),
    "a path with a backslash": index(listed("a\\b")),
    "a path that is a number": index(listed(1)),
    "a path of nine parts": index(listed("/".join("123456789"))),
    "a path of 1025 bytes": index(listed("/".join(["x" * 204] * 5)[:1024] + "xx")),
    "a name of 256 bytes": index(listed("x" * 256)),
    "plugind's own name": index(listed("a/.plugind-x")),
    "a path twice": index(listed("a"), listed("a")),
    "a file and a folder of one name": index(listed("a/b"), listed("a")),
    "a folder and a file of one name": index(listed("a"), listed("a/b/c")),
    "a file without a content": index(listed(size=-1)),
    "a link": index(listed(size=-1, problem="symlink")),
    "too many": index(*(listed(f"{number}") for number in range(FILES.read_files + 1))),
    "too many folders": index(*(listed(f"{number}/" * 7 + "x") for number in range(FILES.read_files + 1))),
    "too much": index(listed(size=FILES.read_bytes + 1)) + bytes(FILES.read_bytes + 1),
    "an index above every limit": (planfiles.MAX_INDEX_BYTES + 1).to_bytes(4, "big")
    + bytes(planfiles.MAX_INDEX_BYTES + 1),
}


@attack(
    59,
    "files that are garbage, too many, too large, with paths that lead out, twice, or below each other",
    "unpacked by planfiles.unpack within the tier's [files], into a file system of their own",
)
@pytest.mark.parametrize("kind", ODD)
def test_only_a_proper_set_of_files_is_unpacked(front: Front, kind: str) -> None:
    start(front, ODD[kind])
    front.refused()  # what the largest takes the allocator may keep, once
    with unmoved(front):
        for _ in range(3):
            start(front, ODD[kind])
            assert "files" in front.refused().detail
        assert_logged(front, "refused start of the front: run r1: files: ")


def test_what_is_longer_than_it_can_be_is_not_read(front: Front) -> None:
    with unmoved(front):
        start(front, bytes(MOST + 1))
        assert NO_FILES in front.refused().detail


@attack(
    59,
    "more files to write than the profile has, files for Tier 2, files for what imports ahead",
    "the root-owned profiles are ceilings",
)
def test_nothing_beyond_what_the_profile_gives(front: Front) -> None:
    both = {"write_files": 1, "write_bytes": 1}
    cases: Sequence[tuple[dict[str, object], int, str]] = (
        ({"tier": 1, "reads": 2}, 2, "reads: expected 0 to 1 in tier 1, got 2"),
        ({"tier": 1, "reads": 12}, 12, "reads: expected 0 to 1 in tier 1, got 12"),
        ({"tier": 1, "reads": -4}, -4, "reads: expected 0 to 1 in tier 1, got -4"),
        ({"tier": 1, **both, "write_files": FILES.write_files + 1}, 0, "write_files: expected 0 to"),
        ({"tier": 1, **both, "write_bytes": FILES.write_bytes + 1}, 0, "write_bytes: expected 0 to"),
        ({"tier": 1, **both, "write_files": -1}, 0, "write_files: expected 0 to"),
        ({"tier": 1, **both, "write_bytes": 2**52}, 0, "write_bytes: expected 0 to"),
        ({"tier": 1, **both, "write_bytes": 0}, 0, "expected both or neither"),
        ({"tier": 1, **both, "write_files": 0}, 0, "expected both or neither"),
        ({"tier": 2, **both}, 0, "write_files: expected 0 to 0 in tier 2, got 1"),
        ({"tier": 7, **both}, 0, "expected 0, 1 or 2, got 7"),
    )
    with unmoved(front), proper_descriptors() as (descriptors, _):
        for fields, more, words in cases:
            front.start(descriptors=(descriptors * 4)[: 4 + more], limits=limits_of(1), **fields)
            assert words in front.refused().detail
            assert_logged(front, "refused start of the front: run r1: ")
        for fields in ({"reads": 1}, both):
            given = [*descriptors[:1], *descriptors[2:], *descriptors[:1]][: 3 + (1 if "reads" in fields else 0)]
            front.start(op="park", descriptors=given, tier=1, limits=limits_of(1), **fields)
            assert "files: expected none of what imports ahead, got some" in front.refused().detail


@pytest.mark.parametrize("reads", [0, 1])
def test_as_many_descriptors_as_there_have_to_be(front: Front, reads: int) -> None:
    with unmoved(front), proper_descriptors() as (descriptors, _):
        for count in (0, 3, 4 + (not reads), 6, 17):
            front.start(descriptors=(descriptors * 5)[:count], tier=1, reads=reads)
            assert front.works()
            assert_logged(front, f"expected {4 + reads} descriptors" if count <= 16 else "too many descriptors")


def test_all_that_may_be_had_is_had_and_told_before_the_end(front: Front) -> None:
    """Every file and every byte, to read and to write; and what was written comes with exactly one descriptor."""
    plan = planfiles.pack(
        [Entry(f"{number}", b"") for number in range(FILES.read_files - 1)] + [Entry("x", bytes(FILES.read_bytes))]
    )
    with unmoved(front), proper_descriptors() as (descriptors, _), memfd(plan) as files:
        for run in ("most1", "most2"):
            front.start(
                run,
                [*descriptors, files],
                tier=1,
                reads=1,
                write_files=FILES.write_files,
                write_bytes=FILES.write_bytes,
            )
            wrote = told(front, run)
            assert planfiles.unpack(wrote, 1, 1) == ([], {})
            assert front.hear_of(protocol.Ended, run).exit_code == 0


def told(front: Front, run: str) -> bytes:
    while True:
        assert select.select([front.sock], [], [], TIMEOUT_S)[0], front.log()
        data, descriptors, _ = channel.receive(front.sock, protocol.MAX_MESSAGE_BYTES, 4)
        message = codec.decode(data)
        try:
            if isinstance(message, protocol.Wrote):
                assert (message.run, len(descriptors)) == (run, 1)
                with mapped(descriptors[0]) as content:
                    return content[:]
        finally:
            channel.close(descriptors)
        assert not isinstance(message, protocol.Ended | protocol.Refused), message


def test_starts_with_files_that_wait_their_turn_are_checked_when_it_comes(front: Front) -> None:
    many = 2 * PROFILES[1].instances
    with unmoved(front):
        for number in range(many):
            start(front, GOOD if number % 2 else ODD["a path that goes up"], f"w{number}")
        answers = [front.hear_of((protocol.Refused, protocol.Ended)) for _ in range(many)]  # type: ignore[arg-type]
        good = {each.run for each in answers if isinstance(each, protocol.Ended)}
        assert good <= {f"w{number}" for number in range(1, many, 2)}
        assert good
