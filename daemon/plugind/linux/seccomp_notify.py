"""System calls that a filter hands to user space: receive one, answer it, and say in words what it was.

The answer is always an error number: to have the kernel go on with a call (CONTINUE) would be to decide on arguments
that another thread can change meanwhile. Sources: seccomp_unotify(2), linux/seccomp.h, linux/audit.h.
"""

from __future__ import annotations

import errno
import fcntl
import platform
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import pyseccomp

from plugind.linux import seccomp_lists as lists

_NOTIFICATION: Final = struct.Struct("=QII iIQ6Q")  # struct seccomp_notif
_RESPONSE: Final = struct.Struct("=QqiI")  # struct seccomp_notif_resp
_RECEIVE, _SEND = 0xC0502100, 0xC0182101  # SECCOMP_IOCTL_NOTIF_RECV, _SEND
_X32_BIT: Final = 0x40000000
_LOW_32_BITS: Final = 0xFFFFFFFF
_AUDIT_ARCH: Final = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
NATIVE: Final = _AUDIT_ARCH.get(platform.machine(), 0)
_ARCHITECTURES: Final = {
    0xC000003E: ("x86_64", pyseccomp.Arch.X86_64),
    0x40000003: ("i386", pyseccomp.Arch.X86),
    0xC00000B7: ("aarch64", pyseccomp.Arch.AARCH64),
    0x40000028: ("arm", pyseccomp.Arch.ARM),
}
_NEWER_NAMES: Final = {number: name for name, number in lists.NEWER.items()}
_TELLING: Final = {
    "clone": 0, "fadvise64": 3, "fcntl": 1, "ioctl": 1, "personality": 0, "prctl": 0, "prlimit64": 1, "setrlimit": 0,
    "setsockopt": 2, "socket": 0, "socketpair": 0,
}  # fmt: skip
"""Calls that one argument, passed by value, tells apart: its place."""
_WORDS: Final = {
    "fadvise64": {4: "POSIX_FADV_DONTNEED"},
    "fcntl": {5: "F_GETLK", 6: "F_SETLK", 7: "F_SETLKW", 0x400: "F_SETLEASE", 0x402: "F_NOTIFY"},
    "ioctl": {0x5412: "TIOCSTI", 0x541C: "TIOCLINUX", _RECEIVE: "SECCOMP_IOCTL_NOTIF_RECV",
              _SEND: "SECCOMP_IOCTL_NOTIF_SEND"},
    "prctl": {4: "PR_SET_DUMPABLE", 8: "PR_SET_KEEPCAPS", 22: "PR_SET_SECCOMP", 24: "PR_CAPBSET_DROP",
              28: "PR_SET_SECUREBITS", 29: "PR_SET_TIMERSLACK", 35: "PR_SET_MM", 47: "PR_CAP_AMBIENT"},
    "prlimit64": {4: "RLIMIT_CORE"},
    "setrlimit": {4: "RLIMIT_CORE"},
    "setsockopt": {16: "SO_PASSCRED", 26: "SO_ATTACH_FILTER", 50: "SO_ATTACH_BPF"},
    "socket": {1: "AF_UNIX", 2: "AF_INET", 10: "AF_INET6", 16: "AF_NETLINK", 17: "AF_PACKET", 38: "AF_ALG",
               40: "AF_VSOCK"},
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Call:
    """One system call that was not made. `key` is the argument that tells it from others of its name, or 0."""

    number: int
    arch: int
    key: int

    @property
    def foreign(self) -> bool:
        """Whether it came by another architecture's entry, or by x32's numbers."""
        return self.arch != NATIVE or bool(self.number & _X32_BIT)


@dataclass(frozen=True, slots=True)
class Notification:
    """A call that waits for its answer."""

    id: int
    call: Call


class Rules:
    """What becomes of a call that no filter allows. Built once, before the supervisor gives up all that it has."""

    def __init__(self) -> None:
        self._dangerous = set(_numbers(lists.DANGEROUS))
        self._absent = {*_numbers(lists.ABSENT), *lists.NEWER.values()}
        self._telling = {number: place for name, place in _TELLING.items() for number in _numbers([name])}
        self._clone = next(iter(_numbers(["clone"])))
        self._known = {number for number in range(1024) if _name(NATIVE, number)}

    def dangerous(self, call: Call) -> bool:
        """Whether the run ends for it."""
        return call.foreign or call.number in self._dangerous

    def error(self, call: Call) -> int:
        """The errno that it is refused with. A call that is newer than our tables is not there at all."""
        return errno.ENOSYS if call.number in self._absent or call.number not in self._known else errno.EPERM

    def word(self, call: Call) -> str:
        """The same as people know it."""
        return errno.errorcode[self.error(call)]

    def receive(self, listener: int) -> Notification | None:
        """The next call that waits, None where its process is gone. Raises OSError."""
        buffer = bytearray(_NOTIFICATION.size)
        try:
            fcntl.ioctl(listener, _RECEIVE, buffer)
        except FileNotFoundError:
            return None
        ident, _pid, _flags, number, arch, _ip, *arguments = _NOTIFICATION.unpack(buffer)
        place = self._telling.get(number) if arch == NATIVE else None
        key = 0 if place is None else arguments[place] & _LOW_32_BITS
        if number == self._clone and arch == NATIVE:
            key &= lists.CLONE_NAMESPACES
        return Notification(ident, Call(number & _LOW_32_BITS, arch, key))


def refuse(listener: int, notification: Notification, error: int) -> None:
    """Answer with an error number; nothing where its process is gone. Raises OSError."""
    try:
        fcntl.ioctl(listener, _SEND, bytearray(_RESPONSE.pack(notification.id, 0, -error, 0)))
    except FileNotFoundError:
        pass


def name_of(call: Call) -> str:
    """The call's name, with its architecture where that is foreign; its number where it has no name."""
    number, arch = call.number, call.arch
    suffix = ""
    if call.foreign:
        word = "x32" if arch == NATIVE else _ARCHITECTURES.get(arch, (f"architecture {arch:#x}", 0))[0]
        suffix = f" ({word})"
        number &= ~_X32_BIT
    return (_name(arch, number) or f"system call {number}") + suffix


def key_in_words(call: Call) -> str:
    """The argument that tells the call apart, as its manual page names it; empty where there is none."""
    if call.foreign:
        return ""
    name = _name(call.arch, call.number)
    if name not in _TELLING:
        return ""
    words = _WORDS["socket"] if name == "socketpair" else _WORDS.get(name, {})
    return words.get(call.key, f"{call.key:#x}")


def _numbers(names: Iterable[str]) -> list[int]:
    found = []
    for name in names:
        try:
            number = pyseccomp.resolve_syscall(pyseccomp.system_arch(), name)
        except (OSError, ValueError):
            number = -1
        if number < 0:
            number = lists.NEWER.get(name, -1)
        if number >= 0:  # else it is another architecture's
            found.append(number)
    return found


def _name(arch: int, number: int) -> str:
    try:
        name: bytes = pyseccomp.resolve_syscall(_ARCHITECTURES[arch][1], number)
    except (KeyError, OSError, ValueError):
        return _NEWER_NAMES.get(number, "") if arch in _ARCHITECTURES else ""
    return name.decode()
