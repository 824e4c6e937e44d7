"""Numbers of the kernel's own interface, per architecture where they differ. Source: Linux UAPI headers."""

from __future__ import annotations

import platform
from typing import Final

# System call numbers that libc gives no wrapper for (asm/unistd_64.h, asm-generic/unistd.h).
_NUMBERS: Final = {
    "x86_64": {"clone": 56, "pivot_root": 155, "seccomp": 317, "get_robust_list": 274},
    "aarch64": {"clone": 220, "pivot_root": 41, "seccomp": 277, "get_robust_list": 100},
}
SYS_CLOSE_RANGE: Final = 436  # the same on both


def number(name: str) -> int:
    """The number of a system call on this machine. Raises OSError on an architecture plugind does not know."""
    machine = platform.machine()
    if machine not in _NUMBERS:
        raise OSError(f"plugind runs on x86_64 and aarch64, this is {machine}")
    return _NUMBERS[machine][name]


# sched.h
CLONE_NEWNS: Final = 0x00020000
CLONE_NEWCGROUP: Final = 0x02000000
CLONE_NEWUTS: Final = 0x04000000
CLONE_NEWIPC: Final = 0x08000000
CLONE_NEWUSER: Final = 0x10000000
CLONE_NEWPID: Final = 0x20000000
CLONE_NEWNET: Final = 0x40000000
CLONE_CHILD_CLEARTID: Final = 0x00200000
CLONE_CHILD_SETTID: Final = 0x01000000

# sys/mount.h
MS_RDONLY: Final = 0x1
MS_NOSUID: Final = 0x2
MS_NODEV: Final = 0x4
MS_NOEXEC: Final = 0x8
MS_REMOUNT: Final = 0x20
MS_BIND: Final = 0x1000
MS_REC: Final = 0x4000
MS_PRIVATE: Final = 0x40000
MS_SLAVE: Final = 0x80000
MNT_DETACH: Final = 0x2

# linux/prctl.h
PR_SET_PDEATHSIG: Final = 1
PR_SET_DUMPABLE: Final = 4
PR_SET_NAME: Final = 15
PR_CAPBSET_READ: Final = 23
PR_CAPBSET_DROP: Final = 24
PR_SET_SECUREBITS: Final = 28
PR_SET_NO_NEW_PRIVS: Final = 38
PR_CAP_AMBIENT: Final = 47
PR_CAP_AMBIENT_CLEAR_ALL: Final = 4

# linux/securebits.h: NOROOT, NO_SETUID_FIXUP, KEEP_CAPS off but locked, NO_CAP_AMBIENT_RAISE, each with its lock.
SECUREBITS_LOCKED: Final = 0b11_10_11_11

# linux/capability.h
CAP_LAST: Final = 63
CAPABILITY_VERSION_3: Final = 0x20080522

# linux/seccomp.h
SECCOMP_SET_MODE_FILTER: Final = 1
SECCOMP_FILTER_FLAG_NEW_LISTENER: Final = 0x8
SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV: Final = 0x20  # Linux 5.19
