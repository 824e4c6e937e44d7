"""Files of a plan on the client's side: its folder as it is named to the daemon, and files that go along with a run.

Without gRPC, so that the fakes in testing.py have it too.
Source: SPEC.md, "Files of a plan"; proto/plugind_proto/v1/runtime.proto, RunFiles.
"""

from __future__ import annotations

import fnmatch
import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias

from plugind_client.errors import Fault, InvalidRequest
from plugind_proto.v1 import runtime_pb2

Folder: TypeAlias = str | os.PathLike[str]
Files: TypeAlias = Mapping[str, bytes | os.PathLike[str]]
"""Path within the plan → content, or the path object of the file that has it."""

CHUNK_BYTES: Final = 1024 * 1024
"""Of a file, in one message."""
RESERVED: Final = ".plugind-"
"""How names begin that are plugind's own in a plan's folder; no pattern means them."""


def folder(given: Folder | None) -> str | None:
    """A plan's folder as the daemon wants it: absolute. Links in it are left to the daemon, which follows none.

    Raises:
        InvalidRequest: it is no path.
    """
    if given is None:
        return None
    path: object = os.fspath(given) if isinstance(given, os.PathLike) else given
    if not isinstance(path, str) or not path or "\0" in path:
        expected = "plan_dir: expected the plan's folder, a str or path object"
        raise InvalidRequest("INVALID_REQUEST", detail=f"{expected}, got {path!r:.200}")
    absolute = os.path.abspath(path)  # noqa: PTH100 - text in, text out, and no link resolved
    return f"/{absolute.lstrip('/')}"  # of two slashes in the beginning POSIX, and so abspath, keeps both


@dataclass(frozen=True, slots=True)
class Sent:
    """A run together with files: what RunFiles is asked."""

    run: runtime_pb2.RunRequest
    files: Mapping[str, bytes]

    def messages(self) -> Iterator[runtime_pb2.RunFilesRequest]:
        """The run, then each file in chunks."""
        yield runtime_pb2.RunFilesRequest(run=self.run)
        for path, content in self.files.items():
            for chunk in chunks(path, content):
                yield runtime_pb2.RunFilesRequest(file=chunk)


@dataclass(frozen=True, slots=True)
class Received:
    """What RunFiles answers: the run, and the contents of the files that came back."""

    run: runtime_pb2.RunResponse
    contents: Mapping[str, bytes]


def sent(run: runtime_pb2.RunRequest, files: object) -> Sent:
    """The request, with the contents of all Files: what cannot be read is told here, and not in the middle of a call.

    Raises:
        InvalidRequest: a path or a content is none.
        OSError: a file cannot be read.
    """
    if not isinstance(files, Mapping):
        expected = "files: expected a mapping of path to bytes or path object"
        raise InvalidRequest("INVALID_REQUEST", detail=f"{expected}, got {type(files).__name__}")
    return Sent(run, {_path(path): _content(path, given) for path, given in files.items()})


def _path(path: object) -> str:
    if isinstance(path, str) and is_path(path):
        return path
    detail = f"files: expected a path relative to the plan's folder, without empty, . or .. parts, got {path!r:.200}"
    raise InvalidRequest("INVALID_REQUEST", detail=detail)


def _content(path: str, given: object) -> bytes:
    if isinstance(given, bytes | bytearray | memoryview):
        return bytes(given)
    if isinstance(given, os.PathLike):
        return Path(given).read_bytes()
    detail = f"files: {path}: expected bytes, or a path object to read them from, got {type(given).__name__}"
    raise InvalidRequest("INVALID_REQUEST", detail=detail)


def chunks(path: str, content: bytes) -> Iterator[runtime_pb2.FileChunk]:
    """A file in parts; an empty one is one part."""
    for begin in range(0, len(content) or 1, CHUNK_BYTES):
        end = begin + CHUNK_BYTES
        yield runtime_pb2.FileChunk(path=path, data=content[begin:end], last=end >= len(content))


class Receiving:
    """Puts the messages of an answer together, one after the other."""

    def __init__(self) -> None:
        self._run: runtime_pb2.RunResponse | None = None
        self._contents: dict[str, bytes] = {}
        self._path, self._parts = "", bytearray()

    def take(self, message: runtime_pb2.RunFilesResponse) -> None:
        """The next message.

        Raises:
            Fault: it cannot come here.
        """
        if self._run is not None:
            raise Fault("BAD_ANSWER", detail="expected the response last, got another message after it")
        if message.HasField("run"):
            self._run = message.run
            return
        chunk = message.file
        if not is_path(chunk.path) or chunk.path in self._contents or (self._path and chunk.path != self._path):
            wanted = f"more of {self._path}" if self._path else "a file that has not come yet"
            raise Fault("BAD_ANSWER", detail=f"expected {wanted}, got {chunk.path!r:.200}")
        self._path = chunk.path
        self._parts += chunk.data
        if chunk.last:
            self._contents[self._path] = bytes(self._parts)
            self._path, self._parts = "", bytearray()

    def all(self) -> Received:
        """The answer as a whole.

        Raises:
            Fault: the response is missing, or the files are not those that it tells of.
        """
        if self._run is None or self._path:
            raise Fault("BAD_ANSWER", detail="expected all files and then the response, got an end before it")
        told = {each.path: (each.sha256, each.bytes) for each in self._run.files}
        came = {path: (digest(content), len(content)) for path, content in self._contents.items()}
        if told != came:
            differing = sorted(path for path in told.keys() | came.keys() if told.get(path) != came.get(path))
            raise Fault("BAD_ANSWER", detail=f"expected the files that the response tells of, {differing[0]!r} differs")
        return Received(self._run, self._contents)


def digest(content: bytes) -> str:
    """sha256 in hex."""
    return hashlib.sha256(content).hexdigest()


# --- what a pattern means: as in the daemon's planfiles.py ------------------------------------------------------------


def is_path(path: str) -> bool:
    """Whether this can be a file in a plan's folder. How long and how deep it may be, the daemon knows."""
    parts = path.split("/")
    safe = path.isprintable() and "\\" not in path
    return safe and not any(part in ("", ".", "..") or part.startswith(RESERVED) for part in parts)


def matches(path: str, patterns: Iterable[str]) -> bool:
    """Whether a path is meant by one of the patterns."""
    parts = path.split("/")
    return any(
        len(parts) == len(wanted) and all(map(part_matches, parts, wanted))
        for wanted in (pattern.split("/") for pattern in patterns)
    )


def part_matches(name: str, pattern: str) -> bool:
    """The same for one part of a path."""
    if name.startswith(RESERVED) or (name.startswith(".") and not pattern.startswith(".")):
        return False
    return fnmatch.fnmatchcase(name, pattern)
