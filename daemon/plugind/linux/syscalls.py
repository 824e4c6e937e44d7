"""System calls that Python's os module lacks: each wrapper is named after its call and raises OSError.

Standard library only: this file is also copied into the jail, where the zygote and the instances use it.
"""

from __future__ import annotations

import ctypes
import errno
import os
import signal

from plugind.linux import constants as c

# PyDLL keeps the GIL: clone() must not return in a child whose interpreter believes that nobody holds it.
_libc = ctypes.PyDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


def resolve() -> None:
    """Look up now what is called later: ctypes keeps what it has found, and a fork has it too."""
    for name in ("mount", "umount2", "unshare", "setns", "sethostname", "prctl", "capset", "syscall"):
        getattr(_libc, name)
    c.number("clone")


def _check(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), what)
    return result


def call(what: str, number: int, *arguments: int | bytes | ctypes.Array[ctypes.c_char] | None) -> int:
    """syscall(2), for what libc has no wrapper for. `what` is for the error's text."""
    converted = [ctypes.c_long(each) if isinstance(each, int) else each for each in arguments]
    return _check(_libc.syscall(ctypes.c_long(number), *converted), what)


def mount(source: str, target: str, kind: str | None, flags: int, data: str | None = None) -> None:
    """mount(2)."""
    encoded = [text.encode() if text is not None else None for text in (source, target, kind, data)]
    _check(_libc.mount(encoded[0], encoded[1], encoded[2], ctypes.c_ulong(flags), encoded[3]), f"mount {target}")


def umount2(target: str, flags: int) -> None:
    """umount2(2)."""
    _check(_libc.umount2(target.encode(), flags), f"umount {target}")


def pivot_root(new_root: str, put_old: str) -> None:
    """pivot_root(2)."""
    _check(_libc.syscall(c.number("pivot_root"), new_root.encode(), put_old.encode()), f"pivot_root {new_root}")


def unshare(flags: int) -> None:
    """unshare(2)."""
    _check(_libc.unshare(flags), f"unshare {flags:#x}")


def setns(descriptor: int, kind: int) -> None:
    """setns(2)."""
    _check(_libc.setns(descriptor, kind), f"setns {kind:#x}")


def sethostname(name: str) -> None:
    """sethostname(2)."""
    _check(_libc.sethostname(name.encode(), len(name)), f"sethostname {name}")


def prctl(option: int, value: int | bytes = 0, third: int = 0) -> int:
    """prctl(2)."""
    second = ctypes.c_char_p(value) if isinstance(value, bytes) else ctypes.c_ulong(value)
    return _check(
        _libc.prctl(option, second, ctypes.c_ulong(third), ctypes.c_ulong(0), ctypes.c_ulong(0)), f"prctl {option}"
    )


def set_name(name: str) -> None:
    """The name ps shows (PR_SET_NAME). Raises ValueError for more than the kernel keeps: 15 bytes."""
    encoded = name.encode()
    if len(encoded) > 15:
        raise ValueError(f"expected a name of at most 15 bytes, got {name}")
    prctl(c.PR_SET_NAME, encoded)


class _CapabilityHeader(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


def drop_bounding_set() -> None:
    """Nothing that is executed from here on can gain a capability. Needs CAP_SETPCAP. capabilities(7)."""
    option, zero, drop = ctypes.c_int(c.PR_CAPBSET_DROP), ctypes.c_ulong(0), _libc.prctl  # made once, for speed
    for capability in range(c.CAP_LAST + 1):
        if drop(option, ctypes.c_ulong(capability), zero, zero, zero) < 0:
            if ctypes.get_errno() == errno.EINVAL and capability > 0:
                return  # past the last capability that this kernel has
            _check(-1, f"prctl {c.PR_CAPBSET_DROP}")


def drop_capabilities() -> None:
    """Empty all five capability sets of this process for good. capabilities(7)."""
    drop_bounding_set()
    clear_capabilities()


def clear_capabilities() -> None:
    """Empty the ambient, inheritable, permitted and effective sets. capset(2)."""
    prctl(c.PR_CAP_AMBIENT, c.PR_CAP_AMBIENT_CLEAR_ALL)
    header = _CapabilityHeader(c.CAPABILITY_VERSION_3, 0)
    _check(_libc.capset(ctypes.byref(header), (ctypes.c_uint32 * 6)()), "capset")


def seccomp_load(program: bytes) -> None:
    """Load a filter of raw struct sock_filter; no_new_privs must be set. seccomp(2)."""
    _seccomp(program, 0)


def seccomp_listen(program: bytes) -> int:
    """The same; returns a descriptor on which the calls arrive that the filter notifies of. seccomp_unotify(2)."""
    # Once the supervisor has a call, only death interrupts it: a signal would have it made, and counted, twice.
    return _seccomp(program, c.SECCOMP_FILTER_FLAG_NEW_LISTENER | c.SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV)


def _seccomp(program: bytes, flags: int) -> int:
    class Program(ctypes.Structure):
        _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))

    loaded = Program(len(program) // 8, program)
    result = _libc.syscall(c.number("seccomp"), c.SECCOMP_SET_MODE_FILTER, flags, ctypes.byref(loaded))
    return _check(result, "seccomp")


def close_all_but(keep: set[int]) -> None:
    """Close every descriptor that is not in `keep`. close_range(2)."""
    first = 0
    for descriptor in [*sorted(keep), 2**31]:
        if first < descriptor:
            _check(_libc.syscall(c.SYS_CLOSE_RANGE, first, descriptor - 1, 0), "close_range")
        first = descriptor + 1


def _tid_address() -> int:
    """Where glibc keeps this thread's id, 0 when it is not where it has been since 2.4 (nptl/descr.h).

    struct pthread has `tid, unused, robust_prev, robust_head` in a row, and the kernel knows the last.
    """
    head, length = ctypes.c_size_t(), ctypes.c_size_t()
    _check(_libc.syscall(c.number("get_robust_list"), 0, ctypes.byref(head), ctypes.byref(length)), "get_robust_list")
    address = head.value - 8 - 2 * ctypes.sizeof(ctypes.c_int)
    return address if head.value and ctypes.c_int.from_address(address).value == os.getpid() else 0


def clone(flags: int) -> int:
    """Fork into new namespaces: 0 in the child, the child's pid in the parent. clone(2).

    Only for single-threaded processes. Runs Python's fork hooks, which a bare clone would skip (sibling `random`
    states would be identical), and has the kernel store the child's thread id where glibc's fork would.
    """
    address = _tid_address()
    if address:
        flags |= c.CLONE_CHILD_SETTID | c.CLONE_CHILD_CLEARTID
    tail = (0, address) if os.uname().machine == "aarch64" else (address, 0)  # tls and child_tid swap places
    hooks = ctypes.pythonapi
    hooks.PyOS_BeforeFork()
    pid = _libc.syscall(
        c.number("clone"),
        ctypes.c_ulong(flags | signal.SIGCHLD),
        ctypes.c_void_p(0),
        ctypes.c_void_p(0),
        *(ctypes.c_void_p(value) for value in tail),
    )
    if pid == 0:
        hooks.PyOS_AfterFork_Child()
        return 0
    hooks.PyOS_AfterFork_Parent()
    return _check(pid, f"clone {flags:#x}")
