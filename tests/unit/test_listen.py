"""The public socket: mode and owner, whose path it is, and how each refusal is told."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
import sys

import pytest

from plugind.api import listen
from plugind.errors import AlreadyRunningError, ConfigError

UID, GID = os.geteuid(), os.getegid()


@pytest.fixture
def path(tmp_path):
    """A path that is short enough whatever the test's name is."""
    short = tmp_path / "s"
    if len(str(short)) > listen.MAX_PATH_BYTES:
        pytest.fail("the temporary folder's path is too long")
    return short


def opened(path, **options):
    return listen.open_listener(path, UID, GID, **options)


@pytest.mark.parametrize("mode", [0o600, 0o660, 0o666])
def test_mode_and_owner(path, mode) -> None:
    before = os.umask(0o027)
    listener = opened(path, mode=mode)
    assert os.umask(before) == 0o027
    status = path.stat()
    assert stat.S_ISSOCK(status.st_mode)
    assert (stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid) == (mode, UID, GID)
    assert not os.get_inheritable(listener.sock.fileno())
    with socket.socket(socket.AF_UNIX) as caller:
        caller.connect(str(path))
        listener.sock.accept()[0].close()
    listener.remove()
    assert list(path.parent.iterdir()) == []


@pytest.mark.root  # only root can give a file away
def test_it_is_given_to_its_owner(path) -> None:
    listener = listen.open_listener(path, 4711, 4712)
    assert (path.stat().st_uid, path.stat().st_gid) == (4711, 4712)
    listener.remove()


def test_a_stale_socket_is_taken_over(path) -> None:
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(path))
    opened(path).remove()
    assert not path.exists()


def test_a_living_socket_is_not(path) -> None:
    with socket.socket(socket.AF_UNIX) as living:
        living.bind(str(path))
        living.listen()
        with pytest.raises(AlreadyRunningError, match="somebody listens on the socket"):
            opened(path)
    assert path.exists()
    assert not path.with_name("s.lock").exists()


def test_a_socket_of_another_kind_is_in_use(path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as datagram:
        datagram.bind(str(path))
        with pytest.raises(AlreadyRunningError, match=r"is in use \(.*\); choose another path"):
            opened(path)


@pytest.mark.parametrize("kind", ["file", "folder", "link", "fifo"])
def test_something_in_the_way_stays(path, kind) -> None:
    target = path.with_name("target")
    target.write_text("x")
    make = {
        "file": lambda: path.write_text("x"),
        "folder": path.mkdir,
        "link": lambda: path.symlink_to("target"),
        "fifo": lambda: os.mkfifo(path),
    }
    make[kind]()
    with pytest.raises(ConfigError, match="something that is no socket is in the way"):
        opened(path)
    assert os.path.lexists(path)
    assert target.read_text() == "x"
    assert not path.with_name("s.lock").exists()


def test_paths_that_no_socket_can_have(tmp_path) -> None:
    longest = tmp_path / ("x" * (listen.MAX_PATH_BYTES - len(os.fsencode(tmp_path)) - 1))
    listen.check_path(longest)
    with pytest.raises(ConfigError, match=r"a path of at most 107 bytes \(a limit of the kernel\), got 108"):
        listen.check_path(longest.with_name(longest.name + "x"))
    with pytest.raises(ConfigError, match="at most 107 bytes"):
        listen.check_path(longest.with_name(longest.name[:-1] + "é"))  # bytes, not characters
    with pytest.raises(ConfigError, match="expected an absolute path, got s"):
        listen.check_path(listen.Path("s"))
    with pytest.raises(ConfigError, match=r"expected the folder .*/none to exist; mkdir it"):
        opened(tmp_path / "none" / "s")


def test_a_path_has_one_daemon(path) -> None:
    first = opened(path)
    with pytest.raises(AlreadyRunningError, match=rf"another plugind \(pid {os.getpid()}\) has the socket {path}"):
        opened(path)
    first.remove()
    opened(path).remove()


HOLD = "import fcntl, sys, time\nf = open(sys.argv[1], 'w')\nfcntl.flock(f, fcntl.LOCK_EX)\nf.write(sys.argv[2])\nf.flush()\nprint(flush=True)\ntime.sleep(60)"


@pytest.mark.parametrize(("written", "named"), [("4711\n", "4711"), ("", "unknown")])
def test_a_lock_that_another_process_holds(tmp_path, written, named) -> None:
    lock = tmp_path / "lock"
    with subprocess.Popen([sys.executable, "-c", HOLD, lock, written], stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        with pytest.raises(AlreadyRunningError, match=rf"\(pid {named}\) has the thing; stop it first"):
            listen.take_lock(lock, "thing")
        holder.kill()
    os.close(listen.take_lock(lock, "thing"))  # a lock ends with its process
    assert lock.read_text() == f"{os.getpid()}\n"


@pytest.mark.parametrize("kind", ["link", "folder", "hard link", "fifo", "no folder"])
def test_a_lock_that_cannot_be_ours(tmp_path, kind) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    lock = tmp_path / "lock"
    make = {
        "link": lambda: lock.symlink_to(victim),
        "folder": lock.mkdir,
        "hard link": lambda: lock.hardlink_to(victim),
        "fifo": lambda: os.mkfifo(lock),
        "no folder": lambda: None,
    }
    make[kind]()
    with pytest.raises(ConfigError, match=r"lock: (cannot be made|expected a file of our own)"):
        listen.take_lock(tmp_path / "none/lock" if kind == "no folder" else lock, "thing")
    assert victim.read_text() == "precious"


def test_a_socket_that_was_replaced_while_it_was_made_is_not_given_away(path) -> None:
    path.write_text("of somebody else")
    with pytest.raises(OSError, match="somebody replaced the socket"):
        listen._give(path, UID, GID)
