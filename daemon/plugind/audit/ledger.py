"""The ledger: what may run is first written here, durably, and how it ended afterwards.

Callers that append at the same time share one fdatasync (group commit). Once a write has failed nothing is known
about the file's end, so every later append is refused until the ledger is opened anew: it fails closed.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from plugind.audit.records import Ended, Record, Started, line
from plugind.audit.segments import SEGMENT_BYTES, SegmentWriter, Tail, repair
from plugind.errors import AuditUnavailableError


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


class Ledger:
    """Append-only records, each with its index. Used from one event loop; files are written by one thread."""

    def __init__(self, writer: SegmentWriter, next_index: int, now_ms: Callable[[], int] = _now_ms) -> None:
        self._writer = writer
        self._next_index = next_index
        self._now_ms = now_ms
        self._thread = ThreadPoolExecutor(1, "ledger")
        self._waiting: list[tuple[int, bytes, asyncio.Future[None]]] = []
        self._committer: asyncio.Task[None] | None = None
        self._failure = ""

    @classmethod
    def open(cls, directory: Path, mode: str, segment_bytes: int = SEGMENT_BYTES) -> tuple[Ledger, Tail]:
        """Repair the end, close open INTENTs as unknown, and note the START. Blocks.

        Raises StateError where records are damaged, AuditUnavailableError where nothing can be written.
        """
        try:
            tail = repair(directory)
            writer = SegmentWriter(directory, segment_bytes)
            closing = (
                Ended(intent, run, "unknown", "the daemon ended before the run did")
                for intent, run in tail.open_intents
            )
            started = Started(mode, len(tail.open_intents), tail.cut_bytes)
            now_ms = _now_ms()
            records: tuple[Record, ...] = (*closing, started)
            lines = [line(index, now_ms, record) for index, record in enumerate(records, tail.next_index)]
            writer.write(tail.next_index, b"".join(lines))
        except OSError as error:
            raise AuditUnavailableError(f"the ledger in {directory} cannot be written: {error}") from error
        return cls(writer, tail.next_index + len(lines)), tail

    @property
    def failure(self) -> str:
        """Why nothing can be written any more; empty as long as it can."""
        return self._failure

    async def append(self, record: Record) -> int:
        """Write one record; its index. It is durable when this returns. Raises AuditUnavailableError.

        Indexes follow the order of the calls. A caller that is cancelled while it waits leaves its record in place.
        """
        self._refuse_if_broken()
        loop = asyncio.get_running_loop()
        index = self._next_index
        text = line(index, self._now_ms(), record)
        self._next_index += 1
        future = loop.create_future()
        self._waiting.append((index, text, future))
        if self._committer is None:
            self._committer = loop.create_task(self._commit())
        await future
        return index

    def _refuse_if_broken(self) -> None:
        if self._failure:
            raise AuditUnavailableError(f"the ledger cannot be written: {self._failure}")

    async def _commit(self) -> None:
        loop = asyncio.get_running_loop()
        while self._waiting:
            batch, self._waiting = self._waiting, []
            data = b"".join(text for _, text, _ in batch)
            try:
                await loop.run_in_executor(self._thread, self._writer.write, batch[0][0], data)
            except OSError as error:
                self._break(str(error), batch)
                break
            for _, _, future in batch:
                if not future.done():
                    future.set_result(None)
        self._committer = None

    def _break(self, why: str, batch: list[tuple[int, bytes, asyncio.Future[None]]]) -> None:
        self._failure = why
        for _, _, future in [*batch, *self._waiting]:
            if not future.done():
                future.set_exception(AuditUnavailableError(f"the ledger cannot be written: {why}"))
        self._waiting = []

    async def close(self) -> None:
        """Wait for what is being written, and close the files."""
        if self._committer is not None:
            await asyncio.wait([self._committer])
        self._thread.shutdown()
        self._writer.close()
        self._failure = self._failure or "it was closed"
