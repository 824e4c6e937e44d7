"""The state folder: what may be taken over, and how each refusal is told."""

from __future__ import annotations

import json
import os
import stat

import pytest

from plugind.errors import AlreadyRunningError, ConfigError, StateError
from plugind.state import FORMAT, prepare

UID, GID = os.geteuid(), os.getegid()


@pytest.fixture
def take():
    """prepare(), with every lock freed in the end."""
    locks = []

    def prepared(path, mode="dev", gid=GID):
        state = prepare(path, mode, UID, gid)
        locks.append(state.lock_descriptor)
        return state

    yield prepared
    for lock in locks:
        os.close(lock)


def everything(folder):
    return {str(path): path.lstat().st_mtime_ns for path in folder.rglob("*")}


def test_a_new_folder(tmp_path, take) -> None:
    state = take(tmp_path / "state")
    assert stat.S_IMODE(state.path.stat().st_mode) == 0o1770
    assert (state.path.stat().st_uid, state.path.stat().st_gid) == (UID, GID)
    assert json.loads((state.path / "state.json").read_text()) == {"format": FORMAT, "mode": "dev"}
    assert stat.S_IMODE((state.path / "state.json").stat().st_mode) == 0o600
    for folder in (state.store, state.ledger, state.commits, state.run):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert state.database.parent == state.path
    assert sorted(path.name for path in state.path.iterdir()) == [
        "commits",
        "ledger",
        "lock",
        "run",
        "state.json",
        "store",
    ]
    assert state.lock_path.read_text() == f"{os.getpid()}\n"


def test_the_same_again(tmp_path, take) -> None:
    first = prepare(tmp_path / "state", "dev", UID, GID)
    (first.store / "kept").write_text("x")
    os.close(first.lock_descriptor)
    assert (take(tmp_path / "state").store / "kept").read_text() == "x"


@pytest.mark.parametrize("left", [[], ["lock"], ["lock", "state.json.new"], ["state.json.new"]])
def test_what_a_crash_at_the_first_start_leaves_is_completed(tmp_path, take, left) -> None:
    for name in left:
        (tmp_path / name).write_text("half")
    state = take(tmp_path)
    assert json.loads((state.path / "state.json").read_text())["mode"] == "dev"
    assert not (state.path / "state.json.new").exists()


def test_a_foreign_folder_is_left_as_it_is(tmp_path, take) -> None:
    (tmp_path / "thesis.tex").write_text("x")
    before, mode = everything(tmp_path), tmp_path.stat().st_mode
    with pytest.raises(
        ConfigError, match=r"expected an empty folder or a state of plugind, got .* with 'thesis.tex' in it"
    ):
        take(tmp_path)
    assert (everything(tmp_path), tmp_path.stat().st_mode) == (before, mode)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda path: path.symlink_to("elsewhere"), ConfigError, "--state: expected a folder, got a link"),
        (lambda path: path.write_text("x"), ConfigError, "--state: expected a folder, got .*File exists"),
        (os.mkfifo, ConfigError, "--state: expected a folder"),
    ],
    ids=["link", "file", "fifo"],
)
def test_what_is_no_folder(tmp_path, take, make, error, message) -> None:
    (tmp_path / "elsewhere").mkdir()
    make(tmp_path / "state")
    with pytest.raises(error, match=message):
        take(tmp_path / "state")
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_no_folder_to_make_it_in(tmp_path, take) -> None:
    with pytest.raises(ConfigError, match=r"--state: expected the folder .*/none to exist; mkdir it"):
        take(tmp_path / "none" / "state")


def test_another_kind_of_daemon(tmp_path, take) -> None:
    os.close(prepare(tmp_path / "state", "dev", UID, GID).lock_descriptor)
    with pytest.raises(StateError, match="expected the state of a production daemon, got one of a dev daemon"):
        take(tmp_path / "state", "production")


def test_another_group(tmp_path, take) -> None:
    os.close(prepare(tmp_path / "state", "dev", UID, GID).lock_descriptor)
    with pytest.raises(
        StateError, match=f"expected a state of group {GID + 1}, got {GID}; another user runs plugind now"
    ):
        take(tmp_path / "state", gid=GID + 1)


@pytest.mark.parametrize(
    ("mark", "message"),
    [
        (b"", "expected the mark of a state, got b''"),
        (b"{", "expected the mark of a state"),
        (b"[]", "expected the mark of a state"),
        (b"5", "expected the mark of a state"),
        (b"[" * 4096, "expected the mark of a state"),
        (b"\xff", "expected the mark of a state"),
        (b'{"mode": "dev"}', "expected the mark of a state"),
        (b'{"mode": "dev", "format": 2}', "expected state format 1, got 2; another version of plugind made it"),
        (b'{"mode": "dev", "format": "1"}', "expected state format 1, got '1'"),
        (b'{"mode": null, "format": 1}', "got one of a None daemon"),
    ],
)
def test_a_damaged_mark(tmp_path, take, mark, message) -> None:
    (tmp_path / "state.json").write_bytes(mark)
    with pytest.raises(StateError) as caught:
        take(tmp_path)
    assert message in str(caught.value)


@pytest.mark.parametrize("kind", ["folder", "link", "fifo"])
def test_a_mark_that_is_no_file(tmp_path, take, kind) -> None:
    state = tmp_path / "state"
    state.mkdir()
    (tmp_path / "other").write_text(json.dumps({"format": FORMAT, "mode": "dev"}))
    mark = state / "state.json"
    {"folder": mark.mkdir, "link": lambda: mark.symlink_to("../other"), "fifo": lambda: os.mkfifo(mark)}[kind]()
    with pytest.raises(StateError, match=r"state.json: expected the mark of a state, got"):
        take(state)


def test_two_daemons(tmp_path, take) -> None:
    take(tmp_path / "state")
    with pytest.raises(
        AlreadyRunningError, match=rf"another plugind \(pid {os.getpid()}\) has the state .*/state; stop it first"
    ):
        take(tmp_path / "state")


@pytest.mark.parametrize("name", ["store", "ledger", "run"])
def test_no_link_is_followed_below_it(tmp_path, take, name) -> None:
    (tmp_path / "victim").mkdir(mode=0o755)
    os.close(prepare(tmp_path / "state", "dev", UID, GID).lock_descriptor)
    (tmp_path / "state" / name).rmdir()
    (tmp_path / "state" / name).symlink_to("../victim")
    with pytest.raises(ConfigError, match=r"--state: .*/state cannot be used"):
        take(tmp_path / "state")
    assert stat.S_IMODE((tmp_path / "victim").stat().st_mode) == 0o755
    (tmp_path / "state" / name).unlink()
    take(tmp_path / "state")  # and the lock was freed
