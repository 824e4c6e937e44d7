"""System calls by number, without the C library's wrappers: what nobody gave us a function for can still be called.

Every call here would do nothing even if it were let through: the arguments are empty, wrong or about ourselves. What
is asked is only whether the kernel would have looked at them.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import platform

MACHINE = platform.machine()
_COLUMN = {"x86_64": 0, "aarch64": 1}[MACHINE]

# Name: (number on x86_64, number on aarch64), arguments. Source: asm/unistd_64.h, asm-generic/unistd.h.
CALLS: dict[str, tuple[tuple[int, int], tuple[int, ...]]] = {
    "add_key": ((248, 217), (0, 0, 0, 0, 0)),
    "bpf": ((321, 280), (0, 0, 0)),
    "chroot": ((161, 51), (0,)),
    "clone3": ((435, 435), (0, 0)),
    "delete_module": ((176, 106), (0, 0)),
    "finit_module": ((313, 273), (-1, 0, 0)),
    "fsopen": ((430, 430), (0, 0)),
    "init_module": ((175, 105), (0, 0, 0)),
    "io_uring_setup": ((425, 425), (1, 0)),
    "kexec_load": ((246, 104), (0, 0, 0, 0)),
    "keyctl": ((250, 219), (0, -3, 0)),
    "mount": ((165, 40), (0, 0, 0, 0, 0)),
    "mount_setattr": ((442, 442), (-1, 0, 0, 0, 0)),
    "move_mount": ((429, 429), (-1, 0, -1, 0, 0)),
    "name_to_handle_at": ((303, 264), (-1, 0, 0, 0, 0)),
    "open_by_handle_at": ((304, 265), (-1, 0, 0)),
    "open_tree": ((428, 428), (-1, 0, 0)),
    "perf_event_open": ((298, 241), (0, 0, -1, -1, 0)),
    "personality": ((135, 92), (0x0040000,)),
    "pidfd_getfd": ((438, 438), (-1, 0, 0)),
    "pivot_root": ((155, 41), (0, 0)),
    "process_vm_readv": ((310, 270), (1, 0, 0, 0, 0, 0)),
    "process_vm_writev": ((311, 271), (1, 0, 0, 0, 0, 0)),
    "ptrace": ((101, 117), (0, 0, 0, 0)),
    "quotactl": ((179, 60), (0, 0, 0, 0)),
    "reboot": ((169, 142), (0, 0, 0, 0)),
    "seccomp": ((317, 277), (1, 0, 0)),
    "setns": ((308, 268), (-1, 0)),
    "settimeofday": ((164, 170), (0, 0)),
    "swapon": ((167, 224), (0, 0)),
    "syslog": ((103, 116), (10, 0, 0)),
    "umount2": ((166, 39), (0, 0)),
    "unshare": ((272, 97), (0x10000000,)),  # CLONE_NEWUSER
    "userfaultfd": ((323, 282), (0,)),
}

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


def call(name: str, *, high_bits: int = 0) -> tuple[bool, str]:
    """Whether the call worked, and its value or error. `high_bits` are added to the number (x32)."""
    numbers, arguments = CALLS[name]
    ctypes.set_errno(0)
    words = [ctypes.c_long(argument) for argument in arguments]
    value = _libc.syscall(ctypes.c_long(numbers[_COLUMN] | high_bits), *words)
    if value < 0:
        number = ctypes.get_errno()
        return False, errno.errorcode.get(number, str(number))
    return True, f"returned {value}"


def clone_new_user() -> tuple[bool, str]:
    """clone(2) with CLONE_NEWUSER: a new user namespace has all capabilities in itself."""
    number = {"x86_64": 56, "aarch64": 220}[MACHINE]
    value = _libc.syscall(ctypes.c_long(number), ctypes.c_long(0x10000000 | 17), *[ctypes.c_long(0)] * 4)
    if value == 0:
        os._exit(0)
    if value < 0:
        return False, errno.errorcode.get(ctypes.get_errno(), "?")
    os.waitpid(value, 0)
    return True, f"returned {value}"


def x32() -> tuple[bool, str]:
    """Bit 30 of the number means the x32 ABI, which filters forget: the same calls under other numbers."""
    return call("ptrace", high_bits=0x40000000)


def int80() -> tuple[bool, str]:
    """The 32-bit entry of an x86_64 kernel, where the numbers mean other calls: mov eax, 20 (getpid); int 0x80; ret."""
    page = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    page.write(b"\xb8\x14\x00\x00\x00\xcd\x80\xc3")
    code = ctypes.addressof(ctypes.c_char.from_buffer(page))
    value = ctypes.CFUNCTYPE(ctypes.c_int)(code)()
    return value > 0, f"returned {value}"
