"""The ledger: what may run is first written here, durably, and how it ended afterwards.

Whoever appends at the same time shares one fdatasync (group commit). A commit is, in this order: payloads, durably;
records, durably; the checkpoint; the journal; and only then the answers. Once a write has failed nothing is known
about the files' ends, so every later append is refused until the ledger is opened anew: it fails closed.
"""

from __future__ import annotations

import asyncio
import hashlib
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from plugind.audit import payloads
from plugind.audit.checkpoint import SYNC_S, Base, Checkpoint, CheckpointFile
from plugind.audit.journal import Committed, Journal
from plugind.audit.merkle import folded, leaf_hash
from plugind.audit.payloads import PackWriter, Places
from plugind.audit.records import Denied, Ended, Intent, Record, Started, Stored, line
from plugind.audit.segments import SEGMENT_BYTES, SegmentWriter, Tail, repair
from plugind.errors import AuditUnavailableError, StateError

_Waiter: TypeAlias = "tuple[asyncio.AbstractEventLoop, asyncio.Future[None]] | Future[None]"
_Payload: TypeAlias = tuple[Stored, bytes]
Listener: TypeAlias = "Callable[[Sequence[tuple[int, int, Record]]], None]"
"""Gets what has become durable: index, time in milliseconds since the epoch, and the record. Must not raise or wait."""


@dataclass(frozen=True, slots=True)
class _Entry:
    """A record on its way to the disk."""

    index: int
    time_unix_ms: int
    record: Record
    text: bytes


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


class _Files:
    """Everything that a commit writes. Used by one thread at a time; raises OSError."""

    def __init__(self, directory: Path, segment_bytes: int, tail: Tail, journal: Journal | None) -> None:
        self.listener: Listener | None = None
        self._segments = SegmentWriter(directory, segment_bytes)
        self._packs = PackWriter(directory)
        self._checkpoint = CheckpointFile(directory)
        self._frontier = tail.frontier
        self._base = tail.base
        self._open = {index for index, _ in tail.open_intents}
        self._payload_end = tail.payload_end
        self._journal = journal
        self.origin = tail.origin
        self.durable = (tail.frontier.size, tail.frontier.nodes)
        """Size and frontier of the tree over what is durable: replaced as one, so any thread may read it."""

    def commit(self, entries: Sequence[_Entry], kept: Sequence[_Payload]) -> None:
        """When this returns, the records and their payloads are durable."""
        self._packs.write(kept)
        self._segments.write(entries[0].index, b"".join(entry.text for entry in entries))
        if self._segments.first_index != self._base.size:
            size = self._frontier.size
            lowest_open = min(self._open, default=size)
            self._base = Base(size, self._frontier.nodes, lowest_open, self._payload_end)
        self._note(entries, kept)
        leaves = [leaf_hash(entry.text[:-1]) for entry in entries]
        for leaf in leaves:
            self._frontier.append(leaf)
        size, nodes = self.durable = (self._frontier.size, self._frontier.nodes)
        self._checkpoint.write(Checkpoint(self.origin, size, folded(nodes), self._base), len(entries))
        if self._journal:
            self._journal.put(
                [
                    Committed(self.origin, entry.index, entry.time_unix_ms, entry.record, leaf)
                    for entry, leaf in zip(entries, leaves, strict=True)
                ]
            )
        if self.listener:
            self.listener([(entry.index, entry.time_unix_ms, entry.record) for entry in entries])

    def _note(self, entries: Sequence[_Entry], kept: Sequence[_Payload]) -> None:
        """What the next segment's base has to say."""
        for entry in entries:
            match entry.record:
                case Intent():
                    self._open.add(entry.index)
                case Ended() | Denied():
                    self._open.discard(entry.record.intent)
        if kept:
            self._payload_end = kept[-1][0].end

    @property
    def late(self) -> bool:
        """Whether the checkpoint waits to be made durable."""
        return self._checkpoint.late

    def idle(self) -> None:
        """Nothing came for a while."""
        self._checkpoint.sync()

    def close(self) -> None:
        """Close them as they are."""
        self._segments.close()
        self._packs.close()
        self._checkpoint.close()


