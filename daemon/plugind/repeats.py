"""Requests that carry an idempotency key: the same one again gives the same answer, and nothing runs twice.

Kept in memory: a key is known for a quarter of an hour, and while the daemon runs. What did not run to an end of its
own is not kept: to send it again is what a key is for.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections import OrderedDict
from collections.abc import Coroutine
from dataclasses import dataclass, field, replace
from typing import Any, Final, Protocol

from plugind.answers import RunAnswer, RunRequest
from plugind.batch import ColumnAnswer, ItemError
from plugind.errors import ConflictError
from plugind.model import Caller, Outcome
from plugind.planfiles import Entry

KEPT_S: Final = 900.0
MOST_KEYS: Final = 4096
MOST_BYTES: Final = 64 * 1024 * 1024
"""Of the outputs that are kept; the oldest go first."""
_ERROR_BYTES: Final = 512
_NOT_KEPT: Final = frozenset({Outcome.CANCELED, Outcome.KILLED, Outcome.FAULT, Outcome.UNKNOWN})

_Key = tuple[int, str]


@dataclass(slots=True)
class _Known:
    digest: bytes
    life: asyncio.Task[RunAnswer]
    waiting: int = 0
    size_bytes: int = 0
    since: float = field(default_factory=time.monotonic)


class Runs(Protocol):
    """A runner, as far as this needs one."""

    def run(self, request: RunRequest) -> Coroutine[Any, Any, RunAnswer]:
        """One run. Cancelling it ends the instance."""
        ...


class Repeats:
    """The keys of each caller (uid)."""

    def __init__(self, runs: Runs) -> None:
        self._runs = runs
        self._known: OrderedDict[_Key, _Known] = OrderedDict()
        self._size_bytes = 0

    async def run(self, request: RunRequest, key: str) -> RunAnswer:
        """The answer of the first request with this key. The instance ends when nobody waits for it any more.

        Raises ConflictError when that was another request.
        """
        # Whoever sends it again may wait for longer than who came first. Canceling ends it all the same.
        request = replace(request, deadline=None)
        place = (request.caller.uid, key)
        digest = await asyncio.to_thread(_digest, request) if request.files else _digest(request)
        known = self._known_as(place, digest)
        if known is None:
            known = _Known(digest, asyncio.ensure_future(self._runs.run(request)))
            self._known[place] = known
            known.life.add_done_callback(lambda life: self._ended(place, life))
        known.waiting += 1
        try:
            return await asyncio.shield(known.life)
        finally:
            known.waiting -= 1
            if not known.waiting and not known.life.done():
                known.life.cancel()
                self._forget(place)

    def _known_as(self, place: _Key, digest: bytes) -> _Known | None:
        known = self._known.get(place)
        if known is not None and known.life.done() and time.monotonic() - known.since > KEPT_S:
            self._forget(place)
            return None
        if known is not None and known.digest != digest:
            raise ConflictError(
                f"idempotency_key: {place[1]} belongs to another request: expected the same content, or a new key"
            )
        return known

    def _ended(self, place: _Key, life: asyncio.Task[RunAnswer]) -> None:
        known = self._known.get(place)
        if known is None or known.life is not life:
            return
        if life.cancelled() or life.exception() is not None or not _worth_keeping(life.result()):
            self._forget(place)
            return
        known.since = time.monotonic()
        answer = life.result()
        known.size_bytes = _size_bytes(answer)
        self._size_bytes += known.size_bytes
        self._make_room()

    def _make_room(self) -> None:
        for place, known in list(self._known.items()):
            if len(self._known) <= MOST_KEYS and self._size_bytes <= MOST_BYTES:
                return
            if known.life.done():
                self._forget(place)

    def _forget(self, place: _Key) -> None:
        known = self._known.pop(place, None)
        if known is not None:
            self._size_bytes -= known.size_bytes


def _size_bytes(answer: RunAnswer) -> int:
    """About what is kept of it. Of a map: its batch, and what came of each item and of each row that failed."""
    errors = sum(isinstance(item, ItemError) for item in answer.items)
    errors += sum(len(item.errors) for item in answer.items if isinstance(item, ColumnAnswer))
    kept = 2 if answer.items else 1
    sent = sum(len(entry.content or b"") for entry in answer.sent)
    return sent + kept * len(answer.output_json) + len(answer.stdout) + len(answer.stderr) + errors * _ERROR_BYTES


def _worth_keeping(answer: RunAnswer) -> bool:
    return answer.outcome is not None and answer.outcome not in _NOT_KEPT


def _digest(request: RunRequest) -> bytes:
    """Of all that a request says, but for its name, and for the caller's process, which may have been started anew."""
    said = repr(replace(request, caller=Caller(0, 0, 0), input=b"", items=(), files=None, run_id=""))
    by = repr((request.caller.uid, request.caller.gid, sorted(request.caller.roles)))
    files = None if request.files is None else sorted(map(_said, request.files))
    return hashlib.sha256(f"{by}{said}{files}\0".encode() + request.input).digest()


def _said(file: Entry) -> tuple[str, str]:
    return file.path, hashlib.sha256(file.content or b"").hexdigest()
