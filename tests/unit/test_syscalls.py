"""The wrappers that need no privilege, in processes of their own where they change something for good."""

from __future__ import annotations

import errno
import os
import subprocess
import sys

import pyseccomp
import pytest

from plugind.linux import constants, paths, syscalls


def test_errors_say_which_call_and_what_it_was_given() -> None:
    with pytest.raises(OSError, match=r"mount /nowhere/at/all"):
        syscalls.mount("none", "/nowhere/at/all", "no-such-kind", 0)
    with pytest.raises(OSError, match=r"umount /nowhere/at/all"):
        syscalls.umount2("/nowhere/at/all", 0)
    with pytest.raises(OSError, match=r"prctl 99999"):
        syscalls.prctl(99999)


@pytest.mark.parametrize("name", ["x" * 16, "é" * 8])
def test_a_name_that_the_kernel_would_cut_is_refused(name) -> None:
    with pytest.raises(ValueError, match="at most 15 bytes"):
        syscalls.set_name(name)


def test_every_name_of_a_process_fits() -> None:
    for name in ("plugind-launch", "plugind-init", "plugind-zygote", "plugind-plugin"):
        assert len(name) <= 15


@pytest.mark.parametrize("name", ["clone", "pivot_root", "seccomp", "get_robust_list", "renameat2"])
def test_numbers_are_those_of_libseccomp(name) -> None:
    for machine, architecture in (("x86_64", pyseccomp.Arch.X86_64), ("aarch64", pyseccomp.Arch.AARCH64)):
        assert constants._NUMBERS[machine][name] == pyseccomp.resolve_syscall(architecture, name)
    assert pyseccomp.resolve_syscall(pyseccomp.system_arch(), "close_range") == constants.SYS_CLOSE_RANGE
    assert pyseccomp.resolve_syscall(pyseccomp.system_arch(), "openat2") == constants.SYS_OPENAT2


def test_paths_are_resolved_beneath_and_renamed_without_writing_over(tmp_path) -> None:
    (tmp_path / "one").write_bytes(b"1")
    (tmp_path / "other").write_bytes(b"2")
    (tmp_path / "link").symlink_to("one")
    folder = os.open(tmp_path, os.O_RDONLY)
    try:
        for path, error in (("link", errno.ELOOP), ("../x", errno.EXDEV), ("/etc", errno.EXDEV), ("x", errno.ENOENT)):
            with pytest.raises(OSError, match=f"openat2 '{path}'") as caught:
                paths.openat2(folder, path, os.O_RDONLY, 0, constants.RESOLVE_BENEATH | constants.RESOLVE_NO_SYMLINKS)
            assert caught.value.errno == error
        with pytest.raises(FileExistsError, match="renameat2 'one' 'other'"):
            paths.renameat2(folder, "one", folder, "other", constants.RENAME_NOREPLACE)
        paths.renameat2(folder, "one", folder, "other", constants.RENAME_EXCHANGE)
        with pytest.raises(ValueError, match="without null bytes"):
            paths.openat2(folder, "one\0x", os.O_RDONLY, 0, 0)
    finally:
        os.close(folder)
    assert ((tmp_path / "one").read_bytes(), (tmp_path / "other").read_bytes()) == (b"2", b"1")


CLONE = """
import os, random, threading
from plugind.linux import syscalls
random.random()
reader, writer = os.pipe()
pid = syscalls.clone(0)
if pid == 0:
    seen = []
    thread = threading.Thread(target=seen.append, args=(1,))  # the interpreter and glibc are whole
    thread.start()
    thread.join()
    os.write(writer, repr((os.getpid(), threading.get_native_id(), seen, random.random())).encode())
    os._exit(5)
os.close(writer)
child, thread, seen, drawn = eval(os.read(reader, 1000))
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 5
assert child == thread == pid and seen == [1], (child, thread, pid, seen)
assert drawn != random.random()
os._exit(6)
"""
CLOSE = """
import os
from plugind.linux import syscalls
for fd in (50, 51, 52, 900):
    os.dup2(0, fd)
syscalls.close_all_but({0, 1, 2, 51})
assert sorted(map(int, os.listdir("/proc/self/fd")))[:4] == [0, 1, 2, 3], os.listdir("/proc/self/fd")  # 3: the listing
assert 51 in map(int, os.listdir("/proc/self/fd")) and len(os.listdir("/proc/self/fd")) == 5
syscalls.set_name("fifteen-letters")
assert open("/proc/self/comm").read() == "fifteen-letters\\n"
os._exit(6)
"""
SECCOMP = """
import ctypes, errno, os
from plugind.linux import constants as c, seccomp, syscalls
syscalls.prctl(c.PR_SET_NO_NEW_PRIVS, 1)
syscalls.seccomp_load(seccomp.template_filter())
libc = ctypes.CDLL(None, use_errno=True)
assert libc.swapoff(b"/nowhere") == -1 and ctypes.get_errno() == errno.ENOSYS  # nobody listens
os._exit(6)
"""


@pytest.mark.parametrize("code", [CLONE, CLOSE, SECCOMP], ids=["clone", "close", "seccomp"])
def test_in_a_process_of_its_own(code) -> None:
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=20, check=False)
    assert shown.returncode == 6, shown.stderr


def test_clone_flags_that_need_privilege_raise_in_the_parent() -> None:
    with pytest.raises(OSError, match="clone"):
        syscalls.clone(constants.CLONE_NEWNS | 0x200)  # CLONE_FS: not together, says clone(2)
    assert os.getpid() > 0
