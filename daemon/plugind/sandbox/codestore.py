"""Plugin files as instances see them: unpacked by the launcher from bytes whose sha256 it checked itself.

They lie on a tmpfs that only the launcher can write; templates have it read-only at /code.
"""

from __future__ import annotations

import fcntl
import hashlib
import io
import os
import re
import shutil
import tarfile
from collections import OrderedDict
from pathlib import Path

from plugind.errors import InvalidBundleError

MAX_BUNDLE_BYTES = 32 * 1024 * 1024
CAPACITY_BYTES = 256 * 1024 * 1024
SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
_NAME = re.compile(r"(?!/)(?:(?!\.{1,2}(?:/|$))[^/\0]+(?:/|$))+(?<!/)")


class CodeStore:
    """Unpacked bundles by digest; those unused for longest go first when the tmpfs fills."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
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
        evicted = self._make_room(len(data), in_use)
        staging = self._directory / f".{digest}"
        shutil.rmtree(staging, ignore_errors=True)
        try:
            unpack(data, staging)
            staging.rename(self._directory / digest)
        except (OSError, tarfile.TarError) as error:
            shutil.rmtree(staging, ignore_errors=True)
            raise InvalidBundleError(f"bundle {digest}: cannot be unpacked: {error}") from error
        self._sizes[digest] = len(data)
        return evicted

    def _make_room(self, size_bytes: int, in_use: set[str]) -> list[str]:
        evicted: list[str] = []
        for digest in [known for known in self._sizes if known not in in_use]:
            if sum(self._sizes.values()) + size_bytes <= CAPACITY_BYTES // 2:
                break
            shutil.rmtree(self._directory / digest)
            del self._sizes[digest]
            evicted.append(digest)
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


def unpack(data: bytes, directory: Path) -> None:
    """Regular files only, beneath `directory`, readable by all and writable by none."""
    directory.mkdir(mode=0o755)
    with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as archive:
        for member in archive:
            if not member.isreg() or _NAME.fullmatch(member.name) is None:
                raise InvalidBundleError(f"member {member.name!r}: expected a regular file below the bundle")
            target = directory / member.name
            target.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            content = archive.extractfile(member)
            assert content is not None  # noqa: S101 - isreg() was checked
            descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
            with open(descriptor, "wb") as stream:
                stream.write(content.read())
                os.fchmod(descriptor, 0o555 if member.mode & 0o100 else 0o444)
    for folder in [directory, *(path for path in directory.rglob("*") if path.is_dir())]:
        folder.chmod(0o755)  # whatever the umask was
