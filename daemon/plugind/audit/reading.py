"""Reading the ledger while it is written: one record, the newest, its other half, and what comes.

Nothing here takes a lock. Whoever knows how many records are durable says so (`below`), so that nobody sees one that
is not; without a daemon every whole line counts. Raises StateError where the ledger is damaged, OSError.
"""

from __future__ import annotations

import re
import sys
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol

from plugind.audit.merkle import leaf_hash
from plugind.audit.records import read_line
from plugind.audit.segments import lines, segments
from plugind.errors import NotFoundError, StateError

ALL: Final = sys.maxsize
_CLOSING: Final = frozenset({"OUTCOME", "DENIED"})
_TIME: Final = re.compile(rb'\{"index":[0-9]+,"time_unix_ms":([0-9]+),')
_EVENT: Final = re.compile(_TIME.pattern + rb'"event":"([A-Z]+)"')


@dataclass(frozen=True, slots=True)
class Entry:
    """A record as it stands in the ledger."""

    index: int
    text: bytes
    """Its line without newline: what the leaf hash is of."""
    fields: dict[str, Any]
    segment: str
    line: int

    @property
    def leaf_hash(self) -> bytes:
        """Its hash in the Merkle tree."""
        return leaf_hash(self.text)


class Wanted(Protocol):
    """Which records are wanted."""

    @property
    def since_unix_ms(self) -> int:
        """Nothing older is wanted; 0: everything may be."""
        ...

    def may_take(self, text: bytes) -> bool:
        """Whether the record of this line can be wanted: asked before it is taken apart, which takes longer."""
        ...

    def takes(self, fields: dict[str, Any]) -> bool:
        """Whether this record is wanted."""
        ...


@dataclass(frozen=True, slots=True)
class Filter:
    """Which records are wanted; what is empty or zero does not matter."""

    plugin: str = ""
    """Name or id."""
    events: frozenset[str] = field(default_factory=frozenset)
    outcome: str = ""
    plan_id: str = ""
    since_unix_ms: int = 0
    digest: str = ""
    """Of a version."""

    def may_take(self, text: bytes) -> bool:
        """See Wanted."""
        return self.digest.encode() in text

    def takes(self, fields: dict[str, Any]) -> bool:
        """Whether this record is wanted."""
        return (
            (not self.plugin or self.plugin in {fields.get("plugin"), fields.get("plugin_id")})
            and (not self.digest or fields.get("digest") == self.digest)
            and (not self.events or fields.get("event") in self.events)
            and (not self.outcome or fields.get("outcome") == self.outcome)
            and (not self.plan_id or fields.get("plan_id") == self.plan_id)
            and int(fields.get("time_unix_ms", 0)) >= self.since_unix_ms
        )


def get(directory: Path, index: int, below: int = ALL) -> Entry:
    """One record. Raises NotFoundError."""
    if 0 <= index < below:
        for entry in _from(directory, index):
            return entry
    raise NotFoundError(f"log_{index}: the ledger has no such record")


def other_half(directory: Path, entry: Entry, below: int = ALL) -> Entry | None:
    """The OUTCOME or DENIED of an INTENT, or the INTENT of one of those; None where there is none (yet)."""
    intent = entry.fields.get("intent", -1)
    if entry.fields.get("event") in _CLOSING:
        return get(directory, intent, below) if intent >= 0 else None
    if entry.fields.get("event") != "INTENT":
        return None
    mark = f'"intent":{entry.index},'.encode()
    for _, _, text in _texts(directory, entry.index + 1, below):
        # Text in data has its quotes escaped: this cannot be found within a value.
        if mark in text or mark[:-1] + b"}" in text:
            fields = read_line(text)
            if fields.get("event") in _CLOSING and fields.get("intent") == entry.index:
                return get(directory, fields["index"], below)
    return None


