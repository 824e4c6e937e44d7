"""The ledger's files: NNNNNNNNNNNN.jsonl, named after the index of their first record, written at their end only."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from plugind.errors import StateError

SEGMENT_BYTES = 64 * 1024 * 1024
_NAME = re.compile(r"(\d{12})\.jsonl")


@dataclass(frozen=True, slots=True)
class Tail:
    """What the end of the ledger says: the next index, INTENTs that nothing closes (index, run), what was cut off."""

    next_index: int
    open_intents: tuple[tuple[int, str], ...]
    cut_bytes: int


class SegmentWriter:
    """Appends to the newest segment and makes the next one when it is full. Used by one thread at a time."""

    def __init__(self, directory: Path, segment_bytes: int = SEGMENT_BYTES) -> None:
        self._directory = directory
        self._segment_bytes = segment_bytes
        self._descriptor = -1
        self._path = directory
        self._size = 0

    def write(self, first_index: int, data: bytes) -> None:
        """Append and make durable: when this returns, power may fail. Raises OSError.

        Also when the file is not the one that was opened, or not as long as it was left: somebody else writes, moved
        it or removed it. After any error nothing more may be written before the ledger was opened anew.
        """
        if self._descriptor < 0 or self._size >= self._segment_bytes:
            self._next(first_index)
        self._check()
        view = memoryview(data)
        while view:
            view = view[os.write(self._descriptor, view) :]
        os.fdatasync(self._descriptor)
        self._size += len(data)

    def _check(self) -> None:
        there, ours = self._path.stat(), os.fstat(self._descriptor)
        if (there.st_dev, there.st_ino) != (ours.st_dev, ours.st_ino):
            raise OSError(0, f"expected the segment that was opened, got another file: {self._path}")
        if ours.st_size != self._size:
            raise OSError(0, f"expected {self._size} bytes, got {ours.st_size}: {self._path}")

    def _next(self, first_index: int) -> None:
        newest = max(segments(self._directory), default=None)
        size = newest.stat().st_size if newest else 0
        if newest is None or size >= self._segment_bytes:
            newest, size = self._directory / f"{first_index:012}.jsonl", 0
        self.close()
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        self._descriptor = os.open(newest, flags, 0o600)
        self._path, self._size = newest, size
        sync_directory(self._directory)

    def close(self) -> None:
        """Close the file; everything in it is durable already."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def segments(directory: Path) -> list[Path]:
    """All segments, oldest first."""
    return sorted(path for path in directory.iterdir() if _NAME.fullmatch(path.name))


def sync_directory(directory: Path) -> None:
    """Make the directory's entries durable. Source: fsync(2)."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def repair(directory: Path) -> Tail:
    """Cut off what a crash left half written, and read back to the last START. Raises StateError for real damage.

    Only bytes that were never confirmed go: those after the last newline, and what a file system left as NULs from
    the first of them on (a record is ASCII and has none).
    """
    paths = segments(directory)
    cut_bytes = _cut_torn_end(paths[-1]) if paths else 0
    if paths and not paths[-1].stat().st_size:
        paths.pop().unlink()
        sync_directory(directory)
    next_index = 0
    successor: int | None = None
    intents: list[tuple[int, str]] = []
    closed: set[int] = set()
    for path in reversed(paths):
        found = _read(path, successor)
        if successor is None:
            next_index = found.next_index
        successor = int(path.stem)
        intents = found.intents + intents
        closed |= found.closed
        if found.has_start:
            break
    return Tail(next_index, tuple(each for each in intents if each[0] not in closed), cut_bytes)


@dataclass(slots=True)
class _Found:
    next_index: int
    intents: list[tuple[int, str]]
    closed: set[int]
    has_start: bool


def _read(path: Path, successor: int | None) -> _Found:
    """One segment's records from its last START on. `successor`: the first index of the segment after it."""
    found = _Found(int(path.stem), [], set(), has_start=False)
    for number, record in records(path):
        if record.get("index") != found.next_index:
            raise StateError(
                f"{path}:{number}: expected the record with index {found.next_index}, got {record.get('index')!r}"
            )
        found.next_index += 1
        match record.get("event"):
            case "START":
                found.intents, found.closed, found.has_start = [], set(), True
            case "INTENT":
                found.intents.append((record["index"], str(record.get("run", ""))))
            case "OUTCOME" | "DENIED":
                found.closed.add(record.get("intent", -1))
    if successor is not None and found.next_index != successor:
        raise StateError(f"{path}: expected records up to index {successor - 1}, got up to {found.next_index - 1}")
    return found


def records(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Line number and record, in order. Raises StateError at the first line that is no record."""
    with path.open("rb") as lines:
        for number, text in enumerate(lines, 1):
            try:
                record = json.loads(text)
            except ValueError as error:
                raise StateError(f"{path}:{number}: expected a record, got {text[:80]!r}: {error}") from error
            if not isinstance(record, dict):
                raise StateError(f"{path}:{number}: expected a record, got {text[:80]!r}")
            yield number, record


def _cut_torn_end(path: Path) -> int:
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        data = _read_all(descriptor)
        nul = data.find(b"\0")
        whole = data[: nul if nul >= 0 else len(data)]
        keep = whole.rfind(b"\n") + 1
        if keep < len(data):
            os.ftruncate(descriptor, keep)
            os.fsync(descriptor)
        return len(data) - keep
    finally:
        os.close(descriptor)


def _read_all(descriptor: int) -> bytes:
    parts = []
    while part := os.read(descriptor, 1 << 24):
        parts.append(part)
    return b"".join(parts)
