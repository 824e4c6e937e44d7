"""The steps that the instance carries out: order, names, and that a failure stops everything."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys

import pytest

from plugind.sandbox.inside import setup

CONTEXT = setup.Context(stdout=1, stderr=2, result=3, input=4, control=5, seccomp=b"")


def test_a_step_that_is_not_known_fails() -> None:
    with pytest.raises(setup.StepError) as caught:
        setup.carry_out(CONTEXT, [("levitate", {})])
    assert caught.value.args == ("levitate", "KeyError: 'levitate'")


def test_a_step_that_fails_is_named_and_the_next_is_not_tried(tmp_path) -> None:
    before = os.getsid(0)
    steps = [("scratch", {"path": str(tmp_path)}), ("session", {})]
    with pytest.raises(setup.StepError) as caught:
        setup.carry_out(CONTEXT, steps)
    step, why = caught.value.args
    assert step == "scratch"
    assert why.startswith("TypeError: setup_scratch() missing")
    assert os.getsid(0) == before


def test_a_wrong_answer_of_the_launcher_ends_it() -> None:
    reader, writer = os.pipe()
    os.close(writer)
    context = setup.Context(stdout=1, stderr=2, result=3, input=4, control=reader, seccomp=b"")
    with pytest.raises(setup.StepError, match="did not put this instance into its groups"):
        setup.carry_out(context, [("cgroup_namespace", {})])
    os.close(reader)


def test_descriptors_move_out_of_the_way_and_close_on_exec() -> None:
    moved = setup._move_high(1)
    assert moved >= 64
    assert fcntl.fcntl(moved, fcntl.F_GETFD) & fcntl.FD_CLOEXEC
    os.close(moved)


DESCRIPTORS = """
import os, sys
from plugind.sandbox.inside import setup
fds = {name: os.open("/dev/null", os.O_RDWR) for name in ("stdout", "stderr", "result", "input", "control", "sysctl")}
pipe = os.pipe()
fds["result"] = pipe[1]
secret = os.open("/dev/zero", os.O_RDONLY)
os.dup2(secret, 200)
context = setup.Context(**{name: fd for name, fd in fds.items() if name != "sysctl"}, seccomp=b"", sysctl=fds["sysctl"])
setup.carry_out(context, [("descriptors", {})])
left = sorted(int(name) for name in os.listdir("/proc/self/fd"))[:-1]
for fd in (context.input, context.control, context.sysctl):
    assert fd >= 64 and not os.get_inheritable(fd)
names = [os.readlink(f"/proc/self/fd/{fd}").partition(":")[0] for fd in range(4)]
assert names == ["/dev/null"] * 3 + ["pipe"], names
assert [os.get_inheritable(fd) for fd in range(4)] == [True] * 3 + [False]
assert len(os.listdir("/proc/self/fd")) == 8, os.listdir("/proc/self/fd")
assert sorted(os.environ) == ["HOME", "LANG", "PATH", "PYTHONDONTWRITEBYTECODE", "TMPDIR"]
assert os.getcwd() == "/tmp"
os._exit(5)
"""

RLIMITS = """
import os, resource
from plugind.sandbox.inside import setup
limits = {"CORE": 0, "CPU": 7, "FSIZE": 4096, "MEMLOCK": 4096, "MSGQUEUE": 0, "NICE": 0, "NOFILE": 64, "RTPRIO": 0, "SIGPENDING": 9}
setup.carry_out(None, [("rlimits", {"limits": limits})])
for name, value in limits.items():
    hard = value + 1 if name == "CPU" else value
    assert resource.getrlimit(setup._RLIMITS[name]) == (value, hard), name
setup.setup_session(None)
assert os.getsid(0) == os.getpid()
os._exit(5)
"""


@pytest.mark.parametrize("code", [DESCRIPTORS, RLIMITS], ids=["descriptors", "rlimits and session"])
def test_in_a_process_of_its_own(code) -> None:
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert shown.returncode == 5, shown.stderr