def newest(directory: Path, wanted: Wanted, limit: int, below: int = ALL) -> list[Entry]:
    """The newest records that are wanted, newest first."""
    found: list[Entry] = []
    for path in reversed(segments(directory)):
        latest_ms = 0
        for number, text in reversed(list(lines(path))):
            index = int(path.stem) + number - 1
            if index >= below:
                continue
            if not wanted.may_take(text) and (time := _TIME.match(text)):
                latest_ms = max(latest_ms, int(time[1]))
                continue
            entry = _entry(path, number, text)
            latest_ms = max(latest_ms, int(entry.fields.get("time_unix_ms", 0)))
            if wanted.takes(entry.fields):
                found.append(entry)
                if len(found) == limit:
                    return found
        # A clock may be set back: only a segment that is older as a whole ends the search.
        if latest_ms < wanted.since_unix_ms and int(path.stem) < below:
            break
    return found


def matching(directory: Path, index: int, wanted: Wanted, below: int = ALL) -> Iterator[Entry]:
    """All records from an index on that are wanted, oldest first."""
    for path, number, text in _texts(directory, index, below):
        if wanted.may_take(text):
            entry = _entry(path, number, text)
            if wanted.takes(entry.fields):
                yield entry


def event_of(text: bytes) -> str:
    """The event of a line, without taking it apart; empty: it is none of ours, as whoever takes it apart will find."""
    found = _EVENT.match(text)
    return found[2].decode() if found else ""


class Follower:
    """Goes through the ledger from an index on, and waits at its end without losing its place."""

    def __init__(self, directory: Path, index: int) -> None:
        self._directory = directory
        self._next = index
        self._path: Path | None = None
        self._offset = 0
        self._line = 0

    def read(self, below: int, limit: int = 500) -> list[Entry]:
        """What comes next of the first `below` records; empty: nothing yet."""
        found: list[Entry] = []
        while len(found) < limit and self._next < below:
            if (self._path is None or not self._has_next()) and not self._enter():
                break
            more = self._more(below, limit - len(found))
            if not more:
                break
            found += more
        return found

    def _has_next(self) -> bool:
        """Whether the next record is in the file where we are."""
        following = [path for path in segments(self._directory) if self._path and path.name > self._path.name]
        return not following or self._next < int(following[0].stem)

    def _enter(self) -> bool:
        path = _segment_of(self._directory, self._next)
        if path is None or path == self._path:
            return False
        self._path, self._offset, self._line = path, 0, 0
        for number, text in lines(path):
            if int(path.stem) + number - 1 >= self._next:
                break
            self._offset += len(text) + 1
            self._line = number
        return True

    def _more(self, below: int, limit: int) -> list[Entry]:
        assert self._path is not None  # noqa: S101 - entered
        found: list[Entry] = []
        with self._path.open("rb") as stream:
            stream.seek(self._offset)
            for text in stream:
                if len(found) == limit or self._next >= below or not text.endswith(b"\n"):
                    break
                self._line += 1
                found.append(_entry(self._path, self._line, text[:-1]))
                self._offset += len(text)
                self._next += 1
        return found


def _segment_of(directory: Path, index: int) -> Path | None:
    paths = segments(directory)
    place = bisect_right([int(path.stem) for path in paths], index)
    return paths[place - 1] if place else None


def _texts(directory: Path, index: int, below: int) -> Iterator[tuple[Path, int, bytes]]:
    """Segment, line number and text of each record from an index on."""
    first = _segment_of(directory, index)
    for path in segments(directory):
        if first is None or path.name < first.name:
            continue
        for number, text in lines(path):
            if index <= int(path.stem) + number - 1 < below:
                yield path, number, text


def _from(directory: Path, index: int) -> Iterator[Entry]:
    for path, number, text in _texts(directory, index, index + 1):
        yield _entry(path, number, text)


def _entry(path: Path, number: int, text: bytes) -> Entry:
    try:
        fields = read_line(text)
    except (ValueError, RecursionError) as error:
        raise StateError(f"{path}:{number}: expected a record, got {text[:80]!r}: {error}") from error
    index = int(path.stem) + number - 1
    if fields.get("index") != index:
        raise StateError(f"{path}:{number}: expected the record with index {index}, got {fields.get('index')!r}")
    return Entry(index, text, fields, path.name, number)
