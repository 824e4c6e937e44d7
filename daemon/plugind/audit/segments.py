"""The ledger's files: NNNNNNNNNNNN.jsonl, named after the index of their first record, written at their end only."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from plugind.audit import checkpoint
from plugind.audit.checkpoint import Base, Checkpoint
from plugind.audit.files import AppendFile, sync_directory, truncate
from plugind.audit.merkle import Frontier, leaf_hash
from plugind.audit.records import Subject, read_line, stored_in, subject_of
from plugind.errors import StateError

SEGMENT_BYTES = 16 * 1024 * 1024
"""A start reads the newest segment whole and hashes it: 0.3 s."""
_NAME = re.compile(r"(\d{12})\.jsonl")


@dataclass(frozen=True, slots=True)
class Tail:
    """What the end of the ledger says."""

    next_index: int
    open_intents: tuple[tuple[int, Subject], ...]
    """INTENTs that nothing closes, with their index."""
    cut_bytes: int
    """What was never confirmed and was cut off."""
    origin: str = field(default="", compare=False)
    frontier: Frontier = field(default_factory=Frontier, compare=False)
    """The tree over all records."""
    base: Base = field(default=Base(), compare=False)
    """What was before the newest segment."""
    payload_end: tuple[int, int] = field(default=(0, 0), compare=False)
    """Number of the newest pack that records refer to, and how many of its bytes."""


class SegmentWriter:
    """Appends to the newest segment and makes the next one when it is full. Used by one thread at a time."""

    def __init__(self, directory: Path, segment_bytes: int = SEGMENT_BYTES) -> None:
        self._directory = directory
        self._segment_bytes = segment_bytes
        self._file: AppendFile | None = None
        self.first_index = -1
        """Where the segment that was written last begins."""

    def write(self, first_index: int, data: bytes) -> None:
        """Append and make durable: when this returns, power may fail. Raises OSError.

        Also when the file is not the one that was opened, or not as long as it was left: somebody else writes, moved
        it or removed it. After any error nothing more may be written before the ledger was opened anew.
        """
        if self._file is None or self._file.size >= self._segment_bytes:
            self._file = self._next(first_index)
        self._file.append(data)
        self._file.sync()

    def _next(self, first_index: int) -> AppendFile:
        newest = max(segments(self._directory), default=None)
        if newest is None or newest.stat().st_size >= self._segment_bytes:
            newest = self._directory / f"{first_index:012}.jsonl"
        self.close()
        self.first_index = int(newest.stem)
        return AppendFile(newest)

    def close(self) -> None:
        """Close the file; everything in it is durable already."""
        if self._file is not None:
            self._file.close()
            self._file = None


def segments(directory: Path) -> list[Path]:
    """All segments, oldest first."""
    return sorted(path for path in directory.iterdir() if _NAME.fullmatch(path.name))


def repair(directory: Path) -> Tail:
    """Check the end against the checkpoint, find what is open, cut off what a crash left half written.

    Only bytes that were never confirmed go: those after the last newline, and what a file system left as NULs from
    the first of them on (a record is ASCII and has none). Raises StateError for real damage, with nothing changed.
    """
    paths = segments(directory)
    known = checkpoint.read(directory)
    if known is None:
        if paths:
            raise StateError(
                f"{directory / checkpoint.NAME}: expected the checkpoint of the ledger that is there, got none;"
                " without it nobody can say whether records are missing"
            )
        known = checkpoint.CheckpointFile.create(directory)
    end = _End(paths[-1]) if paths else None
    tail = _read_back(directory, paths, end, known)
    if end and end.cut_bytes:
        truncate(end.path, end.keep_bytes)
    if end and not end.keep_bytes:
        end.path.unlink()
        sync_directory(directory)
    return tail


class _End:
    """The newest segment: how much of it was confirmed."""

    def __init__(self, path: Path) -> None:
        data = path.read_bytes()
        nul = data.find(b"\0")
        self.path = path
        self.keep_bytes = data.rfind(b"\n", 0, nul if nul >= 0 else len(data)) + 1
        self.cut_bytes = len(data) - self.keep_bytes


def _read_back(directory: Path, paths: list[Path], end: _End | None, known: Checkpoint) -> Tail:
    """From the newest segment back to the checkpoint's base, and to the first INTENT that was open there."""
    found: list[_Found] = []
    for path in reversed(paths):
        size = end.keep_bytes if end and path == end.path else None
        successor = found[-1].first_index if found else None
        found.append(_read(path, size, successor, hashes=int(path.stem) >= known.base.size))
        if found[-1].first_index <= known.base.lowest_open:
            break
    next_index = found[0].next_index if found else 0
    found.reverse()
    frontier, base = _agreed(directory, found, next_index, known)
    closed = {index for one in found for index in one.closed}
    intents = [intent for one in found for intent in one.intents if intent["index"] not in closed]
    return Tail(
        next_index,
        tuple((intent["index"], subject_of(intent)) for intent in intents),
        end.cut_bytes if end else 0,
        known.origin,
        frontier,
        base,
        max((known.base.payload_end, *(one.payload_end for one in found))),
    )