class Ledger:
    """Append-only records, each with its index. Safe from any thread and event loop; one thread writes the files."""

    def __init__(self, files: _Files, next_index: int, places: Places, journal: Journal | None) -> None:
        self._files = files
        self._next_index = next_index
        self._places = places
        self._journal = journal
        self._changed = threading.Condition()  # guards all below
        self._waiting: list[_Entry] = []
        self._waiters: list[_Waiter] = []
        self._kept: list[_Payload] = []
        self._failure = ""
        self._closing = False
        self._waking = False
        self._thread = threading.Thread(target=self._work, name="ledger", daemon=True)
        self._thread.start()

    @classmethod
    def open(
        cls, directory: Path, mode: str, segment_bytes: int = SEGMENT_BYTES, journal: Journal | None = None
    ) -> tuple[Ledger, Tail]:
        """Repair the end, close open INTENTs as unknown, and note the START. Blocks.

        Raises StateError where records are damaged or missing, AuditUnavailableError where nothing can be written.
        """
        try:
            tail = repair(directory)
            if not tail.next_index and (left := payloads.packs(directory)):
                raise StateError(f"{left[0]}: expected no payloads beside a ledger without records, got some")
            cut_bytes = tail.cut_bytes + payloads.repair(directory, tail.payload_end)
            files = _Files(directory, segment_bytes, tail, journal)
        except OSError as error:
            raise AuditUnavailableError(f"the ledger in {directory} cannot be written: {error}") from error
        now_ms = _now_ms()
        first: list[Record] = [
            Ended(intent, subject, "unknown", "the daemon ended before the run did")
            for intent, subject in tail.open_intents
        ]
        first.append(Started(mode, len(tail.open_intents), cut_bytes))
        entries = [
            _Entry(index, now_ms, record, line(index, now_ms, record))
            for index, record in enumerate(first, tail.next_index)
        ]
        try:
            files.commit(entries, ())
            files.idle()
        except OSError as error:
            files.close()
            raise AuditUnavailableError(f"the ledger in {directory} cannot be written: {error}") from error
        return cls(files, tail.next_index + len(entries), Places(tail.payload_end), journal), tail

    def listen(self, listener: Listener) -> None:
        """Tell it of every record from now on, in order, in the writing thread, before whoever appended is answered."""
        self._files.listener = listener

    @property
    def failure(self) -> str:
        """Why nothing can be written any more; empty as long as it can."""
        return self._failure

    @property
    def origin(self) -> str:
        """The log's own name, made once: "plugind/" and 32 hex digits."""
        return self._files.origin

    @property
    def size(self) -> int:
        """How many records are durable."""
        return self._files.durable[0]

    def root(self) -> bytes:
        """The Merkle root over the durable records."""
        return folded(self._files.durable[1])

    def keep(self, data: bytes) -> Stored:
        """Store a payload: durable together with the next record, so keep it before the record that refers to it."""
        return self.keep_file(data) if data else Stored()

    def keep_file(self, data: bytes) -> Stored:
        """The same of a file of a plan: an empty one is one all the same, with a digest and a place."""
        digest = hashlib.sha256(data).hexdigest()
        with self._changed:
            if self._failure or self._closing:
                return Stored(digest, len(data))
            stored, new = self._places.take(digest, len(data))
            if new:
                self._kept.append((stored, data))
            return stored

    async def append(self, record: Record) -> int:
        """Write one record; its index. It is durable when this returns. Raises AuditUnavailableError.

        Indexes follow the order of the calls. A caller that is cancelled while it waits leaves its record in place.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        index = self._enter(record, (loop, future))
        if not self._waking:
            # Not at once: everybody else who is about to append now shares this commit.
            self._waking = True
            loop.call_soon(self._wake)
        await future
        return index

    def append_from_thread(self, record: Record) -> int:
        """The same for a thread without an event loop: it blocks. Raises AuditUnavailableError."""
        waiter: Future[None] = Future()
        index = self._enter(record, waiter)
        self._wake()
        waiter.result()
        return index

    def _enter(self, record: Record, waiter: _Waiter) -> int:
        with self._changed:
            if self._failure or self._closing:
                raise AuditUnavailableError(f"the ledger cannot be written: {self._failure or 'it is closed'}")
            index, now_ms = self._next_index, _now_ms()
            self._waiting.append(_Entry(index, now_ms, record, line(index, now_ms, record)))
            self._waiters.append(waiter)
            self._next_index += 1
            return index

    def _wake(self) -> None:
        self._waking = False
        with self._changed:
            self._changed.notify()

    def _work(self) -> None:
        """The writing thread."""
        while True:
            with self._changed:
                if not self._waiting and not self._closing:
                    self._changed.wait(SYNC_S if self._files.late else None)
                entries, self._waiting = self._waiting, []
                waiters, self._waiters = self._waiters, []
                kept, self._kept = (self._kept, []) if entries else ([], self._kept)
                if not entries and self._closing:
                    break
            why = self._commit(entries, kept)
            if why:
                self._break(why)
            _answer(waiters, why)
            if self._failure:
                break
        self._end()

    def _commit(self, entries: Sequence[_Entry], kept: Sequence[_Payload]) -> str:
        """Why it could not be written, or nothing."""
        try:
            if entries:
                self._files.commit(entries, kept)
            elif self._files.late:
                self._files.idle()
        except Exception as error:  # noqa: BLE001 - whatever it is, nothing is known about the files any more
            return str(error) or repr(error)
        return ""

    def _break(self, why: str) -> None:
        with self._changed:
            self._failure = why
            waiters, self._waiters = self._waiters, []
            self._waiting, self._kept = [], []
        _answer(waiters, why)

    def _end(self) -> None:
        try:
            if self._files.late and not self._failure:
                self._files.idle()
        except OSError as error:
            self._failure = str(error)
        self._files.close()

    async def close(self) -> None:
        """Wait for what is being written, close the files, and send what the journal still waits for."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        await asyncio.to_thread(self._thread.join)
        self._failure = self._failure or "it was closed"
        if self._journal:
            await asyncio.to_thread(self._journal.close)


def _answer(waiters: Sequence[_Waiter], why: str) -> None:
    """Tell who waits: all of one event loop at once."""
    loops: dict[asyncio.AbstractEventLoop, list[asyncio.Future[None]]] = {}
    for waiter in waiters:
        if isinstance(waiter, Future):
            _resolve([waiter], why)
        else:
            loops.setdefault(waiter[0], []).append(waiter[1])
    for loop, futures in loops.items():
        try:
            loop.call_soon_threadsafe(_resolve, futures, why)
        except RuntimeError:  # that loop is closed: nobody waits any more
            pass


def _resolve(futures: Sequence[asyncio.Future[None] | Future[None]], why: str) -> None:
    for future in futures:
        if future.done():
            continue
        if why:
            future.set_exception(AuditUnavailableError(f"the ledger cannot be written: {why}"))
        else:
            future.set_result(None)
