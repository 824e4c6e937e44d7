"""Files of a plan on the client's side: its folder as it is named to the daemon, paths, and what a pattern means.

Source: SPEC.md, "Files of a plan".
"""

from __future__ import annotations

import fnmatch
import hashlib
import os
from collections.abc import Iterable, Mapping
from typing import Final, TypeAlias

from plugind_client.errors import InvalidRequest

Folder: TypeAlias = str | os.PathLike[str]
Files: TypeAlias = Mapping[str, bytes | os.PathLike[str]]
"""Path within the plan → content, or the path object of the file that has it."""

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
