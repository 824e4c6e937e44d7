"""Every system call that the plan helper makes in a plan's folder: one method each, no decision in any of them.

Whatever is looked at or changed goes through here, between descriptors of folders and single names: tests crash and
interfere before and after each. All raise OSError.
"""

from __future__ import annotations

import errno
import fcntl
import os
import time
from collections.abc import Iterator
from typing import Final

from plugind.linux import constants as c
from plugind.linux.paths import openat2, renameat2

_NO_LINKS: Final = c.RESOLVE_NO_SYMLINKS | c.RESOLVE_NO_MAGICLINKS
_BENEATH: Final = _NO_LINKS | c.RESOLVE_BENEATH | c.RESOLVE_NO_XDEV
# Without O_NOFOLLOW: of a link it would say ENOTDIR. RESOLVE_NO_SYMLINKS follows none either, and says ELOOP.
FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
# O_NONBLOCK: neither a FIFO nor a lease (fcntl(2), F_SETLEASE) can have us wait.
FILE: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
NEW_FILE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_OPEN_TRIES: Final = 32
"""Of an openat2 that a rename somewhere on the machine has interrupted."""
_CHUNK_BYTES: Final = 1024 * 1024
_CLOCK_REALTIME_COARSE: Final = 5  # linux/time.h
_PAUSE_S: Final = 0.002
_ACCESS_LIST: Final = "system.posix_acl_access"


class Calls:
    """The kernel's. Names are single parts of paths, except for the two that open."""

    def open_root(self, path: str) -> int:
        """A folder by its absolute path, in which nothing is a link."""
        return self._open(c.AT_FDCWD, path, FOLDER, 0, _NO_LINKS)

    def open(self, folder: int, path: str, flags: int, mode: int = 0) -> int:
        """Something beneath a folder, on the same mount, no link on the way. `flags`: FOLDER, FILE or NEW_FILE."""
        return self._open(folder, path, flags, mode, _BENEATH)

    def _open(self, folder: int, path: str, flags: int, mode: int, resolve: int) -> int:
        for _ in range(_OPEN_TRIES):
            try:
                return openat2(folder, path, flags, mode, resolve)
            except (BlockingIOError, InterruptedError):
                continue
        return openat2(folder, path, flags, mode, resolve)

    def close(self, descriptor: int) -> None:
        """close(2)."""
        os.close(descriptor)

    def stat(self, folder: int, name: str) -> os.stat_result | None:
        """What has this name, a link itself; None: nothing. fstatat(2)."""
        try:
            return os.stat(name, dir_fd=folder, follow_symlinks=False)
        except FileNotFoundError:
            return None

    def fstat(self, descriptor: int) -> os.stat_result:
        """fstat(2)."""
        return os.fstat(descriptor)

    def names(self, folder: int) -> Iterator[str]:
        """The names in a folder, in no order, as they are read. getdents64(2)."""
        with os.scandir(folder) as listing:
            for each in listing:
                yield each.name

    def read(self, descriptor: int, most_bytes: int) -> bytes:
        """What is there from the beginning on, and no more than that. pread(2)."""
        parts: list[bytes] = []
        offset = 0
        while part := os.pread(descriptor, min(_CHUNK_BYTES, most_bytes - offset), offset):
            parts.append(part)
            offset += len(part)
        return b"".join(parts)

    def write(self, descriptor: int, content: bytes) -> None:
        """All of it. write(2)."""
        rest = memoryview(content)
        while rest:
            rest = rest[os.write(descriptor, rest) :]

    def begin_sync(self, descriptor: int) -> None:
        """Let the disk begin with what was written: an fsync of many files later has less to wait for. fadvise(2)."""
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)

    def fsync(self, descriptor: int) -> None:
        """fsync(2), of a file or of a folder's names."""
        os.fsync(descriptor)

    def fchmod(self, descriptor: int, mode: int) -> None:
        """fchmod(2)."""
        os.fchmod(descriptor, mode)

    def fchown(self, descriptor: int, gid: int) -> None:
        """fchown(2), of the group alone."""
        os.fchown(descriptor, -1, gid)

    def access_list(self, descriptor: int) -> bytes:
        """Its POSIX access list as the kernel has it; empty: none but its mode. acl(5), fgetxattr(2)."""
        try:
            return os.getxattr(descriptor, _ACCESS_LIST)
        except OSError as error:
            if error.errno in (errno.ENODATA, errno.EOPNOTSUPP):
                return b""
            raise

    def set_access_list(self, descriptor: int, access_list: bytes) -> None:
        """fsetxattr(2)."""
        os.setxattr(descriptor, _ACCESS_LIST, access_list)

    def mkdir(self, folder: int, name: str, mode: int) -> None:
        """mkdirat(2)."""
        os.mkdir(name, mode, dir_fd=folder)

    def rename(self, old_folder: int, old: str, new_folder: int, new: str) -> None:
        """Move to a name that nothing has: FileExistsError otherwise. renameat2(2), RENAME_NOREPLACE."""
        renameat2(old_folder, old, new_folder, new, c.RENAME_NOREPLACE)

    def exchange(self, one_folder: int, one: str, other_folder: int, other: str) -> None:
        """Let two names change places, at one moment. renameat2(2), RENAME_EXCHANGE."""
        renameat2(one_folder, one, other_folder, other, c.RENAME_EXCHANGE)

    def unlink(self, folder: int, name: str) -> None:
        """unlinkat(2)."""
        os.unlink(name, dir_fd=folder)

    def rmdir(self, folder: int, name: str) -> None:
        """unlinkat(2) of an empty folder."""
        os.rmdir(name, dir_fd=folder)

    def now_ns(self) -> int:
        """The clock that files' times are taken from, which goes on in ticks. clock_gettime(2)."""
        return time.clock_gettime_ns(_CLOCK_REALTIME_COARSE)

    def pause(self) -> None:
        """Wait for about half a tick of that clock."""
        time.sleep(_PAUSE_S)

    def lock(self, descriptor: int) -> bool:
        """Have it for ourselves while the descriptor is open, at once or not at all. flock(2)."""
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True
