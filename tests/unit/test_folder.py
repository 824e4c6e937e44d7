"""Which files of an author's folder go into a bundle."""

from __future__ import annotations

import os
import socket

import pytest

from plugind.errors import InvalidBundleError
from plugind.provenance import folder


def collect(path, max_files=5, max_file_bytes=10):
    return folder.collect(path, max_files=max_files, max_file_bytes=max_file_bytes)


def test_regular_files_are_taken_with_content_and_executable_bit(tmp_path):
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "a/b/c.py").write_bytes(b"c")
    (tmp_path / "d.sh").write_bytes(b"d")
    (tmp_path / "d.sh").chmod(0o755)
    (tmp_path / "empty").mkdir()
    taken = collect(tmp_path)
    assert {name: (m.data, m.executable) for name, m in taken.items()} == {
        "a/b/c.py": (b"c", False),
        "d.sh": (b"d", True),
    }


@pytest.mark.parametrize(
    "name", [".git", ".env", "__pycache__", "x.pyc", "x.pyo", "x~", "#x#", "x.bak", "x.orig", "x.rej", "x.swp", "x.tmp"]
)
def test_what_editors_and_tools_leave_behind_stays_out(tmp_path, name):
    (tmp_path / name).mkdir()
    (tmp_path / name / "file").touch()
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / name).touch()
    (tmp_path / "kept").touch()
    assert list(collect(tmp_path)) == ["kept"]


def test_bundles_made_before_stay_out(tmp_path):
    (tmp_path / "x-1.0.0.plugin.tar").touch()
    (tmp_path / "x-1.0.0.plugin.tar.intoto.jsonl").touch()
    assert collect(tmp_path) == {}


def symlink(path):
    path.symlink_to("target")


def symlink_to_folder(path):
    path.symlink_to("/")


def fifo(path):
    os.mkfifo(path)


def unix_socket(path):
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(path))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (symlink, "a symbolic link"),
        (symlink_to_folder, "a symbolic link"),
        (fifo, "a special file"),
        (unix_socket, "a special file"),
    ],
)
def test_links_and_special_files_are_refused(tmp_path, make, words, monkeypatch):
    monkeypatch.chdir(tmp_path)  # a socket's path is short
    make(tmp_path / "odd")
    with pytest.raises(InvalidBundleError, match=f"odd: expected a regular file or a folder, got {words}"):
        collect(tmp_path)


@pytest.mark.parametrize("name", ["ä.py", "new\nline", "back\\slash", " padded", "tab\t", "\udcff"])
def test_a_name_that_no_bundle_can_have_is_refused_and_shown_harmlessly(tmp_path, name):
    (tmp_path / name).touch()
    with pytest.raises(InvalidBundleError) as caught:
        collect(tmp_path)
    assert str(caught.value).isascii()
    assert str(caught.value).isprintable()


def test_too_many_files_are_refused_without_reading_on(tmp_path):
    for number in range(20):
        (tmp_path / f"{number}").touch()
    with pytest.raises(InvalidBundleError) as caught:
        collect(tmp_path)
    assert caught.value.problems == ("expected at most 5 files, got more",)


def test_as_many_files_as_allowed_are_taken(tmp_path):
    for number in range(5):
        (tmp_path / f"{number}").touch()
    assert len(collect(tmp_path)) == 5


def test_a_file_that_is_too_large_is_refused(tmp_path):
    (tmp_path / "fits").write_bytes(bytes(10))
    (tmp_path / "large").write_bytes(bytes(11))
    with pytest.raises(InvalidBundleError, match=r"^large: expected at most 10 bytes, got 11$"):
        collect(tmp_path)


def test_every_problem_is_told(tmp_path):
    (tmp_path / "link").symlink_to("x")
    (tmp_path / "large").write_bytes(bytes(11))
    (tmp_path / "bad name ").touch()
    with pytest.raises(InvalidBundleError) as caught:
        collect(tmp_path)
    assert len(caught.value.problems) == 3


def test_a_path_that_is_no_folder_is_refused(tmp_path):
    with pytest.raises(InvalidBundleError, match="expected a plugin's folder, got nothing"):
        collect(tmp_path / "nothing")
    (tmp_path / "file").touch()
    with pytest.raises(InvalidBundleError, match="expected a plugin's folder, got a file"):
        collect(tmp_path / "file")
