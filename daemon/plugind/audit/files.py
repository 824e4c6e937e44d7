"""Files that only grow: opened once, checked before each write, made durable on demand."""

from __future__ import annotations

import os
from pathlib import Path


def sync_directory(directory: Path) -> None:
    """Make the directory's entries durable. Source: fsync(2)."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def check_same(path: Path, descriptor: int) -> os.stat_result:
    """What the open file is now. Raises OSError when another one, or none, is in its place."""
    there, ours = path.stat(follow_symlinks=False), os.fstat(descriptor)
    if (there.st_dev, there.st_ino) != (ours.st_dev, ours.st_ino):
        raise OSError(0, f"expected the file that was opened, got another one: {path}")
    return ours


def truncate(path: Path, size: int) -> None:
    """Cut a file, durably. Raises OSError."""
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        os.ftruncate(descriptor, size)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class AppendFile:
    """One file, written at its end only. Made when it is not there. Raises OSError.

    Also when the file is not the one that was opened, or not as long as it was left: somebody else writes, moved it or
    removed it. After any error nothing is known about its end.
    """

    def __init__(self, path: Path) -> None:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        self.path = path
        self._descriptor = os.open(path, flags, 0o600)
        self.size = os.fstat(self._descriptor).st_size
        sync_directory(path.parent)

    def append(self, data: bytes) -> None:
        """Write at the end. Durable only after `sync`."""
        size = check_same(self.path, self._descriptor).st_size
        if size != self.size:
            raise OSError(0, f"expected {self.size} bytes, got {size}: {self.path}")
        view = memoryview(data)
        while view:
            view = view[os.write(self._descriptor, view) :]
        self.size += len(data)

    def sync(self) -> None:
        """When this returns, power may fail. Source: fdatasync(2)."""
        os.fdatasync(self._descriptor)

    def close(self) -> None:
        """Close it as it is."""
        os.close(self._descriptor)
