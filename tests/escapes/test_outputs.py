"""What is left in an output folder, against whoever collects it: nothing is followed, opened that waits, or taken twice.

In jails of a launcher of its own, with what it tells the front: nothing of a collected set counts before the front has
looked at it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.escapes.attack import OWN, attack
from tests.escapes.controls_off import Went
from tests.escapes.controls_off import attack as make
from tests.support.jail import Jail, jail
from tests.support.pace import stretched
from tests.support.weakened import weakened

MIB = 1 << 20
TARGETS = ("/etc/passwd", "/etc/shadow", "/proc/self/environ", "/plugin/dispatch.py", "/dev/zero", "/")
TIMES = 20


@pytest.fixture
async def box() -> AsyncIterator[Jail]:
    async with jail() as made:
        yield made


async def left(
    box: Jail, name: str, write: tuple[int, int] = (16, MIB), **arguments: Any
) -> tuple[Went, dict[str, Any]]:
    """How it went, and what was collected: path → problem, or content. The collector is not held up by anything."""
    limits = arguments.pop("limits", {})
    went = await make(box, f"outputs.{name}", arguments, 1, write=write, **limits)
    return went, {entry.path: entry.problem or entry.content for entry in went.result.wrote}


@attack(5, "symbolic links in the output folder, absolute, upwards, to links, to /proc", "nothing is followed")
async def test_links_are_named_and_lead_nowhere(box: Jail) -> None:
    went, found = await left(box, "links", targets=TARGETS)
    assert went.outcome == "ok", went
    assert len(found) == 2 * len(TARGETS) + 3
    assert set(found.values()) == {"symlink"}


@attack(
    5,
    "files and folders that change places with links ten thousand times, and on when the run has ended",
    "collected when no process is left",
)
async def test_swaps_never_lead_out(box: Jail, canary: tuple[Any, str]) -> None:
    path, secret = canary
    for _ in range(TIMES):
        went, found = await left(box, "swaps", target=str(path), count=10_000 // TIMES)
        assert went.outcome == "ok", went
        assert sorted(map(str, found.values())) == ["b'own'", "b'own'", "symlink", "symlink"]
        assert secret not in str(found)


@attack(20, "hard links to files of the host, of the bundle, of its plan", "another file system; one name only")
async def test_no_hard_link_leads_out() -> None:
    for unsafe in ({}, {"without": ["landlock"]}):
        async with jail(unsafe=weakened(**unsafe)) as box:
            went, found = await left(
                box, "hard_links", targets=["/etc/passwd", "/plugin/dispatch.py", "/usr/bin/env", "/proc/self/stat"]
            )
            assert set(went.value.values()) <= {"EXDEV", "EACCES", "EPERM", "ENOENT"}, went
            assert found == {}


@attack(20, "a FIFO, a socket and devices as outputs", "seccomp and Landlock make none; the collector opens none")
async def test_no_special_file_can_be_made_but_a_whiteout(box: Jail) -> None:
    went, found = await left(box, "special")
    answers = went.value
    made = answers.pop("whiteout")
    assert set(answers.values()) == {"EPERM"}, went
    assert went.tried["mknodat"] == 4
    assert found in ({"source": "device", "target": b"x"}, {"source": b"x"}), (made, found)


@attack(20, "the same with seccomp and Landlock switched off", "lstat, O_NOFOLLOW and O_NONBLOCK; what it is, is told")
async def test_special_files_are_named_and_hold_nobody_up() -> None:
    async with jail(unsafe=weakened(without=["landlock"], allow=["mknodat", "socket", "bind"])) as box:
        began = time.monotonic()
        went, found = await left(box, "special")
        assert time.monotonic() - began < stretched(5)
    assert went.value == {
        "fifo": "0",
        "null": "EPERM",
        "disk": "EPERM",
        "device 0": "0",
        "socket": "done: None",
        "whiteout": "0",
    }
    assert found == {"fifo": "fifo", "zero": "device", "socket": "socket", "source": "device", "target": b"x"}


@attack(
    20, "processes that go on writing when the run has ended, by descriptor, memory and name", "all are dead before"
)
async def test_nobody_writes_while_it_is_collected(box: Jail) -> None:
    size = 1 << 20
    for _ in range(TIMES):
        went, found = await left(box, "write_on", (16, 4 * MIB), ways=["mapped", "written", "names"])
        assert went.outcome == "ok", went
        mapped, written = found.pop("mapped"), found.pop("written")
        assert len(mapped) == size
        assert len(set(mapped)) <= 2, "it was still written while it was read"
        assert written == "sparse" or len(set(written)) <= 2
        assert set(found.values()) <= {b"", b"x"}


BOMBS = {
    "holes": {"a": "sparse", "b": "sparse"},
    "one hole": {"a": "sparse"},
    "files": {**{f"{number:05}": b"" for number in range(16)}, "00016": "too many"},
    "names of one file": {**{f"{number:05}": "hard link" for number in range(16)}, "00016": "too many"},
    "depth": {"%2F".join("d" * 9): "no path"},
    "bytes": {"a": "too large"},
}


@attack(26, "holes, files, names of one file, depth, bytes, long names beyond all limits", "sized tmpfs; capped walk")
@pytest.mark.parametrize("kind", [*BOMBS, "long names"])
async def test_a_bomb_is_told_of_and_not_taken(box: Jail, kind: str) -> None:
    went, found = await left(box, "bombs", kind=kind)
    assert went.outcome == "ok", went
    if kind == "long names":
        assert list(found.values()) == ["no path"] * 16 + ["too many"]
    else:
        assert found == BOMBS[kind]
    assert went.value is None or went.value[1] == "No space left on device", went


@attack(OWN, "output names with .., backslashes, line ends, plugind's own prefix", "every path is checked, twice")
async def test_names_lead_nowhere(box: Jail) -> None:
    went, found = await left(box, "names")
    answers = went.value
    assert [name for name, got in answers.items() if not got.startswith("done")] == ["..", "../x", "a/../../x"], went
    assert {path for path, each in found.items() if each == b""} == {"..x", "...", "\u2024\u2024\u2215x", "~", "-rf"}
    assert {path for path, each in found.items() if each == "no path"} == {
        "%2E%2E%5C%2E%2E%5Cx",
        "C%3A%5Cx",
        "%0A%2E%2E",
        "%2Eplugind-x",
    }


@attack(23, "memory by files in the output folder", "charged to its group; its size is limited")
async def test_the_output_folder_is_its_own_memory(box: Jail) -> None:
    write = (1, 16 * MIB)
    went, _ = await left(box, "fill", write, mib=16, limits={"memory_bytes": 128 * MIB})
    assert went.value == 16, went
    assert went.peak_mib > 16
    went, found = await left(box, "fill", write, mib=40, limits={"memory_bytes": 40 * MIB, "scratch_bytes": 64 * MIB})
    assert (went.outcome, found) == ("out_of_memory", {}), went


@attack(41, "what another run left in its output folder", "a tmpfs for each run")
async def test_no_run_sees_what_another_wrote(box: Jail) -> None:
    for _ in range(3):
        went, found = await left(box, "fill", mib=1)
        assert (went.value, list(found)) == (1, ["fill"]), went
    both = await asyncio.gather(*(left(box, "bombs", kind="one hole") for _ in range(2)))
    assert [found for _, found in both] == [{"a": "sparse"}] * 2
