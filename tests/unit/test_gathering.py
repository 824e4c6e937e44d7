"""What an instance left behind, collected: on a tmpfs folder, without an instance."""

from __future__ import annotations

import fcntl
import os
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from plugind import planfiles
from plugind.planfiles import MAX_DEPTH, Entry
from plugind.sandbox import codestore
from plugind.sandbox.gathering import NO_PATH, SPARSE, TOO_LARGE, TOO_MANY, collect, gather
from plugind.sandbox.grants import OutputFolder
from plugind.sandbox.protocol import Ended
from plugind.sandbox.sealed import mapped
from tests.support.descriptors import opened

MOST_FILES, MOST_BYTES = 8, 100_000
ENDED = Ended("r1", "", 0, 1, 1, 1)


@pytest.fixture
def place() -> Iterator[Path]:
    """On a tmpfs, as an instance's is: another file system may say later which blocks a file has."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        yield Path(folder)


def collected(place: Path, most_files: int = MOST_FILES, most_bytes: int = MOST_BYTES) -> list[Entry]:
    """With every descriptor closed again, and as it arrives at the front."""
    descriptor = os.open(place, os.O_PATH | os.O_DIRECTORY)
    before = opened()
    entries = collect(descriptor, most_files, most_bytes)
    assert opened() <= before, "a descriptor was left open"
    os.close(descriptor)
    assert planfiles.unpack(planfiles.pack(entries), most_files + 1, most_bytes)[0] == entries
    return entries


def problems(entries: list[Entry]) -> dict[str, str]:
    assert all(bool(entry.problem) == (entry.content is None) for entry in entries)
    return {entry.path: entry.problem for entry in entries}


def test_regular_files_come_with_their_contents_and_empty_folders_do_not_matter(place) -> None:
    (place / "a/b/c").mkdir(parents=True)
    (place / "empty/in/empty").mkdir(parents=True)
    (place / "a/b/c/über uns.md").write_bytes(b"\0\xff" * 1000)
    (place / "one").write_bytes(b"")
    (place / planfiles.LEARNED).write_bytes(b"{}\n")
    (place / "one").chmod(0)
    assert collected(place) == [
        Entry(planfiles.LEARNED, b"{}\n"),
        Entry("a/b/c/über uns.md", b"\0\xff" * 1000),
        Entry("one", b""),
    ]
    assert collected(place / "empty") == []


def test_everything_else_is_told_of_and_not_followed(place, tmp_path) -> None:
    (tmp_path / "secret").write_text("canary")
    (place / "link").symlink_to(tmp_path / "secret")
    (place / "to a folder").symlink_to(tmp_path)
    (place / "dangling").symlink_to("nowhere")
    (place / "good").write_text("1")
    os.mkfifo(place / "fifo")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(place / "socket"))
        (place / "one").write_text("canary")
        os.link(place / "one", place / "two")
        found = collected(place)
    assert problems(found) == {
        "link": "symlink",
        "to a folder": "symlink",
        "dangling": "symlink",
        "fifo": "fifo",
        "socket": "socket",
        "one": "hard link",
        "two": "hard link",
        "good": "",
    }
    assert "canary" not in str(found)


def test_what_has_holes_is_not_read(place) -> None:
    for name, size in (("small", 5000), ("huge", 2**40)):
        with (place / name).open("wb") as stream:
            stream.write(b"x")
            stream.truncate(size)
    assert problems(collected(place)) == {"small": SPARSE, "huge": SPARSE}


@pytest.mark.parametrize(
    "name",
    [
        b"a\xff",
        b"\xed\xa0\x80",
        b"back\\slash",
        b"line\nend",
        b"\x1b[2J",
        b".plugind-x",
        "\u202e".encode(),
        b"\x7f",
    ],
)
def test_a_name_that_is_no_path_is_shown_as_one(place, name) -> None:
    for path in (name, b"folder/" + name):
        target = place / os.fsdecode(path)
        target.parent.mkdir(exist_ok=True)
        target.write_bytes(b"1")
    (place / os.fsdecode(b"." + name)).mkdir()
    found = collected(place)
    assert {entry.problem for entry in found if not entry.path.startswith("folder/%")} == {NO_PATH}
    assert len(found) >= 2
    assert all(entry.path.isascii() and "/" not in entry.path for entry in found)


def test_stand_ins_are_never_taken_for_files_that_there_are(place) -> None:
    (place / "a%FF").write_text("honest")
    (place / "a%FF~2").write_text("too")
    for name in (b"a\xff", b"\xff" * 200, b"\xff" * 200 + b"x"):
        (place / os.fsdecode(name)).write_text("odd")
    found = problems(collected(place))
    assert {path: problem for path, problem in found.items() if path.startswith("a")} == {
        "a%FF": "",
        "a%FF~2": "",
        "a%FF~3": NO_PATH,
    }
    assert len(found) == 5


def test_depth_and_length_are_bounded(place) -> None:
    deepest = place.joinpath(*"12345678")
    (deepest / "9/10").mkdir(parents=True)
    (deepest / "9/10/file").write_text("1")
    long = place.joinpath(*(["x" * 250] * 5))
    long.mkdir(parents=True)
    (long / "file").write_text("1")
    good = place.joinpath(*"ABCDEFG") / "file"
    good.parent.mkdir(parents=True)
    good.write_text("1")
    found = collected(place)
    assert [entry.path for entry in found if not entry.problem] == ["A/B/C/D/E/F/G/file"]
    assert [entry.problem for entry in found if entry.problem] == [NO_PATH, NO_PATH]
    assert len("A/B/C/D/E/F/G/file".split("/")) == MAX_DEPTH


def test_it_stops_at_the_first_file_too_many(place) -> None:
    for number in range(40):
        (place / f"{number:02}").write_text("1")
    assert len(collected(place, 40)) == 40
    found = collected(place, 39)
    assert [entry.path for entry in found] == [f"{number:02}" for number in range(40)]
    assert [entry.problem for entry in found] == [""] * 39 + [TOO_MANY]
    assert len(collected(place, 3)) == 4


def test_what_is_no_file_counts_too(place) -> None:
    for number in range(40):
        (place / f"{number:02}").symlink_to("x")
    assert [entry.problem for entry in collected(place, 3)] == ["symlink"] * 3 + [TOO_MANY]


def test_it_stops_at_the_first_byte_too_many(place) -> None:
    for name, size in (("a", 60), ("b", 40), ("c", 0), ("d", 1), ("e", 0)):
        (place / name).write_bytes(b"x" * size)
    assert [(entry.path, entry.problem) for entry in collected(place, 9, 101)] == [(name, "") for name in "abcde"]
    assert problems(collected(place, 9, 100)) == {"a": "", "b": "", "c": "", "d": TOO_LARGE}
    assert problems(collected(place, 9, 59)) == {"a": TOO_LARGE}


def test_names_are_told_of_no_more_than_an_index_holds(place) -> None:
    folder = place
    for _ in range(4):
        folder /= "\U0001f995" * 55
    folder.mkdir(parents=True)
    for number in range(1600):
        (folder / f"{number:04}").write_bytes(b"")
    found = collected(place, 100_000)
    assert found[-1].problem == TOO_MANY
    assert len(found) > 1000, "and not at once"


def told_of(place: Path, ended: Ended) -> tuple[Ended, list[bytes]]:
    folder = OutputFolder(os.open(place, os.O_PATH), MOST_FILES, MOST_BYTES)
    heard = []

    def tell(memfd: int) -> None:
        assert fcntl.fcntl(memfd, fcntl.F_GET_SEALS) & codestore.SEALS == codestore.SEALS
        with mapped(memfd) as content:
            heard.append(content[:])

    before = opened()
    after = gather(folder, ended, tell)
    assert opened() <= before
    folder.close()
    folder.close()
    return after, heard


def test_it_is_told_of_in_a_sealed_memfd(place) -> None:
    (place / "a").write_text("1")
    after, heard = told_of(place, ENDED)
    assert after is ENDED
    assert [planfiles.unpack(each, 1, 1)[0] for each in heard] == [[Entry("a", b"1")]]


@pytest.mark.parametrize(
    "ended",
    [Ended("r1", "timeout", -9, 1, 1, 1), Ended("r1", "", 1, 1, 1, 1), Ended("r1", "", -9, 1, 1, 1), Ended("r1", "killed", 0, 1, 1, 1)],
)  # fmt: skip
def test_nothing_is_collected_of_what_did_not_end_well(place, ended) -> None:
    (place / "a").write_text("1")
    assert told_of(place, ended) == (ended, [])


def test_what_cannot_be_collected_is_our_fault(place, capfd) -> None:
    (place / "a").write_text("1")
    after, heard = told_of(place / "a", ENDED)
    assert (after.cause, heard) == ("fault", [])
    assert "what it wrote cannot be collected" in after.detail
    assert "run r1: what it wrote cannot be collected" in capfd.readouterr().err