def _agreed(directory: Path, found: list[_Found], size: int, known: Checkpoint) -> tuple[Frontier, Base]:
    """The tree over all records, and what was before the newest segment. Raises StateError where that is not so."""
    name = directory / checkpoint.NAME
    if size < known.size:
        raise StateError(f"{name}: expected {known.size} records in the ledger, got {size}: some are missing")
    hashed = [one for one in found if one.first_index >= known.base.size]
    begins = hashed[0].first_index if hashed else None
    if begins != known.base.size and (hashed or known.size):
        raise StateError(f"{name}: expected a segment that begins with index {known.base.size}, got {begins}")
    frontier, base = known.base.frontier(), known.base
    root = frontier.root()
    for one in hashed:
        if one.leaves and frontier.size != base.size:
            base = Base(frontier.size, frontier.nodes, base.lowest_open, base.payload_end)
        for leaf in one.leaves:
            frontier.append(leaf)
            if frontier.size == known.size:
                root = frontier.root()
    if root != known.root:
        raise StateError(
            f"{name}: expected root {known.root.hex()} over {known.size} records, got {root.hex()}:"
            " records were changed; `plugindctl audit verify --state` names what it can"
        )
    return frontier, base


@dataclass(slots=True)
class _Found:
    """One segment."""

    first_index: int
    next_index: int
    intents: list[dict[str, Any]] = field(default_factory=list)
    closed: set[int] = field(default_factory=set)
    leaves: list[bytes] = field(default_factory=list)
    payload_end: tuple[int, int] = (0, 0)

    def take(self, record: dict[str, Any]) -> None:
        match record["event"]:
            case "INTENT":
                self.intents.append(record)
            case "OUTCOME" | "DENIED":
                self.closed.add(record["intent"])
        ends = [stored.end for stored in stored_in(record) if stored.pack >= 0]
        self.payload_end = max((self.payload_end, *ends))


def _read(path: Path, size: int | None, successor: int | None, *, hashes: bool) -> _Found:
    """One segment's records. `successor`: the first index of the segment after it."""
    found = _Found(int(path.stem), int(path.stem))
    for number, text in lines(path, size):
        record = _record(path, number, text)
        if record.get("index") != found.next_index:
            raise StateError(
                f"{path}:{number}: expected the record with index {found.next_index}, got {record.get('index')!r}"
            )
        found.next_index += 1
        try:
            found.take(record)
        except (KeyError, TypeError, ValueError) as error:
            raise StateError(f"{path}:{number}: expected a record of this version: {error!r}") from error
        if hashes:
            found.leaves.append(leaf_hash(text))
    if successor is not None and found.next_index != successor:
        raise StateError(f"{path}: expected records up to index {successor - 1}, got up to {found.next_index - 1}")
    return found


def lines(path: Path, size: int | None = None) -> Iterator[tuple[int, bytes]]:
    """Number and text of each whole line in the first `size` bytes, without newlines."""
    with path.open("rb") as stream:
        read = 0
        for number, text in enumerate(stream, 1):
            read += len(text)
            if not text.endswith(b"\n") or (size is not None and read > size):
                return
            yield number, text[:-1]


def records(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Line number and record, in order. Raises StateError at the first line that is no record."""
    for number, text in lines(path):
        yield number, _record(path, number, text)


def _record(path: Path, number: int, text: bytes) -> dict[str, Any]:
    try:
        return read_line(text)
    except (ValueError, RecursionError) as error:
        raise StateError(f"{path}:{number}: expected a record, got {text[:80]!r}: {error}") from error
