"""Who a caller is: the process that connected, one user and group, and no other process that has its pid since."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time

import pytest

from plugind.errors import PlanError
from plugind.sandbox.plans import identity

SLEEP = "import time; print(flush=True); time.sleep(60)"


@pytest.fixture
def sleeper():
    """A process that is somebody else's start of life than ours."""
    with subprocess.Popen([sys.executable, "-c", SLEEP], stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        yield process
        process.kill()


@contextlib.contextmanager
def opened(pid):
    process = identity.open_process(pid)
    try:
        yield process
    finally:
        os.close(process)


def now_ns():
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


def look(pid, uid=None, gid=None, since_ns=None):
    with opened(pid) as process:
        uid, gid = os.geteuid() if uid is None else uid, os.getegid() if gid is None else gid
        return identity.look(process, pid, uid, gid, now_ns() if since_ns is None else since_ns)


def test_it_is_what_the_kernel_says():
    assert look(os.getpid()) == identity.Identity(os.geteuid(), os.getegid(), tuple(os.getgroups()))


def test_one_that_began_before_and_not_one_that_began_after(sleeper):
    """A tick of the clock is 10 ms: what is asked is asked well before and well after."""
    before = now_ns() - 30 * 10**9
    assert look(sleeper.pid).uid == os.geteuid()
    with pytest.raises(PlanError, match=r"expected the one that connected, got one that began .* s later") as caught:
        look(sleeper.pid, since_ns=before)
    assert caught.value.code == "caller"


def test_one_that_begins_and_connects_at_once_is_not_refused():
    """The kernel rounds its beginning down."""
    for _ in range(20):
        with subprocess.Popen([sys.executable, "-c", "pass"]) as process:
            assert look(process.pid, since_ns=now_ns()).uid == os.geteuid()


@pytest.mark.parametrize("name", ["uid", "gid"])
def test_another_user_or_group_than_connected(sleeper, name):
    with pytest.raises(PlanError, match=f"expected {name} 4711, which connected, got") as caught:
        look(sleeper.pid, **{name: 4711})
    assert caught.value.code == "caller"


@pytest.mark.parametrize("pid", [-1, 2**22 + 1, 2**40])
def test_no_such_process(pid):
    with pytest.raises(PlanError, match="got none: it has ended") as caught:
        look(pid)
    assert caught.value.code == "caller"


def test_one_that_ends_meanwhile_is_not_the_next_one_with_its_pid(sleeper):
    with opened(sleeper.pid) as process:
        sleeper.kill()
        sleeper.wait()
        with pytest.raises(PlanError, match="it has ended"):
            identity.look(process, sleeper.pid, os.geteuid(), os.getegid(), now_ns())
        with pytest.raises(PlanError, match="it has ended"):
            identity.check_root(process)


@pytest.mark.parametrize("end", ["\x0b", "\x0c", "\x1c", "\x1d", "\x1e", "\r", "\n", ") 1 2"])
def test_a_name_that_says_who_it_is_is_only_a_name(end):
    """The kernel keeps 15 bytes of it, and all of these end a line somewhere."""
    name = f"{end}Uid:\t7 7 7 7".encode()
    code = f"import ctypes; ctypes.CDLL(None).prctl(15, {name!r}); {SLEEP}"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        try:
            assert look(process.pid).uid == os.geteuid()
        finally:
            process.kill()


def test_it_has_our_root_folder():
    with opened(os.getpid()) as process:
        identity.check_root(process)


def test_another_root_folder_is_refused_with_what_to_do(tmp_path):
    """As it looks in /proc: `root` there is another folder."""
    (tmp_path / "root").mkdir()
    folder = os.open(tmp_path, os.O_PATH)
    with pytest.raises(PlanError, match=r"plugindctl run --send, Client\.run\(files=…\)") as caught:
        identity.check_root(folder)
    os.close(folder)
    assert caught.value.code == "caller"


def folder_with(tmp_path, *, stat="1 (x) S " + "0 " * 30, status="Uid:\t1 1 1 1\nGid:\t2 2 2 2\nGroups:\t3 4 \n"):
    (tmp_path / "stat").write_text(stat)
    (tmp_path / "status").write_text(status)
    return os.open(tmp_path, os.O_PATH)


@pytest.mark.parametrize(
    "status",
    ["", "Uid:\t1 1 1 1\nGid:\t2 2 2 2\n", "Uid:\t1 1 1\nGid:\t2 2 2 2\nGroups:\n", "Uid:\tx\nGid:\t2\nGroups:\n",
     "Uid:\t1 1 0 1\nGid:\t2 2 2 2\nGroups:\n", "Uid:\t1 1 1 0\nGid:\t2 2 2 2\nGroups:\n",
     "Uid:\t1 0 1 1\nGid:\t2 2 2 2\nGroups:\n", "Uid:\t1 1 1 1\nGid:\t2 0 2 2\nGroups:\n",
     "Uid:\t1 1 1 1\nGid:\t2 2 2 2\nGroups:\t" + "7 " * (identity.MOST_GROUPS + 1) + "\n"],
)  # fmt: skip
def test_what_is_not_wholly_one_user_is_refused(tmp_path, status):
    """Programs with set-user-id, and what no kernel writes."""
    folder = folder_with(tmp_path, status=status)
    with pytest.raises(PlanError) as caught:
        identity.look(folder, 1, 1, 2, now_ns())
    os.close(folder)
    assert caught.value.code == "caller"


@pytest.mark.parametrize("stat", ["", "1 (x) S", "1 (x) S " + "x " * 30])
def test_a_beginning_that_cannot_be_read_is_refused(tmp_path, stat):
    folder = folder_with(tmp_path, stat=stat)
    with pytest.raises(PlanError, match="expected stat and status"):
        identity.look(folder, 1, 1, 2, now_ns())
    os.close(folder)


def test_all_groups_come_along(tmp_path):
    many = tuple(range(identity.MOST_GROUPS))
    folder = folder_with(tmp_path, status=f"Uid:\t1 1 1 1\nGid:\t2 2 2 2\nGroups:\t{' '.join(map(str, many))} \n")
    assert identity.look(folder, 1, 1, 2, now_ns()) == identity.Identity(1, 2, many)
    os.close(folder)
