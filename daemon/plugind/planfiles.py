"""Files of a plan as values: which paths there can be, what a pattern matches, and how many of them travel together.

Pure. The front, the launcher, the plan helper and the collector all go by what is said here.
Source: SPEC.md, section "Files of a plan".
"""

from __future__ import annotations

import fnmatch
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from plugind.errors import InvalidRequestError

PLAN_DIR: Final = "/grant/read/plan"
"""Where a plugin finds the files that it may read; `context.plan_dir`."""
OUTPUT_DIR: Final = "/grant/write/output"
"""Where a plugin writes; `context.output_dir`."""
RESERVED: Final = ".plugind-"
"""How the names begin that are ours in a plan's folder; no pattern matches them."""
LEARNED: Final = ".learned.plugind"
"""In the output folder of a run that learns: what it tried to open, one JSON object a line."""
MAX_PATH_BYTES: Final = 1024
MAX_NAME_BYTES: Final = 255
MAX_DEPTH: Final = 8
MAX_INDEX_BYTES: Final = 4 * 1024 * 1024
"""Of the index of a set of files, whatever their number."""

MOST_ROOTS: Final = 64
"""Folders that a policy may name, below which plans lie."""


def is_root(path: str) -> bool:
    """Whether this can be a folder below which plans lie, or a plan's: absolute, and nothing to resolve in it."""
    parts = path.split("/")
    return not parts[0] and len(parts) > 1 and not any(part in ("", ".", "..") or "\0" in part for part in parts[1:])


def root_of(plan_dir: str, roots: Iterable[str]) -> str:
    """The folder of `roots` that a plan's folder is below, the nearest one; empty: none."""
    above = [root for root in roots if is_root(plan_dir) and plan_dir.startswith(f"{root}/")]
    return max(above, key=len, default="")


def path_problem(path: str) -> str:
    """What is expected instead of this path of a file in a plan's folder; empty: it is one."""
    parts = path.split("/")
    if not path or not path.isprintable() or "\\" in path:
        return "a path that is printable and has no backslash"
    if any(part in ("", ".", "..") for part in parts):
        return "a path relative to the plan's folder, without empty, . or .. parts"
    if len(parts) > MAX_DEPTH:
        return f"at most {MAX_DEPTH} parts"
    if len(path.encode()) > MAX_PATH_BYTES or any(len(part.encode()) > MAX_NAME_BYTES for part in parts):
        return f"at most {MAX_PATH_BYTES} bytes, {MAX_NAME_BYTES} for each part"
    return f"no part that begins with {RESERVED}" if any(part.startswith(RESERVED) for part in parts) else ""


def matches(path: str, patterns: Iterable[str]) -> bool:
    """Whether a path is meant by one of the patterns.

    `*`, `?` and `[]` stand for characters of one part; a part that begins with a dot is meant only by one that does.
    """
    parts = path.split("/")
    return any(_matches(parts, pattern.split("/")) for pattern in patterns)


def _matches(parts: Sequence[str], pattern: Sequence[str]) -> bool:
    return len(parts) == len(pattern) and all(map(part_matches, parts, pattern))


def part_matches(name: str, pattern: str) -> bool:
    """The same for one part of a path."""
    if name.startswith(RESERVED) or (name.startswith(".") and not pattern.startswith(".")):
        return False
    return fnmatch.fnmatchcase(name, pattern)


@dataclass(frozen=True, slots=True)
class Entry:
    """One file of a set. Without content it only says something of the file: see `mark` and `problem`."""

    path: str
    content: bytes | None = None
    mark: str = ""
    """Which file it is and in which state, as its file system tells; equal marks: the same file, unchanged."""
    problem: str = ""
    """Why it was not taken: "symlink", "fifo", "hard link", "sparse", …"""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """What else there is to say of it, by those who agree on it."""


def pack(entries: Sequence[Entry], facts: Mapping[str, Any] | None = None) -> bytes:
    """A set of files, and what is to be said of it as a whole, as bytes: index length (4 bytes), index, contents."""
    listed = [
        {
            "path": entry.path,
            "bytes": -1 if entry.content is None else len(entry.content),
            "mark": entry.mark,
            "problem": entry.problem,
            "facts": dict(entry.facts),
        }
        for entry in entries
    ]
    index = json.dumps({"facts": dict(facts or {}), "files": listed}, separators=(",", ":")).encode()
    contents = (entry.content for entry in entries if entry.content is not None)
    return b"".join((len(index).to_bytes(4, "big"), index, *contents))


