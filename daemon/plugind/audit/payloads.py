"""Inputs and outputs, kept by digest in packs that only grow: payloads/NNNNNNNNNNNN.pack beside the ledger's segments.

An entry is the payload's sha256 (32 bytes), its length (8 bytes, big-endian) and its bytes. Entries become durable
before the records that refer to them, so what no record refers to was never confirmed.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from plugind.audit.files import AppendFile, sync_directory, truncate
from plugind.audit.records import ENTRY_HEAD_BYTES, Stored
from plugind.errors import StateError

PACK_BYTES: Final = 64 * 1024 * 1024
RECENT: Final = 16_384
"""A payload that is the same as one of so many before it is not written again. A few plans' files, which runs read in
turn: of fewer than one cycle has, none would be found. Some 300 bytes each.
"""
FOLDER: Final = "payloads"
_NAME: Final = re.compile(r"\d{12}\.pack")


class Places:
    """Gives each payload its place, before anything is written. Not safe from several threads."""

    def __init__(self, end: tuple[int, int], pack_bytes: int = PACK_BYTES) -> None:
        self._pack, self._offset = end
        self._pack_bytes = pack_bytes
        self._recent: OrderedDict[str, Stored] = OrderedDict()

    def take(self, digest: str, size: int) -> tuple[Stored, bool]:
        """Where the payload with this sha256 is, and whether it still has to be written there."""
        if known := self._recent.get(digest):
            self._recent.move_to_end(digest)
            return known, False
        if self._offset >= self._pack_bytes:
            self._pack, self._offset = self._pack + 1, 0
        stored = Stored(digest, size, self._pack, self._offset)
        self._offset += ENTRY_HEAD_BYTES + size
        self._recent[digest] = stored
        if len(self._recent) > RECENT:
            self._recent.popitem(last=False)
        return stored, True


class PackWriter:
    """Writes payloads to their places. Used by one thread at a time."""

    def __init__(self, directory: Path) -> None:
        self._folder = directory / FOLDER
        self._file: AppendFile | None = None
        self._pack = -1

    def write(self, payloads: Sequence[tuple[Stored, bytes]]) -> None:
        """Append and make durable, in the order of their places. Raises OSError, as SegmentWriter.write does."""
        for pack in dict.fromkeys(stored.pack for stored, _ in payloads):
            of_pack = [each for each in payloads if each[0].pack == pack]
            file = self._open(pack)
            if file.size != of_pack[0][0].offset:
                raise OSError(0, f"expected {of_pack[0][0].offset} bytes, got {file.size}: {file.path}")
            file.append(b"".join(part for stored, data in of_pack for part in (_head(stored), data)))
            file.sync()

    def _open(self, pack: int) -> AppendFile:
        if self._file is None or pack != self._pack:
            self.close()
            self._folder.mkdir(mode=0o700, exist_ok=True)
            sync_directory(self._folder.parent)
            self._file, self._pack = AppendFile(_path(self._folder, pack)), pack
        return self._file

    def close(self) -> None:
        """Close the file; everything in it is durable already."""
        if self._file is not None:
            self._file.close()
            self._file = None


def _head(stored: Stored) -> bytes:
    return bytes.fromhex(stored.sha256) + stored.bytes.to_bytes(8, "big")


def _path(folder: Path, pack: int) -> Path:
    return folder / f"{pack:012}.pack"


def packs(directory: Path) -> list[Path]:
    """All packs of a ledger, oldest first."""
    folder = directory / FOLDER
    return sorted(path for path in folder.iterdir() if _NAME.fullmatch(path.name)) if folder.is_dir() else []


def read(directory: Path, stored: Stored) -> bytes:
    """The payload's bytes, checked. `directory` is the ledger's. Raises StateError for what is not there or differs."""
    if not stored.sha256:
        return b""
    if stored.pack < 0:
        raise StateError(f"expected the payload with sha256 {stored.sha256}, got none: it was not stored")
    path = _path(directory / FOLDER, stored.pack)
    where = f"{path}, byte {stored.offset}"
    size = ENTRY_HEAD_BYTES + stored.bytes
    try:
        with path.open("rb") as stream:
            entry = os.pread(stream.fileno(), size, stored.offset)
    except FileNotFoundError:
        raise StateError(f"{path}: expected the payload with sha256 {stored.sha256}, got no such file") from None
    if len(entry) != size:
        raise StateError(f"{where}: expected a payload of {size} bytes with its head, got {len(entry)}")
    if entry[:ENTRY_HEAD_BYTES] != _head(stored):
        raise StateError(f"{where}: expected the head of the payload with sha256 {stored.sha256}, got another")
    data = entry[ENTRY_HEAD_BYTES:]
    if (got := hashlib.sha256(data).hexdigest()) != stored.sha256:
        raise StateError(f"{where}: expected a payload with sha256 {stored.sha256}, got {got}")
    return data


def repair(directory: Path, end: tuple[int, int]) -> int:
    """Cut off what no record refers to; `end` is the last byte of the newest pack that one does. How much was cut.

    Raises StateError where the store is shorter than its records say, with nothing changed.
    """
    last, size = end
    there = {int(path.stem): path for path in packs(directory)}
    got = there[last].stat().st_size if last in there else 0
    if got < size:
        raise StateError(f"{_path(directory / FOLDER, last)}: expected at least {size} bytes of payloads, got {got}")
    cut = 0
    for number, path in there.items():
        if number > last:
            cut += path.stat().st_size
            path.unlink()
            sync_directory(path.parent)
        elif number == last and got > size:
            cut += got - size
            truncate(path, size)
    return cut
