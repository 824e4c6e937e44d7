"""A plan's folder on this machine: reading what patterns mean, and putting files into it, all or none.

For plans that the daemon cannot open, such as a container's, and for the fakes. No link is followed below the folder.
All or none is as far as a client can see to it: whoever kills this process in the middle leaves what is done by then.

Source: SPEC.md, "Files of a plan"; open(2), rename(2), link(2).
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

from plugind_client.planfiles import RESERVED, digest, is_path, part_matches

_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC  # a FIFO would wait for its other end
_NEW: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class PlanProblem(Exception):  # noqa: N818 - no fault: something in the folder is not as it has to be
    """What keeps a file from being taken or put; the text says which and why. Nothing was changed."""


def read(folder: str, patterns: Iterable[str], *, only_good: bool = False) -> dict[str, bytes]:
    """Path → content of every file that a pattern means. `only_good`: what is no regular file is left out.

    Raises:
        PlanProblem: a pattern means a link, a FIFO, a device, a socket or a hard link.
        OSError: the folder or a file cannot be read.
    """
    found: dict[str, bytes] = {}
    with _opened(folder, _FOLDER) as root:
        _walk(root, "", [pattern.split("/") for pattern in patterns], found, only_good=only_good)
    return found


def _walk(folder: int, prefix: str, patterns: list[list[str]], found: dict[str, bytes], *, only_good: bool) -> None:
    for name in sorted(os.listdir(folder)):
        left = [pattern[1:] for pattern in patterns if part_matches(name, pattern[0])]
        deeper = [pattern for pattern in left if pattern]
        path = f"{prefix}{name}"
        kind = os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode if left else 0
        if stat.S_ISDIR(kind):
            if deeper:
                with _opened(name, _FOLDER, folder) as below:
                    _walk(below, f"{path}/", deeper, found, only_good=only_good)
        elif [] in left or (deeper and stat.S_ISLNK(kind) and _leads_to_a_folder(folder, name)):
            with contextlib.suppress(*([PlanProblem] if only_good else ())):
                content = _content(folder, name, path)
                found[path] = b"" if content is None else content[0]


def _leads_to_a_folder(folder: int, name: str) -> bool:
    try:
        return stat.S_ISDIR(os.stat(name, dir_fd=folder).st_mode)
    except OSError:
        return False


def _content(folder: int, name: str, path: str) -> tuple[bytes, int] | None:
    """Content and mode; None: there is no such file. Raises PlanProblem, OSError."""
    try:
        with _opened(name, _FILE, folder) as descriptor:
            found = os.fstat(descriptor)
            if not stat.S_ISREG(found.st_mode) or found.st_nlink != 1:
                kind = "a file with several names" if stat.S_ISREG(found.st_mode) else "no file"
                raise PlanProblem(f"{path}: expected a regular file with one name, got {kind}")
            with open(descriptor, "rb", closefd=False) as file:
                return file.read(), stat.S_IMODE(found.st_mode)
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise PlanProblem(f"{path}: expected a regular file with one name, got a link") from None
        if error.errno == errno.ENXIO:
            raise PlanProblem(f"{path}: expected a regular file with one name, got no file") from None
        raise


@contextlib.contextmanager
def _opened(name: str, flags: int, folder: int | None = None) -> Iterator[int]:
    descriptor = os.open(name, flags, dir_fd=folder)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


# --- putting ---------------------------------------------------------------------------------------------------------


def put(folder: str, contents: Mapping[str, bytes], seen: Mapping[str, str]) -> dict[str, tuple[str, int]]:
    """Puts files there, all or none: path → sha256 and size of what each replaced, empty and 0 for nothing.

    `seen`: path → sha256 of what was there before the run, empty for nothing; of a path that it does not name nobody
    knows, and whatever is there is replaced.

    Raises:
        PlanProblem: a path is none, a link or something else is in its place, or somebody has changed it meanwhile.
        OSError: it cannot be done.
    """
    with contextlib.ExitStack() as kept:
        root = kept.enter_context(_opened(folder, _FOLDER))
        made: list[tuple[int, str]] = []
        places: list[_Place] = []
        try:
            for number, (path, content) in enumerate(contents.items()):
                if not is_path(path):
                    raise PlanProblem(f"{path!r:.200}: expected a path relative to the plan's folder")
                *above, name = path.split("/")
                place = _Place(_below(root, path, above, kept, made), name, path, f"{secrets.token_hex(8)}-{number}")
                places.append(place)
                place.stage(content)
            for place in places:
                place.look(seen)
            for place in places:
                place.take()
        except BaseException:
            _back(places, made)
            raise
        for place in places:
            place.done()
        return {place.path: place.replaced for place in places}


def _below(root: int, path: str, above: Sequence[str], kept: contextlib.ExitStack, made: list[tuple[int, str]]) -> int:
    """The folder that a file is in, made where it is missing. Raises PlanProblem, OSError."""
    folder = root
    for name in above:
        try:
            os.mkdir(name, dir_fd=folder)
            made.append((folder, name))
        except FileExistsError:
            pass
        try:
            folder = kept.enter_context(_opened(name, _FOLDER, folder))
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.ENOTDIR):
                raise PlanProblem(f"{path}: expected {name} to be a folder, got a link or a file") from None
            raise
    return folder


def _back(places: Iterable[_Place], made: Iterable[tuple[int, str]]) -> None:
    for place in reversed(list(places)):
        place.back()
    for folder, name in reversed(list(made)):
        with contextlib.suppress(OSError):  # somebody has put something into it
            os.rmdir(name, dir_fd=folder)


class _Place:
    """Where one file is to come. Until all are staged and looked at, nothing of the plan has changed."""

    def __init__(self, folder: int, name: str, path: str, token: str) -> None:
        self.path = path
        self.replaced = ("", 0)
        self._folder, self._name = folder, name
        self._new, self._old = f"{RESERVED}{token}-new", f"{RESERVED}{token}-old"
        self._taken = False

    def stage(self, content: bytes) -> None:
        descriptor = os.open(self._new, _NEW, 0o666, dir_fd=self._folder)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(descriptor)

    def look(self, seen: Mapping[str, str]) -> None:
        """What is there now; it gets a second name, by which it can come back."""
        there = _content(self._folder, self._name, self.path)
        found = digest(there[0]) if there else ""
        if seen.get(self.path, found) != found:
            raise PlanProblem(f"{self.path}: expected what was there before the run, got a file that changed meanwhile")
        if there:
            self.replaced = (found, len(there[0]))
            with _opened(self._new, _FILE, self._folder) as descriptor:
                os.fchmod(descriptor, there[1])
            os.link(self._name, self._old, src_dir_fd=self._folder, dst_dir_fd=self._folder, follow_symlinks=False)

    def take(self) -> None:
        if self.replaced[0]:
            os.replace(self._new, self._name, src_dir_fd=self._folder, dst_dir_fd=self._folder)
        else:  # unlike a rename it replaces nothing that came meanwhile
            os.link(self._new, self._name, src_dir_fd=self._folder, dst_dir_fd=self._folder, follow_symlinks=False)
        self._taken = True

    def back(self) -> None:
        if self._taken and self.replaced[0]:
            os.replace(self._old, self._name, src_dir_fd=self._folder, dst_dir_fd=self._folder)
        elif self._taken:
            os.unlink(self._name, dir_fd=self._folder)
        self._forget()

    def done(self) -> None:
        self._forget()
        os.fsync(self._folder)

    def _forget(self) -> None:
        for name in (self._new, self._old):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name, dir_fd=self._folder)
