"""A plan's folder on the client's machine: what is read of it, and that files are put into it all or none."""

import os
import socket
import stat

import pytest

from plugind_client.planfiles import digest
from plugind_client.planfolder import PlanProblem, put, read


@pytest.fixture
def plan(tmp_path):
    folder = tmp_path / "plan"
    for path in ("a.json", "b.json", "wbs/a.json", "wbs/deep/a.json", ".hidden/a.json", ".plugind-x/a.json"):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(path)
    return folder


def tree(folder):
    """Everything below it: path → content, None of a folder."""
    return {
        path.relative_to(folder).as_posix(): None if path.is_dir() else path.read_text()
        for path in folder.rglob("*")
        if not path.is_symlink()
    }


# --- read ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "patterns,found",
    [
        (["a.json"], ["a.json"]),
        (["*.json", "a.json"], ["a.json", "b.json"]),
        (["*/*.json"], ["wbs/a.json"]),
        ([".hidden/*", "*/deep/*"], [".hidden/a.json", "wbs/deep/a.json"]),
        (["*", "none.json"], ["a.json", "b.json"]),
        ([".plugind-x/a.json", ".*/b"], []),
        ([], []),
    ],
)
def test_what_patterns_mean_is_read_and_folders_are_no_files(plan, patterns, found):
    assert read(str(plan), patterns) == {path: path.encode() for path in found}


def odd(kind, path, other):
    if kind == "symlink":
        path.symlink_to(other)
    elif kind == "symlinked folder":
        path.symlink_to(other.parent)
    elif kind == "hard link":
        os.link(other, path)
    elif kind == "fifo":
        os.mkfifo(path)
    else:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.bind(str(path))


@pytest.mark.parametrize("kind", ["symlink", "hard link", "fifo", "socket"])
def test_what_is_no_regular_file_is_refused_by_name_only_where_a_pattern_means_it(plan, tmp_path, kind):
    (tmp_path / "other").write_text("secret")
    odd(kind, plan / "c.json", tmp_path / "other")
    with pytest.raises(PlanProblem, match=r"c\.json: expected a regular file with one name, got"):
        read(str(plan), ["*.json"])
    assert read(str(plan), ["a.json"]) == {"a.json": b"a.json"}
    assert sorted(read(str(plan), ["*.json"], only_good=True)) == ["a.json", "b.json"]


def test_folder_that_is_a_link_is_refused_where_a_pattern_leads_into_it(plan, tmp_path):
    (tmp_path / "other").mkdir()
    (plan / "linked").symlink_to(tmp_path / "other")
    with pytest.raises(PlanProblem, match="linked: expected a regular file with one name, got a link"):
        read(str(plan), ["*/*.json"])
    (tmp_path / "link").symlink_to(plan)
    with pytest.raises(OSError):
        read(str(tmp_path / "link"), ["*.json"])


# --- put -----------------------------------------------------------------------------------------------------------


def test_files_come_into_the_plan_and_what_they_replaced_is_told(plan):
    (plan / "a.json").chmod(0o640)
    before = tree(plan)
    done = put(str(plan), {"a.json": b"new", "x/y/z.json": b"", "wbs/a.json": b"2"}, {"a.json": digest(b"a.json")})
    assert done == {
        "a.json": (digest(b"a.json"), 6),
        "x/y/z.json": ("", 0),
        "wbs/a.json": (digest(b"wbs/a.json"), 10),
    }
    assert tree(plan) == before | {"a.json": "new", "x": None, "x/y": None, "x/y/z.json": "", "wbs/a.json": "2"}
    assert stat.S_IMODE((plan / "a.json").stat().st_mode) == 0o640
    assert {path.stat().st_nlink for path in plan.rglob("*.json")} == {1}


@pytest.mark.parametrize(
    "contents,seen,said",
    [
        ({"new.json": b"", "a.json": b"1"}, {"a.json": digest(b"other")}, "a.json: expected what was there before"),
        ({"a.json": b"1", "b.json": b"1"}, {"b.json": ""}, "b.json: expected what was there before"),
        ({"a.json": b"1", "gone.json": b"1"}, {"gone.json": digest(b"x")}, "gone.json: expected what was there"),
        ({"a.json": b"1", "link.json": b"1"}, {}, "link.json: expected a regular file with one name, got a link"),
        ({"a.json": b"1", "linked/x": b"1"}, {}, "linked/x: expected linked to be a folder, got a link or a file"),
        ({"n/x": b"1", "a.json/x": b"1"}, {}, "a.json/x: expected a.json to be a folder, got a link or a file"),
        ({"a.json": b"1", "wbs": b"1"}, {}, "wbs: expected a regular file with one name, got no file"),
        ({"a.json": b"1", "../x": b"1"}, {}, "'../x': expected a path relative to the plan's folder"),
        ({"a.json": b"1", "/etc/x": b"1"}, {}, "'/etc/x': expected a path relative to the plan's folder"),
    ],
)
def test_one_that_cannot_come_keeps_all_out_and_leaves_nothing(plan, tmp_path, contents, seen, said):
    (tmp_path / "other").mkdir()
    (plan / "link.json").symlink_to(tmp_path / "other/x")
    (plan / "linked").symlink_to(tmp_path / "other")
    before = tree(plan)
    with pytest.raises(PlanProblem) as caught:
        put(str(plan), contents, seen)
    assert str(caught.value).startswith(said)
    assert tree(plan) == before
    assert list((tmp_path / "other").iterdir()) == []


class Meanwhile(dict):
    """What was seen before the run. Somebody makes a file just after it was looked for and not found."""

    def __init__(self, path):
        self.path = path

    def get(self, name, default=None):
        if name == self.path.name:
            self.path.write_text("somebody else's")
        return default


def test_what_came_meanwhile_is_not_replaced_and_what_was_done_is_put_back(plan):
    before, inode = tree(plan), (plan / "a.json").stat().st_ino
    contents = {"a.json": b"1", "n/first.json": b"2", "new.json": b"3"}
    with pytest.raises(FileExistsError):
        put(str(plan), contents, Meanwhile(plan / "new.json"))
    assert tree(plan) == before | {"new.json": "somebody else's"}
    assert ((plan / "a.json").stat().st_ino, (plan / "a.json").stat().st_nlink) == (inode, 1)
