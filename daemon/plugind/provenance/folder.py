"""A plugin's folder as its author keeps it → the files of the bundle."""

from __future__ import annotations

import fnmatch
import os
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from plugind.errors import InvalidBundleError
from plugind.provenance import grammar
from plugind.provenance.ustar import Member

IGNORED: Final = (
    ".*",  # .git, .venv, .vscode, editors' swap files
    "__pycache__",
    "*.pyc",
    "*.pyo",
    "*~",  # backups of Emacs and others
    "#*#",  # autosaves of Emacs
    "*.bak",
    "*.orig",
    "*.rej",
    "*.swp",
    "*.tmp",
    "*.egg-info",
    "*.plugin.tar",  # what `build` made here before
    "*.plugin.tar.intoto.jsonl",
)
"""Names that never enter a bundle, at any depth."""


@dataclass(slots=True)
class _Walk:
    root: Path
    max_files: int
    max_file_bytes: int
    files: dict[str, Member] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


def collect(folder: Path, *, max_files: int, max_file_bytes: int) -> dict[str, Member]:
    """Every regular file below, but for IGNORED, by its path. Raises InvalidBundleError with every problem.

    Links and special files are refused, not followed: what they lead to is not the author's folder.
    """
    if not folder.is_dir():
        got = "a file" if folder.exists() else "nothing"
        raise InvalidBundleError(f"{folder}: expected a plugin's folder, got {got}")
    walk = _Walk(folder, max_files, max_file_bytes)
    _enter(walk, "")
    if walk.problems:
        raise InvalidBundleError(*walk.problems)
    return walk.files


def is_ignored(name: str) -> bool:
    """Whether a file or folder of this name stays out."""
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in IGNORED)


def _enter(walk: _Walk, below: str) -> None:
    try:
        with os.scandir(walk.root / below) as entries:
            names = sorted(entry.name for entry in entries if not is_ignored(entry.name))
    except OSError as error:
        walk.problems.append(f"{below!a}: cannot be read: {error.strerror}")
        return
    for name in names:
        if len(walk.files) > walk.max_files:
            return
        _take(walk, below + name)


def _take(walk: _Walk, path: str) -> None:
    expected = grammar.bundle_path(path)
    if expected:
        walk.problems.append(f"{path!a}: expected {expected}")
        return
    try:
        status = os.lstat(walk.root / path)
        if stat.S_ISDIR(status.st_mode):
            _enter(walk, f"{path}/")
        elif stat.S_ISREG(status.st_mode):
            _read(walk, path)
        else:
            kind = "a symbolic link" if stat.S_ISLNK(status.st_mode) else "a special file"
            walk.problems.append(f"{path}: expected a regular file or a folder, got {kind}")
    except OSError as error:
        walk.problems.append(f"{path}: cannot be read: {error.strerror}")


def _read(walk: _Walk, path: str) -> None:
    if len(walk.files) >= walk.max_files:
        walk.problems.append(f"expected at most {walk.max_files} files, got more")
        walk.max_files = -1
        return
    # It may have been exchanged since lstat: no link is followed, and a fifo does not block.
    descriptor = os.open(walk.root / path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        data = file.read(walk.max_file_bytes + 1) if stat.S_ISREG(status.st_mode) else b""
    if not stat.S_ISREG(status.st_mode):
        walk.problems.append(f"{path}: expected a regular file, got a special file")
    elif len(data) > walk.max_file_bytes:
        walk.problems.append(f"{path}: expected at most {walk.max_file_bytes} bytes, got {status.st_size}")
    else:
        walk.files[path] = Member(path, data, executable=bool(status.st_mode & stat.S_IXUSR))
