"""Plugin files as instances see them: unpacked by the launcher from bytes whose sha256 it checked itself.

They lie on a tmpfs that only the launcher can write; templates have it read-only at /code. The tar is read here by a
few lines of our own: whatever bytes come, they cost no more memory and time than their length.
Source of the format: POSIX.1-2017, pax, "ustar Interchange Format".
"""

from __future__ import annotations

import fcntl
import hashlib
import itertools
import os
import re
import shutil
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

from plugind.errors import InvalidBundleError

MAX_BUNDLE_BYTES = 32 * 1024 * 1024
CAPACITY_BYTES = 256 * 1024 * 1024
SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
MAX_INODES: Final = 4096
"""Files and folders of one bundle: what unpacking may keep the launcher from its watch."""
BLOCK: Final = 512
PAGE_BYTES: Final = 4096
_NAME = re.compile(r"(?!/)(?:(?!\.{1,2}(?:/|$))[^/\0]+(?:/|$))+(?<!/)")


@dataclass(frozen=True, slots=True)
class Member:
    """One regular file of a bundle."""

    name: str
    executable: bool
    content: memoryview


class CodeStore:
    """Unpacked bundles by digest; those unused for longest go first when the tmpfs fills."""

    def __init__(self, directory: Path, capacity_bytes: int = CAPACITY_BYTES) -> None:
        self._directory = directory
        self._capacity_bytes = capacity_bytes
        self._sizes: OrderedDict[str, int] = OrderedDict()

    def __contains__(self, digest: str) -> bool:
        return digest in self._sizes

    def touch(self, digest: str) -> None:
        """Note that a digest is in use again."""
        self._sizes.move_to_end(digest)

    def load(self, digest: str, descriptor: int, in_use: set[str]) -> list[str]:
        """Unpack a sealed memfd; returns the digests that had to make room.

        Raises InvalidBundleError when it is not exactly what `digest` promises.
        """
        data = read_sealed(descriptor, MAX_BUNDLE_BYTES)
        actual = hashlib.sha256(data).hexdigest()
        if actual != digest:
            raise InvalidBundleError(f"bundle sha256: expected {digest}, got {actual}")
        if digest in self._sizes:
            return []
        members = list(itertools.islice(read_tar(data), MAX_INODES + 1))
        size_bytes = footprint(members)
        evicted = self._make_room(size_bytes, in_use)
        staging = self._directory / f".{digest}"
        shutil.rmtree(staging, ignore_errors=True)
        try:
            unpack(members, staging)
            staging.rename(self._directory / digest)
        except OSError as error:
            shutil.rmtree(staging, ignore_errors=True)
            raise InvalidBundleError(f"bundle {digest}: cannot be unpacked: {error}") from error
        self._sizes[digest] = size_bytes
        return evicted

    def _make_room(self, size_bytes: int, in_use: set[str]) -> list[str]:
        evicted: list[str] = []
        for digest in [known for known in self._sizes if known not in in_use]:
            if sum(self._sizes.values()) + size_bytes <= self._capacity_bytes:
                break
            shutil.rmtree(self._directory / digest)
            del self._sizes[digest]
            evicted.append(digest)
        if sum(self._sizes.values()) + size_bytes > self._capacity_bytes:
            raise InvalidBundleError(
                f"bundle: expected at most {self._capacity_bytes} bytes of files with those of the bundles in use, "
                f"got {size_bytes} more"
            )
        return evicted


def read_sealed(descriptor: int, limit_bytes: int) -> bytes:
    """The content of a memfd that nobody can change any more. Raises InvalidBundleError. Source: fcntl(2)."""
    try:
        seals = fcntl.fcntl(descriptor, fcntl.F_GET_SEALS)
    except OSError as error:
        raise InvalidBundleError("descriptor: expected a sealed memfd") from error
    size = os.fstat(descriptor).st_size
    if seals & SEALS != SEALS or size > limit_bytes:
        raise InvalidBundleError(f"descriptor: expected a sealed memfd of at most {limit_bytes} bytes")
    return os.pread(descriptor, size, 0)


def footprint(members: Iterable[Member]) -> int:
    """What these files take on a tmpfs: whole pages, and a page for each file and folder as its inode's share.

    Raises InvalidBundleError when there are too many of them.
    """
    folders: set[PurePosixPath] = set()
    files = size_bytes = 0
    for member in members:
        folders.update(PurePosixPath(member.name).parents)
        files += 1
        size_bytes += len(member.content) + -len(member.content) % PAGE_BYTES
    if files + len(folders) > MAX_INODES:
        raise InvalidBundleError(f"bundle: expected at most {MAX_INODES} files and folders, got more")
    return size_bytes + PAGE_BYTES * (files + len(folders))


def read_tar(data: bytes) -> Iterator[Member]:
    """The files of a USTAR archive, which holds nothing else. Raises InvalidBundleError."""
    view = memoryview(data)
    offset = 0
    while any(header := data[offset : offset + BLOCK]):
        name = _checked_name(header, offset)
        size = _octal(header[124:136], name)
        end = offset + BLOCK + size
        if end > len(data):
            raise InvalidBundleError(f"member {name!r}: expected {size} bytes, got {len(data) - offset - BLOCK}")
        yield Member(name, bool(_octal(header[100:108], name) & 0o100), view[offset + BLOCK : end])
        offset = end + -size % BLOCK
    if data[offset:].strip(b"\0"):
        raise InvalidBundleError(f"bundle: expected nothing but zeros after its end at {offset}")


def _checked_name(header: bytes, offset: int) -> str:
    if len(header) < BLOCK or header[257:263] != b"ustar\0" or _octal(header[148:156], "") != _checksum(header):
        raise InvalidBundleError(f"bundle: expected a USTAR header at {offset}")
    prefix, base = (field.partition(b"\0")[0] for field in (header[345:500], header[:100]))
    name = (prefix + b"/" + base if prefix else base).decode(errors="backslashreplace")
    if header[156:157] != b"0" or _NAME.fullmatch(name) is None:
        raise InvalidBundleError(f"member {name!r}: expected a regular file below the bundle")
    return name


def _checksum(header: bytes) -> int:
    return sum(header[:148]) + 8 * ord(" ") + sum(header[156:])


def _octal(field: bytes, name: str) -> int:
    digits = field.rstrip(b"\0 ")
    if not re.fullmatch(rb"[0-7]{1,11}", digits):
        raise InvalidBundleError(f"member {name!r}: expected an octal number, got {field!a}")
    return int(digits, 8)


def unpack(members: Iterable[Member], directory: Path) -> None:
    """Beneath `directory`, readable by all and writable by none. Raises OSError, also for a name that comes twice."""
    directory.mkdir(mode=0o755)
    for member in members:
        target = directory / member.name
        target.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        with open(descriptor, "wb") as stream:
            stream.write(member.content)
            os.fchmod(descriptor, 0o555 if member.executable else 0o444)
    for folder in [directory, *(path for path in directory.rglob("*") if path.is_dir())]:
        folder.chmod(0o755)  # whatever the umask was