def unpack(data: bytes, most_files: int, most_bytes: int) -> tuple[list[Entry], dict[str, Any]]:
    """The set again, with every path checked and none twice. Raises InvalidRequestError.

    `most_files` counts all entries, `most_bytes` all contents.
    """
    size = int.from_bytes(data[:4], "big")
    if len(data) < 4 + size or size > MAX_INDEX_BYTES:
        raise InvalidRequestError(f"files: expected an index of at most {MAX_INDEX_BYTES} bytes, got {len(data)} bytes")
    try:
        index = json.loads(data[4 : 4 + size].decode())
        listed = [
            (each["path"], each["bytes"], each["mark"], each["problem"], each["facts"]) for each in index["files"]
        ]
        facts = index["facts"]
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise InvalidRequestError(f"files: expected an index, got something else: {error!r:.200}") from error
    if len(listed) > most_files:
        raise InvalidRequestError(f"files: expected at most {most_files}, got {len(listed)}")
    entries: dict[str, Entry] = {}
    offset = 4 + size
    for path, length, mark, problem, said in listed:
        _check(path, length, mark, problem, said)
        if path in entries:
            raise InvalidRequestError(f"files: expected each path once, got {path!r} again")
        content = None if length < 0 else data[offset : offset + length]
        offset += max(0, length)
        entries[path] = Entry(path, content, mark, problem, said)
    if offset != len(data) or offset - 4 - size > most_bytes or not isinstance(facts, dict):
        raise InvalidRequestError(
            f"files: expected contents of {offset - 4 - size} bytes, at most {most_bytes}, got {len(data) - 4 - size}"
        )
    return list(entries.values()), facts


def _check(path: object, length: object, mark: object, problem: object, facts: object) -> None:
    if not isinstance(path, str) or (expected := path_problem(path)):
        expected = expected if isinstance(path, str) else "a text"
        raise InvalidRequestError(f"files: path: expected {expected}, got {path!r:.200}")
    if type(length) is not int or not -1 <= length < 2**40:
        raise InvalidRequestError(f"files: {path}: expected a size in bytes or -1, got {length!r:.80}")
    if not isinstance(mark, str) or not isinstance(problem, str) or not isinstance(facts, dict):
        raise InvalidRequestError(f"files: {path}: expected mark, problem and facts, got something else")


@dataclass(frozen=True, slots=True)
class FileCeilings:
    """`[files]` of a profile: what a run of the tier may have of a plan's files. All zero: nothing."""

    read_files: int = 0
    read_bytes: int = 0
    write_files: int = 0
    write_bytes: int = 0


LEARNING: Final = FileCeilings(write_files=64, write_bytes=16 * 1024 * 1024)
"""What a run that learns, in a development daemon, may leave in a tier that writes no files: nothing of it is kept."""


@dataclass(frozen=True, slots=True)
class Written:
    """A file that a run, or its undoing, put into a plan. Digests: sha256 in hex; empty: there is none."""

    path: str
    sha256: str
    bytes: int
    replaced_sha256: str = ""
    replaced_bytes: int = 0


def folders_of(paths: Iterable[str]) -> set[str]:
    """Every folder on the way to one of these files."""
    found: set[str] = set()
    for path in paths:
        while (path := path.rpartition("/")[0]) and path not in found:
            found.add(path)
    return found


def file_and_folder(paths: Iterable[str]) -> str:
    """A path that is a file and a folder on the way to another one; empty: there is none."""
    given = set(paths)
    return min(given & folders_of(given), default="")


PLAN_CODES: Final = ("root", "caller", "open", "denied", "file", "large", "deadline", "busy", "conflict", "fault")
"""Not below a plan root; the caller is not who it was, or sees other files; no such folder; the caller may not open it;
a file that nobody takes; too many or too large; it took too long; too many folders that take long; somebody else has
changed it meanwhile; a mistake of ours or the machine's. Codes of PlanError."""
