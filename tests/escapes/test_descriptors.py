"""What an instance inherits, what it can reopen, what ioctls do, and what it can flood."""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path

import psutil

from plugind.sandbox.rootfs import Interpreter
from tests.escapes.attack import OWN, attack
from tests.escapes.box import Box

REFUSED = {"EPERM", "EACCES", "EROFS", "ETXTBSY", "PermissionError"}


def digest(path: str) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


@attack(
    1,
    "overwrite /proc/self/exe, the interpreter, its libraries, the plugin's own files",
    "read-only mounts, files of another owner",
)
def test_executables_cannot_be_overwritten(box: Box) -> None:
    executable = Interpreter.current().executable
    before = digest(executable), Path(executable).stat().st_mtime_ns
    answers = box.run("descriptors.overwrite_executables").value()
    assert len(answers) > 7 * 5
    assert {name: got for name, got in answers.items() if got not in REFUSED} == {}
    assert (digest(executable), Path(executable).stat().st_mtime_ns) == before


@attack(
    OWN,
    "write to a mapped executable through /proc/self/mem",
    "not dumpable: the file belongs to root; a read-only mapping of a file of another owner",
)
def test_memory_file_does_not_write_through(box: Box) -> None:
    executable = Interpreter.current().executable
    before = digest(executable)
    answers = box.run("descriptors.write_through_memory_file").value()
    assert answers == {"answer": "EACCES", "still": True}
    assert digest(executable) == before


@attack(
    2,
    "a leaked descriptor or working directory",
    "close_range: 0 to 3, of an instance imported ahead its pipe of words too, and nothing else; cwd set inside",
)
def test_descriptors_are_exactly_four_or_five(box: Box) -> None:
    ran = box.run("descriptors.inherited")
    seen = ran.value()
    pipe = [stat.S_IFIFO, os.O_WRONLY]
    pipes = "1234" if ran.imported_ahead else "123"
    assert seen["descriptors"] == {"0": [stat.S_IFCHR, os.O_RDWR], **dict.fromkeys(pipes, pipe)}
    assert seen["links"]["0"] == "/dev/null"
    assert all(seen["links"][number].startswith("pipe:[") for number in pipes)
    assert len(set(seen["links"].values())) == len(pipes) + 1
    assert seen["cwd"] == "/tmp"


@attack(
    2, "climb to a host file by .., /proc/*/root, /proc/*/cwd and every descriptor", "pivot_root: there is no way up"
)
def test_no_way_leads_up_to_a_host_file(box: Box, canary: tuple[Path, str]) -> None:
    path, secret = canary
    ran = box.run("descriptors.climb", path=str(path))
    answers = ran.value()
    assert len(answers) > 100
    assert secret not in str(ran.result)
    assert [name for name, got in answers.items() if got.startswith("done")] == []


@attack(OWN, "reopen its own pipes in the other direction", "the pipes belong to the daemon's uid")
def test_pipes_cannot_be_reopened(box: Box) -> None:
    answers = box.run("descriptors.reopen_pipes").value()
    assert set(answers.values()) == {"EACCES"}, answers


@attack(7, "TIOCSTI and TIOCLINUX push input into a terminal", "own session, pipes only, ioctl allow-list")
@attack(8, "the same with bits above 32 set, which the kernel does not look at", "the filter compares 32 bits")
@attack(OWN, "ioctls of file systems, namespaces, interfaces and the random device", "ioctl allow-list")
def test_ioctls_are_refused_and_named(box: Box) -> None:
    ran = box.run("descriptors.ioctls")
    answers = ran.value()
    assert len(answers) >= 17
    assert {name: got for name, got in answers.items() if got != ["EPERM"]} == {}
    assert ran.tried["ioctl"] == sum(line.startswith("try ") for line in ran.lines)
    assert "0x5412" in ran.said.lower() or "TIOCSTI" in ran.said, ran.said


@attack(
    50,
    "answer its own seccomp notification with CONTINUE",
    "the listener is gone before plugin code runs; ioctl allow-list",
)
def test_there_is_no_listener_to_answer_with(box: Box) -> None:
    ran = box.run("descriptors.answer_own_notifications")
    answers = ran.value()
    assert len(answers) == 8 * 4
    assert set(answers.values()) == {"EPERM"}
    assert ran.tried["ioctl"] == len(answers)


@attack(58, "flood the result channel with descriptors", "the result channel is a pipe")
def test_descriptors_cannot_go_through_the_result_channel(box: Box) -> None:
    front = psutil.Process(box.daemon.pids[0])
    launcher = psutil.Process(box.daemon.pids[1])
    before = front.num_fds(), launcher.num_fds()
    answers = box.run("descriptors.pass_through_result_pipe", count=10**5).value()
    assert answers["on the result"] == "ENOTSOCK"
    assert answers["sent"] < 10**5, "descriptors in flight are not bounded"
    after = front.num_fds(), launcher.num_fds()
    assert max(now - was for now, was in zip(after, before, strict=True)) < 20


@attack(OWN, "use up the host's descriptors, by files and by pipes", "RLIMIT_NOFILE")
def test_descriptors_are_bounded(box: Box) -> None:
    most = {1: 512, 2: 256}[box.tier]
    answers = box.run("descriptors.exhaust").value()
    assert set(answers) == {"pipes", "files"}
    for opened, number in answers.values():
        assert (number, opened <= most) == (24, True)  # EMFILE
