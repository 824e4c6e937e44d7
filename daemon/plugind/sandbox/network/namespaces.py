"""Network namespaces: to make one, to look into one. Only in a process with a single thread. Source: setns(2)."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator
from typing import Final

from plugind.linux import constants as c
from plugind.linux import syscalls

_OWN: Final = "/proc/self/ns/net"


def current() -> int:
    """A descriptor of the caller's. Raises OSError."""
    return os.open(_OWN, os.O_RDONLY | os.O_CLOEXEC)


def fresh() -> int:
    """A descriptor of a new one that the caller's user namespace owns; the caller stays where it is. Raises OSError."""
    here = current()
    try:
        syscalls.unshare(c.CLONE_NEWNET)
        try:
            return current()
        finally:
            syscalls.setns(here, c.CLONE_NEWNET)
    finally:
        os.close(here)


def enter(namespace: int) -> None:
    """Go there for good. Raises OSError."""
    syscalls.setns(namespace, c.CLONE_NEWNET)


@contextlib.contextmanager
def entered(namespace: int) -> Iterator[None]:
    """Be in it meanwhile. Sockets and files of /proc/sys/net that are opened belong to it. Raises OSError."""
    here = current()
    try:
        syscalls.setns(namespace, c.CLONE_NEWNET)
        try:
            yield
        finally:
            syscalls.setns(here, c.CLONE_NEWNET)
    finally:
        os.close(here)


def owned_by(user_namespace: int) -> int:
    """A descriptor of a new one that this user namespace owns, so that its root can have a process enter it.

    A short-lived child makes it: who has entered a user namespace cannot come back. Raises OSError.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours:
        with theirs:
            pid = os.fork()
            if pid == 0:
                _make(user_namespace, theirs)
        try:
            said, descriptors, _, _ = socket.recv_fds(ours, 1024, 1)
        finally:
            os.waitpid(pid, 0)
    if len(descriptors) != 1:
        raise OSError(0, f"a network namespace of the template: {said.decode(errors='replace') or 'its maker ended'}")
    return descriptors[0]


def _make(user_namespace: int, parent: socket.socket) -> None:
    try:
        syscalls.setns(user_namespace, c.CLONE_NEWUSER)
        syscalls.unshare(c.CLONE_NEWNET)
        socket.send_fds(parent, [b"made"], [current()])
    except BaseException as error:  # noqa: BLE001 - whatever it is, the parent is to know
        with contextlib.suppress(OSError):
            parent.send(str(error).encode()[:1000])
    finally:
        os._exit(0)


def has_ipv6() -> bool:
    """Whether the kernel speaks it at all."""
    return os.path.exists("/proc/sys/net/ipv6")


def sysctl(name: str) -> str | None:
    """What one of the namespace in which the caller is says, None where there is none. Raises OSError."""
    try:
        with open(f"/proc/sys/{name}", encoding="ascii") as file:
            return file.read().strip()
    except FileNotFoundError:
        return None


def set_sysctl(name: str, value: str) -> None:
    """Raises OSError."""
    with open(f"/proc/sys/{name}", "w", encoding="ascii") as file:
        file.write(value)
