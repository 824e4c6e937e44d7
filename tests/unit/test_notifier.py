"""The notifier as a process of its own, with real filters: what is asked of it is answered, and nothing else."""

from __future__ import annotations

import ctypes
import errno
import os
import select
import signal
import socket
import time
from pathlib import Path

import pyseccomp
import pytest

from plugind.linux import constants as c
from plugind.linux import seccomp, syscalls
from plugind.profiles import load_profiles
from plugind.sandbox import notifier, uids
from plugind.sandbox.refusals import Table
from tests.support.descriptors import opened

pytestmark = pytest.mark.root
FILTER = seccomp.build(load_profiles(Path(__file__).parents[2] / "profiles")[2])


class FakeGroup:
    def __init__(self):
        self.attached, self.limits, self.removed = [], None, False

    def set_limits(self, limits):
        self.limits = limits

    def attach(self, pid):
        self.attached.append(pid)

    def remove(self):
        self.removed = True


def number(name):
    return pyseccomp.resolve_syscall(pyseccomp.system_arch(), name)


def jailed(what):
    """A child under an instance's filter that does `what(libc)`, ends with its value, and its listener."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    pid = os.fork()
    if pid == 0:
        libc = ctypes.CDLL(None, use_errno=True)
        syscalls.prctl(c.PR_SET_NO_NEW_PRIVS, 1)
        socket.send_fds(theirs, [b"x"], [syscalls.seccomp_listen(FILTER)])
        os._exit(what(libc))
    listener = socket.recv_fds(ours, 1, 1)[1][0]
    ours.close()
    theirs.close()
    return pid, listener


@pytest.fixture
def running():
    before = opened()
    table, group = Table(), FakeGroup()
    running = notifier.start(table, group)
    running.table, running.group = table, group
    yield running
    running.end()
    table.close()
    assert group.removed
    assert opened() <= before


def hand_over(running, listener, most=100):
    owner = running.table.take()
    running.watch(owner, most, listener)
    os.close(listener)
    return owner


def test_a_refused_call_gets_its_errno_and_is_counted_by_name(running) -> None:
    def tries(libc):
        for _ in range(5):
            if libc.chroot(b"/") != -1 or ctypes.get_errno() != errno.EPERM:
                return 1
        if libc.syscall(number("io_uring_setup"), 1, None) != -1 or ctypes.get_errno() != errno.ENOSYS:
            return 2
        return 7

    pid, listener = jailed(tries)
    owner = hand_over(running, listener)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
    found, others = running.table.of(owner)
    assert [(each.call.number, each.count, each.dangerous) for each in found] == [
        (number("chroot"), 5, False),
        (number("io_uring_setup"), 1, False),
    ]
    assert others == 0
    assert running.receive() is None


@pytest.mark.parametrize(
    ("call", "why", "most"), [("swapoff", notifier.DANGEROUS, 100), ("chroot", notifier.TOO_MANY, 2)]
)
def test_what_ends_a_run_is_told_and_never_answered(running, call, why, most) -> None:
    def tries(libc):
        for _ in range(most + 1):
            libc.syscall(number(call), b"/nowhere")
        return 7

    pid, listener = jailed(tries)
    owner = hand_over(running, listener, most)
    assert select.select([running.sock], [], [], 10)[0]
    assert running.receive() == (owner, why)
    time.sleep(0.05)
    assert os.waitpid(pid, os.WNOHANG) == (0, 0), "it got an answer"
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    found, _ = running.table.of(owner)
    assert [each.dangerous for each in found] == [why == notifier.DANGEROUS]


def test_one_that_floods_does_not_keep_another_from_its_answer(running) -> None:
    def floods(libc):
        while True:
            libc.chroot(b"/")

    pids = []
    for _ in range(4):
        pid, listener = jailed(floods)
        hand_over(running, listener, 10**9)
        pids.append(pid)
    pid, listener = jailed(lambda libc: 7 if libc.chroot(b"/") == -1 else 1)
    hand_over(running, listener)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
    for each in pids:
        os.kill(each, signal.SIGKILL)
        os.waitpid(each, 0)


def test_it_has_nothing_and_may_nothing(running) -> None:
    pid = running.process.pid
    status = dict(
        line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":\t" in line
    )
    assert status["Name"] == "plugind-notify"
    assert status["Uid"].split() == [str(uids.NOTIFIER)] * 4
    assert status["Groups"].split() == []
    for capability in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        assert int(status[capability], 16) == 0, capability
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
    assert len(os.listdir(f"/proc/{pid}/fd")) == 3  # standard error, the launcher, epoll
    assert running.group.attached == [pid]
    assert running.group.limits == notifier.BUDGET


def test_who_has_ended_is_forgotten(running) -> None:
    for _ in range(20):
        pid, listener = jailed(lambda libc: 0)
        hand_over(running, listener)
        os.waitpid(pid, 0)
    deadline = time.monotonic() + 5
    while len(os.listdir(f"/proc/{running.process.pid}/fd")) > 3:
        assert time.monotonic() < deadline, "listeners are left open"
        time.sleep(0.01)


def test_its_death_is_noticed(running) -> None:
    os.kill(running.process.pid, signal.SIGKILL)
    assert select.select([running.sock], [], [], 10)[0]
    with pytest.raises(EOFError):
        running.receive()


def test_it_ends_with_the_launchers_end_of_its_socket() -> None:
    table = Table()
    running = notifier.start(table, FakeGroup())
    running.sock.shutdown(socket.SHUT_RDWR)
    assert os.waitpid(running.process.pid, 0)[0] == running.process.pid
    running.sock.close()
    table.close()
