"""What the launcher demands of a start that is to have files of a plan."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from plugind import planfiles
from plugind.errors import InvalidRequestError
from plugind.planfiles import Entry, FileCeilings
from plugind.profiles import load_profiles, profiles_dir
from plugind.sandbox import channel, grants, protocol
from plugind.sandbox.gate import Gate
from plugind.sandbox.instances import Instances
from plugind.sandbox.latch import Latch
from plugind.sandbox.rootfs import GRANTS
from plugind.sandbox.sealed import sealed_memfd

PROFILES = load_profiles(profiles_dir())
PROFILES[1] = replace(PROFILES[1], files=FileCeilings(10, 1000, 4, 4096))
DIGEST = "a" * 64
MOST = 4 + planfiles.MAX_INDEX_BYTES + 1000


@pytest.fixture
def gate(tmp_path: Path) -> Gate:
    return Gate(PROFILES, frozenset(), Latch(tmp_path / "killed"), {DIGEST: ""}, Instances())  # type: ignore[arg-type]


@contextlib.contextmanager
def given(pipes: int = 3, files: int | None = None) -> Iterator[list[int]]:
    reader, writer = os.pipe()
    opened = [sealed_memfd("input", b"1"), *(os.dup(writer) for _ in range(pipes))]
    if files is not None:
        opened.append(sealed_memfd("files", bytes(files)))
    try:
        yield opened
    finally:
        channel.close([*opened, reader, writer])


def start(tier: int = 1, kind: type[protocol.Start] = protocol.Start, **fields: Any) -> protocol.Start:
    return replace(kind("r1", DIGEST, tier, PROFILES[tier].default_limits), **fields)


def test_what_the_profile_gives_is_admitted(gate) -> None:
    with given(files=MOST) as descriptors:
        assert gate.admit(start(reads=1, write_files=4, write_bytes=4096), descriptors) is PROFILES[1]
    with given() as descriptors:
        gate.admit(start(write_files=1, write_bytes=1), descriptors)
        gate.admit(start(), descriptors)


@pytest.mark.parametrize(
    "fields,words",
    [
        ({"reads": 2}, "reads: expected 0 to 1 in tier 1, got 2"),
        ({"reads": -4}, "reads: expected 0 to 1 in tier 1, got -4"),
        ({"write_files": 5, "write_bytes": 1}, "write_files: expected 0 to 4 in tier 1, got 5"),
        ({"write_files": 1, "write_bytes": 4097}, "write_bytes: expected 0 to 4096 in tier 1, got 4097"),
        ({"write_files": -1, "write_bytes": 1}, "write_files: expected 0 to 4"),
        ({"write_files": 1}, "write_files, write_bytes: expected both or neither, got (1, 0)"),
        ({"write_bytes": 1}, "write_files, write_bytes: expected both or neither, got (0, 1)"),
        ({"tier": 2, "write_files": 1, "write_bytes": 1}, "write_files: expected 0 to 0 in tier 2, got 1"),
        ({"kind": protocol.Park, "reads": 1}, "files: expected none of what imports ahead"),
        ({"kind": protocol.Park, "write_files": 1, "write_bytes": 1}, "files: expected none of what imports ahead"),
    ],
)
def test_more_is_refused_before_a_descriptor_is_looked_at(gate, fields, words) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        gate.admit(start(**fields), [])
    assert words in str(caught.value)


def test_a_tier_without_files_gives_none(gate) -> None:
    tier2 = PROFILES[2]
    PROFILES[2] = replace(tier2, files=FileCeilings())
    try:
        with pytest.raises(InvalidRequestError, match="reads: expected 0 to 0 in tier 2, got 1"):
            gate.admit(start(2, reads=1), [])
    finally:
        PROFILES[2] = tier2


def test_files_are_a_sealed_memfd_of_at_most_so_much(gate) -> None:
    message = start(reads=1)
    with given(files=MOST + 1) as descriptors:
        with pytest.raises(InvalidRequestError, match=f"files: expected a sealed memfd of at most {MOST} bytes"):
            gate.admit(message, descriptors)
        with pytest.raises(InvalidRequestError, match="files: expected a sealed memfd"):
            gate.admit(message, [*descriptors[:-1], descriptors[1]])
        unsealed = os.memfd_create("x", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        with pytest.raises(InvalidRequestError, match="files: expected a sealed memfd"):
            gate.admit(message, [*descriptors[:-1], unsealed])
        os.close(unsealed)


@pytest.mark.parametrize(
    "content,words",
    [
        (b"", "files"),
        (bytes(100), "expected an index"),
        (planfiles.pack([Entry("a", b"1")]) + b"x", "expected contents of"),
        (planfiles.pack([Entry("../a", b"1")]), "without empty, . or .. parts"),
        (planfiles.pack([Entry("/etc/passwd", b"1")]), "without empty, . or .. parts"),
        (planfiles.pack([Entry("a", b"1"), Entry("a", b"2")]), "each path once"),
        (planfiles.pack([Entry("a/b", b"1"), Entry("a", b"2")]), "a: expected a file or a folder, got both"),
        (planfiles.pack([Entry("a", None, problem="symlink")]), "a: expected a content, got none: 'symlink'"),
        (planfiles.pack([Entry(f"{n}", b"") for n in range(11)]), "expected at most 10, got 11"),
        (planfiles.pack([Entry("a", bytes(1001))]), "at most 1000"),
    ],
)
def test_what_is_no_set_of_files_is_refused_before_anything_is_mounted(content, words) -> None:
    memfd = sealed_memfd("files", content)
    with pytest.raises(InvalidRequestError, match="files") as caught:
        grants.plan_files(memfd, PROFILES[1].files)
    os.close(memfd)
    assert words in str(caught.value)


def test_the_root_has_the_folders_that_are_moved_onto() -> None:
    assert tuple(f"/{each}" for each in GRANTS) == (planfiles.PLAN_DIR, planfiles.OUTPUT_DIR)
