"""The offline kill: a file that root writes beside the state folder, and the launcher obeys, whatever the front says.

For when the front hangs or is not trusted any more. The file lies beside the folder and not in it: what the front may
write it could take away. JSON: a list of {"target", "reason", "at_unix_ms", "named"}; a target is "all", "tier:N" or a
sha256 in hex.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from plugind.errors import ConfigError

ALL: Final = "all"
_TARGET = re.compile(r"all|tier:[012]|[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Kill:
    """One entry."""

    target: str
    reason: str
    at_unix_ms: int
    named: str = ""
    """What was asked for, where this digest was found for it: a plugin, a key, a package."""


def path_of(state: Path) -> Path:
    """Where the latch of a state folder lies."""
    return state.with_name(f"{state.name}.killed")


def read(path: Path) -> tuple[Kill, ...]:
    """The kills in force; none without the file. Raises ConfigError, OSError."""
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        return ()
    try:
        kills = tuple(Kill(**entry) for entry in json.loads(text))
    except (ValueError, TypeError, RecursionError) as error:
        raise ConfigError(f"{path}: expected a list of kills, got something else: {error}") from error
    for kill in kills:
        if not _TARGET.fullmatch(str(kill.target)):
            raise ConfigError(f"{path}: target: expected all, tier:N or a sha256 in hex, got {kill.target!r:.80}")
    return kills


def write(path: Path, kills: tuple[Kill, ...]) -> None:
    """Put these in force, and no others; without any the file goes. Durable. Raises OSError."""
    if not kills:
        path.unlink(missing_ok=True)
        return
    new = path.with_name(f"{path.name}.new")
    new.unlink(missing_ok=True)
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
    with open(descriptor, "w", encoding="utf-8") as stream:
        json.dump([dataclasses.asdict(kill) for kill in kills], stream, indent=1)
        stream.flush()
        os.fsync(descriptor)
    new.replace(path)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


class Latch:
    """The latch as the launcher sees it, read again whenever it has changed. One that cannot be read kills all."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._mark: tuple[int, int, int] | None = None
        self._targets: dict[str, str] = {}

    def reason(self, digest: str, tier: int) -> str:
        """Why this digest may not run in this tier; empty: it may."""
        return next((self._targets[each] for each in (ALL, f"tier:{tier}", digest) if each in self._targets), "")

    def look(self) -> bool:
        """Read it again if it has changed; whether it has."""
        mark = self._stat()
        if mark == self._mark:
            return False
        self._mark = mark
        try:
            self._targets = {kill.target: f"killed offline: {kill.reason}" for kill in read(self._path)}
        except (ConfigError, OSError) as error:
            self._targets = {ALL: f"the latch cannot be read: {error}"}
        return True

    def _stat(self) -> tuple[int, int, int] | None:
        try:
            status = os.lstat(self._path)
        except FileNotFoundError:
            return None
        except OSError:
            return (-1, -1, -1)
        return (status.st_ino, status.st_mtime_ns, status.st_size)
