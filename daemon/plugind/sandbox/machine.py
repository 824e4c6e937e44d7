"""What the facts about a machine are taken from: files, and attempts in forked children.

`Machine()` is this machine. A test gives one of its own: a folder in place of /, and attempts that end as it says.
Needs neither libseccomp nor any other package: whoever only asks may not have them.
"""

from __future__ import annotations

import contextlib
import ctypes
import ctypes.util
import fcntl
import os
import platform
import select
import signal
import struct
import sysconfig
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from plugind.linux import constants as c
from plugind.linux import landlock, syscalls
from plugind.sandbox import uids
from plugind.sandbox.rootfs import Interpreter

_RECEIVE, _SEND = 0xC0502100, 0xC0182101  # SECCOMP_IOCTL_NOTIF_RECV, _SEND: 80 and 24 bytes
_ALLOW, _NOTIFY = 0x7FFF0000, 0x7FC00000
_GETPPID: Final = {"x86_64": 110, "aarch64": 173}
"""A call that no container's filter refuses, and that nothing makes by accident."""
_NOBODY: Final = 2**30
"""No process's number: above the most that pid_max can be."""
_PATIENCE_S: Final = 5
_WORKED: Final = b"\0worked"
"""What a child says that came through: to say nothing is to have died."""


def libseccomp_version() -> tuple[int, int, int] | None:
    """The version of the library that builds the filters; None: it is not there. seccomp_version(3)."""

    class Version(ctypes.Structure):
        _fields_ = tuple((name, ctypes.c_uint) for name in ("major", "minor", "micro"))

    path = ctypes.util.find_library("seccomp")  # as pyseccomp looks for it: by ldconfig, or gcc
    if path is None:
        return None
    library = ctypes.CDLL(path)
    library.seccomp_version.restype = ctypes.POINTER(Version)
    found = library.seccomp_version().contents
    return found.major, found.minor, found.micro


def make_user_namespace() -> None:
    """Raises OSError."""
    syscalls.unshare(c.CLONE_NEWUSER)


def signal_by_pidfd() -> None:
    """Raises OSError."""
    signal.pidfd_send_signal(os.pidfd_open(os.getpid()), signal.SIGCONT)


def mount_proc_subset() -> None:
    """Raises OSError."""
    syscalls.unshare(c.CLONE_NEWNS)
    syscalls.mount("", "/", None, c.MS_REC | c.MS_PRIVATE)
    syscalls.mount("proc", "/proc", "proc", c.MS_NOSUID | c.MS_NODEV | c.MS_NOEXEC, "subset=pid")


def answer_a_call() -> None:
    """One process makes a system call that another one answers for it. seccomp_unotify(2). Raises OSError."""
    number = _GETPPID.get(platform.machine(), 0)
    rules = ((0x20, 0, 0, 0), (0x15, 0, 1, number), (0x06, 0, 0, _NOTIFY), (0x06, 0, 0, _ALLOW))
    syscalls.prctl(c.PR_SET_NO_NEW_PRIVS, 1)
    # Load the number; is it that one?; then notify, else allow.
    listener = syscalls.seccomp_listen(b"".join(struct.pack("=HBBI", *rule) for rule in rules))
    pid = os.fork()
    if pid == 0:
        os._exit(0 if os.getppid() == _NOBODY else 1)
    if select.select([listener], [], [], _PATIENCE_S / 2)[0]:
        request = bytearray(80)
        fcntl.ioctl(listener, _RECEIVE, request)
        fcntl.ioctl(listener, _SEND, bytearray(request[:8] + struct.pack("=qiI", _NOBODY, 0, 0)))
    os.close(listener)  # a call that nobody answered fails now
    if os.waitpid(pid, 0)[1] != 0:
        raise OSError(0, "the answer did not arrive")


def in_child(attempt: Callable[[], object]) -> str:
    """Why an attempt fails in a process of its own; empty when it works."""
    reader, writer = os.pipe2(os.O_CLOEXEC)
    pid = os.fork()
    if pid == 0:
        try:
            attempt()
            os.write(writer, _WORKED)
        except BaseException as error:  # noqa: BLE001 - whatever it is, it did not work
            told = (error.strerror or str(error) if isinstance(error, OSError) else "") or repr(error)
            os.write(writer, told.encode(errors="replace")[:1000])
        finally:
            os._exit(0)
    os.close(writer)
    with contextlib.ExitStack() as stack:
        stack.callback(os.waitpid, pid, 0)
        stack.callback(os.close, reader)
        if not select.select([reader], [], [], _PATIENCE_S)[0]:
            os.kill(pid, signal.SIGKILL)
            return f"no answer within {_PATIENCE_S} s"
        answer = os.read(reader, 1000)
        return "" if answer == _WORKED else answer.decode(errors="replace") or "it died"


@dataclass(frozen=True, slots=True)
class Attempts:
    """What can only be found out by trying. Each says why it failed, "" when it works, and leaves nothing behind."""

    user_namespace: Callable[[], str] = lambda: in_child(make_user_namespace)
    pidfd: Callable[[], str] = lambda: in_child(signal_by_pidfd)
    proc_subset_pid: Callable[[], str] = lambda: in_child(mount_proc_subset)
    seccomp_notify: Callable[[], str] = lambda: in_child(answer_a_call)


@dataclass(frozen=True, slots=True)
class Machine:
    """Where facts come from."""

    architecture: str = field(default_factory=platform.machine)
    release: str = field(default_factory=lambda: os.uname().release)
    uid: int = field(default_factory=os.geteuid)
    top: Path = Path("/")
    """What takes the place of / for the files below."""
    interpreter: Callable[[], Interpreter] = Interpreter.current
    """Raises IsolationUnavailableError where no jail could show it."""
    standard_library: str = field(default_factory=lambda: os.path.realpath(sysconfig.get_path("stdlib")))
    libseccomp: Callable[[], tuple[int, int, int] | None] = libseccomp_version
    landlock_abi: Callable[[], int] = landlock.abi
    taken_uids: Callable[[], list[str]] = uids.conflicts_here
    attempts: Attempts = field(default_factory=Attempts)

    @property
    def is_root(self) -> bool:
        """Whether what fails here fails for the launcher too."""
        return self.uid == 0

    @property
    def version(self) -> tuple[int, int]:
        """The kernel's, (0, 0) where its release does not begin with one."""
        first, _, rest = self.release.partition(".")
        digits = rest[: len(rest) - len(rest.lstrip("0123456789"))]
        return (int(first), int(digits)) if first.isdecimal() and digits else (0, 0)

    def path(self, absolute: str) -> Path:
        """Where a file of this machine is."""
        return self.top / absolute.lstrip("/")

    def text(self, absolute: str) -> str | None:
        """A file's text, None where it cannot be read."""
        try:
            return self.path(absolute).read_text(errors="replace")
        except OSError:
            return None
