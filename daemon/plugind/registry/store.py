"""Bundles by their content: store/sha256/ab/abcd…, written whole or not at all, and checked each time they are read."""

from __future__ import annotations

import hashlib
import os
import re
import secrets
from pathlib import Path
from typing import Final

from plugind.errors import NotFoundError, StateError

_DIGEST: Final = re.compile(r"[0-9a-f]{64}")
_TEMPORARY: Final = ".tmp-"


class DigestMismatchError(StateError):
    """The stored bytes are not those that were submitted: reason code DIGEST_MISMATCH, for this digest alone."""


class Store:
    """A folder of immutable files. One process uses it at a time; temporary files of a killed one go at start."""

    def __init__(self, root: Path) -> None:
        self._root = root / "sha256"
        self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
        for orphan in self._root.glob(f"*/{_TEMPORARY}*"):
            orphan.unlink()

    def path(self, digest: str) -> Path:
        """Where the bytes of this digest lie. Raises NotFoundError for what is no sha256 in hex."""
        if not _DIGEST.fullmatch(digest):
            raise NotFoundError(f"digest: expected a sha256 in hex, got {digest[:80]!a}")
        return self._root / digest[:2] / digest

    def put(self, data: bytes) -> str:
        """Keep the bytes, durably; their sha256, hex. The same bytes again repair a damaged copy. Raises OSError."""
        digest = hashlib.sha256(data).hexdigest()
        target = self.path(digest)
        if self._holds(target, digest):
            return digest
        target.parent.mkdir(mode=0o700, exist_ok=True)
        temporary = target.parent / f"{_TEMPORARY}{secrets.token_hex(8)}"
        try:
            _write_durably(temporary, data)
            temporary.replace(target)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        # rename(2) is durable when the folder is; a new folder when its parent is.
        _sync_folder(target.parent)
        _sync_folder(self._root)
        return digest

    def load(self, digest: str) -> bytes:
        """The bytes of this digest. Raises NotFoundError, DigestMismatchError, OSError."""
        path = self.path(digest)
        try:
            data = path.read_bytes()
        except FileNotFoundError as error:
            raise NotFoundError(f"{path}: expected a stored bundle, got nothing") from error
        actual = hashlib.sha256(data).hexdigest()
        if actual != digest:
            raise DigestMismatchError(f"bundle sha256 expected {digest}, got {actual} ({path})")
        return data

    def _holds(self, target: Path, digest: str) -> bool:
        return target.is_file() and hashlib.sha256(target.read_bytes()).hexdigest() == digest


def _write_durably(path: Path, data: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o400)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(descriptor)


def _sync_folder(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
