"""An environment's files: root's, writable by nobody, without links, and named by one sha256 over all of them.

The digest is that of a listing, one entry for each folder and file, ordered by the bytes of its path. An entry ends
with a zero byte, which no path can have in it: `D 555 PATH`, or `F MODE SIZE SHA256 PATH`; the first is `D 555 .`.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from plugind.errors import InvalidEnvironmentError

FOLDER_MODE: Final = 0o555
FILE_MODES: Final = (0o444, 0o555)
MAX_ENTRIES: Final = 100_000
"""Files and folders of one tree: the listing is held in memory."""
MAX_DEPTH: Final = 32
"""Folders within folders: each has a descriptor open while it is read."""
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_KINDS: Final = (
    (stat.S_ISLNK, "a symbolic link"),
    (stat.S_ISFIFO, "a fifo"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISBLK, "a device"),
    (stat.S_ISCHR, "a device"),
)

Visit = Callable[[int, os.stat_result, bytes], None]
"""Is given each file and folder: an open descriptor, what fstat(2) says, and its path below the tree."""


@dataclass(frozen=True, slots=True)
class Size:
    """How much there is of a tree: its regular files, and the bytes in them."""

    files: int
    size_bytes: int


def digest_of(folder: Path, *, owner: int = 0) -> str:
    """The sha256 of a sealed tree, in hex. Raises InvalidEnvironmentError for what is not sealed, OSError.

    `owner`: how root's uid and gid look from here; in a user namespace that does not have it, the overflow uid.
    """
    entries: list[tuple[bytes, bytes]] = []

    def note(descriptor: int, status: os.stat_result, path: bytes) -> None:
        _check_sealed(folder, status, path, owner)
        if stat.S_ISDIR(status.st_mode):
            entries.append((path, b"D %o %s\0" % (FOLDER_MODE, path)))
            return
        with open(descriptor, "rb", buffering=0, closefd=False) as file:
            content = hashlib.file_digest(file, "sha256").hexdigest().encode()
        mode = stat.S_IMODE(status.st_mode)
        entries.append((path, b"F %o %d %s %s\0" % (mode, status.st_size, content, path)))

    _walk(folder, note)
    entries.sort()
    return hashlib.sha256(b"".join(line for _, line in entries)).hexdigest()


def size_of(folder: Path) -> Size:
    """How much there is. Raises InvalidEnvironmentError for what no environment can have in it, OSError."""
    sizes: list[int] = []

    def note(_descriptor: int, status: os.stat_result, _path: bytes) -> None:
        if stat.S_ISREG(status.st_mode):
            sizes.append(status.st_size)

    _walk(folder, note)
    return Size(len(sizes), sum(sizes))


def seal(folder: Path) -> None:
    """Make everything root's and read-only, and durable. Needs root.

    Raises InvalidEnvironmentError for what no environment can have in it, and OSError; some of it may be sealed then.
    """
    _walk(folder, _seal)


def _seal(descriptor: int, status: os.stat_result, _path: bytes) -> None:
    executable = stat.S_ISDIR(status.st_mode) or status.st_mode & 0o111
    os.fchown(descriptor, 0, 0)  # before the mode: setuid bits and capabilities of the file go with it
    os.fchmod(descriptor, 0o555 if executable else 0o444)
    os.fsync(descriptor)


def _walk(folder: Path, visit: Visit) -> None:
    """Visit the tree and everything in it, below descriptors: nothing can be exchanged for a link meanwhile."""
    try:
        descriptor = os.open(folder, _FOLDER)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise InvalidEnvironmentError(f"{folder}: expected a folder, got {error.strerror}") from error
    try:
        for count, (inner, status, path) in enumerate(_below(folder, descriptor, b"", 0), 2):
            if count > MAX_ENTRIES:
                raise InvalidEnvironmentError(f"{folder}: expected at most {MAX_ENTRIES} files and folders, got more")
            visit(inner, status, path)
        visit(descriptor, os.fstat(descriptor), b".")
    finally:
        os.close(descriptor)


def _below(root: Path, folder: int, prefix: bytes, depth: int) -> Iterator[tuple[int, os.stat_result, bytes]]:
    if depth > MAX_DEPTH:
        raise InvalidEnvironmentError(
            f"{root}: expected at most {MAX_DEPTH} folders in each other, got {_shown(prefix)}"
        )
    with os.scandir(folder) as entries:
        for entry in entries:
            path = prefix + os.fsencode(entry.name)
            descriptor = _opened(root, folder, entry, path)
            try:
                status = os.fstat(descriptor)
                _check_kind(root, status, path)
                if stat.S_ISDIR(status.st_mode):
                    yield from _below(root, descriptor, path + b"/", depth + 1)
                yield descriptor, status, path
            finally:
                os.close(descriptor)


def _opened(root: Path, folder: int, entry: os.DirEntry[str], path: bytes) -> int:
    status = entry.stat(follow_symlinks=False)
    _check_kind(root, status, path)  # before it is opened: opening a device can do something
    try:
        path.decode("utf-8")
    except UnicodeDecodeError:
        raise InvalidEnvironmentError(f"{root}: expected names in UTF-8, got {path!r}") from None
    return os.open(entry.name, _FOLDER if stat.S_ISDIR(status.st_mode) else _FILE, dir_fd=folder)


def _check_kind(root: Path, status: os.stat_result, path: bytes) -> None:
    got = next((name for is_kind, name in _KINDS if is_kind(status.st_mode)), "")
    if stat.S_ISREG(status.st_mode) and status.st_nlink > 1:
        got = f"a file with {status.st_nlink} names (hard links)"
    if got:
        raise InvalidEnvironmentError(f"{root}: expected files and folders only, got {got}: {_shown(path)}")


def _check_sealed(root: Path, status: os.stat_result, path: bytes, owner: int) -> None:
    mode = stat.S_IMODE(status.st_mode)
    modes = (FOLDER_MODE,) if stat.S_ISDIR(status.st_mode) else FILE_MODES
    if mode not in modes:
        wanted = " or ".join(f"{each:04o}" for each in modes)
        raise InvalidEnvironmentError(f"{root}: expected mode {wanted}, got {mode:04o}: {_shown(path)}")
    if (status.st_uid, status.st_gid) != (owner, owner):
        whose = f"{status.st_uid}:{status.st_gid}"
        raise InvalidEnvironmentError(f"{root}: expected files of {owner}:{owner}, got {whose}: {_shown(path)}")


def _shown(path: bytes) -> str:
    return path.decode("utf-8", "backslashreplace")
