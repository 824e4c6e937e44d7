"""The public sockets: never wider than asked for, never stolen from a living daemon. No grpc in here.

Runs as root, before the front drops it.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import stat
from dataclasses import dataclass
from pathlib import Path

from plugind.errors import AlreadyRunningError, ConfigError

MAX_PATH_BYTES = 107
"""Longest path of a Unix socket: sun_path without its NUL. Source: unix(7)."""
_BACKLOG = 1024


@dataclass(frozen=True, slots=True)
class Listener:
    """A listening socket and the lock that makes its path ours. Both stay open until the daemon has ended."""

    path: Path
    sock: socket.socket
    lock_path: Path
    lock_descriptor: int

    def remove(self) -> None:
        """Close the socket and take its file and its lock away, where this process still may."""
        self.sock.close()
        for path in (self.path, self.lock_path):
            path.unlink(missing_ok=True)
        os.close(self.lock_descriptor)


def check_path(path: Path, setting: str = "--socket") -> None:
    """Raises ConfigError for a path that no socket can have."""
    length = len(os.fsencode(path))
    if not path.is_absolute():
        raise ConfigError(f"{setting}: expected an absolute path, got {path}")
    if length > MAX_PATH_BYTES:
        raise ConfigError(
            f"{setting}: expected a path of at most {MAX_PATH_BYTES} bytes (a limit of the kernel), got {length}:"
            f" {path}"
        )


def check_folder(path: Path, setting: str = "--socket") -> None:
    """Raises ConfigError where the folder that the socket is to lie in is not there."""
    if not path.parent.is_dir():
        raise ConfigError(f"{setting}: expected the folder {path.parent} to exist; mkdir it, or choose another path")


def open_listener(
    path: Path, owner_uid: int, owner_gid: int, *, mode: int = 0o600, setting: str = "--socket"
) -> Listener:
    """Lock, clear a stale socket away, bind, give it to the owner, listen.

    Raises ConfigError (no such folder, something else is in the way), AlreadyRunningError (a daemon listens there).
    """
    check_path(path, setting)
    check_folder(path, setting)
    lock_path = path.with_name(path.name + ".lock")
    lock = take_lock(lock_path, f"socket {path}")
    try:
        _clear(path, setting)
        sock = _bind(path, owner_uid, owner_gid, mode, setting)
    except BaseException:
        lock_path.unlink(missing_ok=True)
        os.close(lock)
        raise
    return Listener(path, sock, lock_path, lock)


def open_loopback(host: str, port: int) -> socket.socket:
    """Bind and listen on an address of this machine alone. Raises ConfigError."""
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        raise ConfigError(
            f"metrics: {host} port {port} cannot be bound: {error.strerror}; choose another port, or a path. As a unit"
            " of systemd plugind has no network: plugind.toml says what to add"
        ) from error


def take_lock(path: Path, what: str) -> int:
    """An exclusive flock(2) on a file of our own making that holds our pid. Raises AlreadyRunningError, ConfigError."""
    while True:
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            raise ConfigError(f"{path}: cannot be made: {error.strerror}") from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.pread(descriptor, 32, 0).decode(errors="replace").strip() or "unknown"
            os.close(descriptor)
            raise AlreadyRunningError(
                f"another plugind (pid {holder}) has the {what}; stop it first, or choose another path"
            ) from error
        if _is_at(path, descriptor):
            break
        os.close(descriptor)  # the daemon before us removed the file between our open and our lock
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode) or status.st_nlink != 1:
        # The folder may be somebody else's, and the file in truth one of root's: it is about to be written.
        os.close(descriptor)
        raise ConfigError(f"{path}: expected a file of our own for the lock, got something else; remove it")
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
    return descriptor


def _is_at(path: Path, descriptor: int) -> bool:
    try:
        there = path.lstat()
    except FileNotFoundError:
        return False
    ours = os.fstat(descriptor)
    return (there.st_dev, there.st_ino) == (ours.st_dev, ours.st_ino)


def _clear(path: Path, setting: str) -> None:
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise ConfigError(
            f"{setting}: something that is no socket is in the way: {path}; move it, or choose another path"
        )
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(1)
        try:
            probe.connect(str(path))
        except OSError as error:
            # Nobody listens on it (ECONNREFUSED). Anything else may be a living daemon that is merely busy.
            if error.errno != errno.ECONNREFUSED:
                raise AlreadyRunningError(f"the socket {path} is in use ({error}); choose another path") from error
        else:
            raise AlreadyRunningError(f"somebody listens on the socket {path}; stop that first, or choose another path")
    path.unlink(missing_ok=True)


def _bind(path: Path, owner_uid: int, owner_gid: int, mode: int, setting: str) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    umask = os.umask(0o777 & ~mode)
    try:
        sock.bind(str(path))
        _give(path, owner_uid, owner_gid)
        sock.listen(_BACKLOG)
    except OSError as error:
        sock.close()
        raise ConfigError(f"{setting}: {path} cannot be bound: {error.strerror}") from error
    finally:
        os.umask(umask)
    return sock


def _give(path: Path, owner_uid: int, owner_gid: int) -> None:
    # Through a descriptor: the owner may write the folder and could put another file there meanwhile.
    descriptor = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISSOCK(status.st_mode) or status.st_uid != os.geteuid() or status.st_nlink != 1:
            raise OSError(errno.EEXIST, "somebody replaced the socket while it was made")
        os.chown(f"/proc/self/fd/{descriptor}", owner_uid, owner_gid)
    finally:
        os.close(descriptor)
