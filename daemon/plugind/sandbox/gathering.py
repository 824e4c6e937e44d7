"""What an instance has left in its output folder, collected when no process of it is left. Nothing of it is trusted.

Regular files with one name are taken, and of everything else it is told what it is. No link is followed, nothing is
opened that could wait for somebody, and how much is looked at is bounded before it is: files, bytes, depth, names.
The launcher does nothing else meanwhile: for the 16 MiB of Tier 1 as shipped 30 ms of processor time, for the 64 MiB of
Tier 0 110 ms.
"""

from __future__ import annotations

import dataclasses
import os
import stat
from collections.abc import Callable
from typing import Final
from urllib.parse import quote

from plugind.planfiles import MAX_INDEX_BYTES, Entry, pack, path_problem
from plugind.sandbox.grants import OutputFolder
from plugind.sandbox.protocol import Ended
from plugind.sandbox.sealed import sealed_memfd
from plugind.sandbox.words import log, short

TOO_MANY, TOO_LARGE, SPARSE, NO_PATH = "too many", "too large", "sparse", "no path"
"""Problems of entries. The others are what something is: symlink, fifo, socket, device, hard link."""
_KINDS: Final = {
    stat.S_IFLNK: "symlink",
    stat.S_IFIFO: "fifo",
    stat.S_IFSOCK: "socket",
    stat.S_IFCHR: "device",
    stat.S_IFBLK: "device",
}
_BLOCK: Final = 512
"""Unit of st_blocks. Source: stat(3type)."""
_ENTRY_BYTES: Final = 128
"""An entry in the index without its path, at most; and each byte of a path becomes at most three (JSON in ASCII)."""
_SHOWN: Final = 200
"""Characters that are shown of a name that is none."""


def gather(folder: OutputFolder, ended: Ended, tell: Callable[[int], None]) -> Ended:
    """Collect what an instance has left that ended by itself and well; `tell` gets it as a sealed memfd, packed.

    How it ended: what was told, and `fault` where we could not collect it.
    """
    if ended.cause or ended.exit_code:
        return ended
    try:
        memfd = sealed_memfd("output", pack(collect(folder.mount, folder.files, folder.bytes)))
    except (OSError, MemoryError) as error:
        log(f"run {ended.run}: what it wrote cannot be collected: {error}")
        return dataclasses.replace(ended, cause="fault", detail=short(f"what it wrote cannot be collected: {error}"))
    try:
        tell(memfd)
    finally:
        os.close(memfd)
    return ended


def collect(folder: int, most_files: int, most_bytes: int) -> list[Entry]:
    """Everything below a folder (an O_PATH descriptor will do) but folders; at most one entry more than `most_files`.

    When there is too much the last entry says so, and what is beyond it was not looked at. Raises OSError.
    """
    walk = _Walk(most_files, most_bytes)
    try:
        walk.enter(folder, b".", b"")
    except _FullError:
        pass  # the last entry says of what
    return walk.entries()


class _FullError(Exception):
    """There is more than is taken."""


class _Walk:
    """Depth first. So many folders are open at one time as a path has parts, and one."""

    def __init__(self, most_files: int, most_bytes: int) -> None:
        self._files = most_files
        self._bytes = most_bytes
        self._index = MAX_INDEX_BYTES - 1024
        self._found: list[tuple[bytes, bytes | None, str]] = []
        """Path, content and problem."""

    def enter(self, above: int, name: bytes, path: bytes) -> None:
        """A folder, whose path is `path`."""
        folder = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=above)
        try:
            with os.scandir(folder) as names:
                # No more of them than the file system may have inodes; on tmpfs every hard link counts as one.
                found = sorted(os.fsencode(each.name) for each in names)
            for each in found:
                self._look(folder, each, path + b"/" + each if path else each)
        finally:
            os.close(folder)

    def _look(self, folder: int, name: bytes, path: bytes) -> None:
        status = os.stat(name, dir_fd=folder, follow_symlinks=False)
        valid = not path_problem(_text(path))
        if stat.S_ISDIR(status.st_mode) and valid:
            self.enter(folder, name, path)
        elif not valid:
            self._note(path, None, NO_PATH)
        elif not stat.S_ISREG(status.st_mode):
            self._note(path, None, _KINDS.get(stat.S_IFMT(status.st_mode), "no regular file"))
        else:
            self._take(folder, name, path)

    def _take(self, folder: int, name: bytes, path: bytes) -> None:
        descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
        try:
            status = os.fstat(descriptor)
            if status.st_nlink != 1:
                self._note(path, None, "hard link")
            elif status.st_blocks * _BLOCK < status.st_size:
                self._note(path, None, SPARSE)
            elif status.st_size > self._bytes:
                self._give_up(path, TOO_LARGE)
            else:
                self._bytes -= status.st_size
                self._note(path, _content(descriptor, status.st_size), "")
        finally:
            os.close(descriptor)

    def _note(self, path: bytes, content: bytes | None, problem: str) -> None:
        self._files -= 1
        self._index -= _ENTRY_BYTES + 3 * len(path)
        if self._files < 0 or self._index < 0:
            self._give_up(path, TOO_MANY)
        self._found.append((path, content, problem))

    def _give_up(self, path: bytes, problem: str) -> None:
        self._found.append((path, None, problem))
        raise _FullError

    def entries(self) -> list[Entry]:
        """What was found, each under a path that is one, and none twice."""
        taken = {text for path, *_ in self._found if not path_problem(text := _text(path))}
        made = []
        for path, content, problem in self._found:
            text = _text(path)
            if path_problem(text):
                text = _stand_in(path, taken)
                taken.add(text)
            made.append(Entry(text, content, problem=problem))
        return made


def _text(path: bytes) -> str:
    """It as text; where it is no UTF-8, one that path_problem finds something wrong with."""
    return path.decode(errors="backslashreplace")


def _stand_in(path: bytes, taken: set[str]) -> str:
    """A path that shows what another one is that cannot be one: as in a URL, without folders."""
    shown = quote(path, safe="").replace(".", "%2E")
    shown = shown if len(shown) <= _SHOWN else f"{shown[:_SHOWN]}…"
    number, text = 1, shown
    while text in taken:
        number += 1
        text = f"{shown}~{number}"
    return text


def _content(descriptor: int, size: int) -> bytes:
    content = os.pread(descriptor, size, 0)
    if len(content) != size:  # nobody can write there any more
        raise OSError(0, f"expected {size} bytes, got {len(content)}")
    return content
