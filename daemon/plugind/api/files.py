"""RunFiles: a run whose caller sends the files of its plan, and gets back what was written.

What comes is counted as it comes, of each stream, each caller and all together: it lies in memory until the run ends.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

from plugind.answers import RunAnswer
from plugind.api.runs import answer_message
from plugind.errors import InvalidRequestError
from plugind.model import Caller, Code, Reason
from plugind.planfiles import Entry, FileCeilings, file_and_folder, path_problem
from plugind_proto.v1 import runtime_pb2

CHUNK_BYTES: Final = 1024 * 1024
FIRST_S: Final = 5.0
FILES_S: Final = 60.0
"""So long all files of a request may take to come."""
MOST_BYTES: Final = 256 * 1024 * 1024
"""Of all requests that come or run; of one caller half of it."""
NO_ROOM: Final = Reason(
    Code.BUSY,
    "api.files",
    f"at most {MOST_BYTES} bytes of files in all requests at one time, {MOST_BYTES // 2} of one caller",
    "there are as many already",
    "send it again later",
)
Requests = AsyncIterator[runtime_pb2.RunFilesRequest]


class NoRoomError(Exception):
    """As many files are here as may be."""


class Room:
    """How much of them is here."""

    def __init__(self, most_bytes: int = MOST_BYTES) -> None:
        self._most = most_bytes
        self._of: Counter[int] = Counter()

    @property
    def used(self) -> int:
        """Bytes."""
        return self._of.total()

    @contextlib.contextmanager
    def one_more(self, caller: Caller) -> Iterator[Taken]:
        """What one request takes, given back when the block is left."""
        taken = Taken(self, caller.uid)
        try:
            yield taken
        finally:
            self._of[caller.uid] -= taken.bytes
            if not self._of[caller.uid]:
                del self._of[caller.uid]

    def take(self, uid: int, size: int) -> None:
        """Raises NoRoomError."""
        if self.used + size > self._most or self._of[uid] + size > self._most // 2:
            raise NoRoomError
        self._of[uid] += size


@dataclass(slots=True)
class Taken:
    """How much one request has taken."""

    room: Room
    uid: int
    bytes: int = 0

    def more(self, size: int) -> None:
        """Raises NoRoomError."""
        self.room.take(self.uid, size)
        self.bytes += size


@dataclass(slots=True)
class _Coming:
    """The files so far."""

    most: FileCeilings
    taken: Taken
    files: dict[str, Entry] = field(default_factory=dict)
    path: str = ""
    """Of the one that is not whole yet; empty: there is none."""
    parts: list[bytes] = field(default_factory=list)

    def add(self, chunk: runtime_pb2.FileChunk) -> None:
        """Raises InvalidRequestError, NoRoomError."""
        if self.path and chunk.path != self.path:
            raise InvalidRequestError(f"file.path: expected more of {self.path}, got {chunk.path[:80]!r}")
        if not self.path:
            self._begin(chunk.path)
        if len(chunk.data) > CHUNK_BYTES:
            raise InvalidRequestError(f"file.data: expected at most {CHUNK_BYTES} bytes, got {len(chunk.data)}")
        if self.taken.bytes + len(chunk.data) > self.most.read_bytes:
            raise InvalidRequestError(f"file: expected at most {self.most.read_bytes} bytes in all files, got more")
        self.taken.more(len(chunk.data))
        self.parts.append(chunk.data)
        if chunk.last:
            self.files[self.path] = Entry(self.path, b"".join(self.parts))
            self.path, self.parts = "", []

    def _begin(self, path: str) -> None:
        if problem := path_problem(path):
            raise InvalidRequestError(f"file.path: expected {problem}, got {path[:200]!r}")
        if path in self.files:
            raise InvalidRequestError(f"file.path: expected each file once, got {path} again")
        if len(self.files) >= self.most.read_files:
            raise InvalidRequestError(f"file: expected at most {self.most.read_files} files, got more")
        self.path = path


def ceilings_of(profiles: Iterable[FileCeilings]) -> FileCeilings:
    """What the tier with most may have: which tier it is, is known only when the request is whole."""
    most = list(profiles)
    return FileCeilings(
        read_files=max((each.read_files for each in most), default=0),
        read_bytes=max((each.read_bytes for each in most), default=0),
    )


async def received_run(requests: Requests) -> runtime_pb2.RunRequest:
    """The first message. Raises InvalidRequestError."""
    got = f"nothing for {FIRST_S:.0f} s"
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(FIRST_S):
            first = await anext(aiter(requests), None)
        if first is not None and first.WhichOneof("kind") == "run":
            if first.run.plan_dir:
                raise InvalidRequestError("run.plan_dir: expected nothing, the files come with the request; got some")
            return first.run
        got = "the end of the stream" if first is None else "a file, or nothing"
    raise InvalidRequestError(f"first message: expected the run, got {got}")


async def received_files(requests: Requests, most: FileCeilings, taken: Taken) -> tuple[Entry, ...]:
    """All that comes after it. Raises InvalidRequestError, NoRoomError."""
    coming = _Coming(most, taken)
    try:
        async with asyncio.timeout(FILES_S):
            async for request in requests:
                if request.WhichOneof("kind") != "file":
                    raise InvalidRequestError("message: expected a file, got another run, or nothing")
                coming.add(request.file)
    except TimeoutError:
        raise InvalidRequestError(f"files: expected all of them within {FILES_S:.0f} s, got no end") from None
    if coming.path:
        raise InvalidRequestError(f"file: expected a last part of {coming.path}, got the end of the stream")
    if both := file_and_folder(coming.files):
        raise InvalidRequestError(f"file.path: expected {both} to be a file or a folder, got both")
    return tuple(coming.files.values())


def responses(answer: RunAnswer) -> Iterator[runtime_pb2.RunFilesResponse]:
    """What was written, in chunks, and last how it ended."""
    for entry in answer.sent:
        content = entry.content or b""
        for start in range(0, max(len(content), 1), CHUNK_BYTES):
            end = start + CHUNK_BYTES
            chunk = runtime_pb2.FileChunk(path=entry.path, data=content[start:end], last=end >= len(content))
            yield runtime_pb2.RunFilesResponse(file=chunk)
    yield runtime_pb2.RunFilesResponse(run=answer_message(answer))
