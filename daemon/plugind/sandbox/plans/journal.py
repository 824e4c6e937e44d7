"""The journal of a staging: what is to become of which file, durable before the run has an outcome.

Device numbers are not in it: they can be others after the machine has started again.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

from plugind.errors import PlanError
from plugind.planfiles import path_problem

MOST_BYTES: Final = 4 * 1024 * 1024
_VERSION: Final = 1
_DIGEST: Final = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class State:
    """A file in one state. Without the time that a rename changes too (ctime): the digest says the rest."""

    inode: int
    bytes: int
    mtime_ns: int
    sha256: str
    mode: int

    def is_like(self, status: os.stat_result | None) -> bool:
        """Whether a file looks as if it were this one, unchanged, whatever its names. Its content may say otherwise."""
        return status is not None and (status.st_ino, status.st_size, status.st_mtime_ns) == (
            self.inode,
            self.bytes,
            self.mtime_ns,
        )


@dataclass(frozen=True, slots=True)
class Change:
    """What becomes of one file: replaced, made (nothing is there before) or taken away (nothing after)."""

    path: str
    name: str
    """Of the new file in the staging, and of the old one once they have changed places."""
    new: State | None
    old: State | None


@dataclass(frozen=True, slots=True)
class Made:
    """A folder that has to be made on the way to a file."""

    path: str
    name: str
    """Where it waits in the staging."""
    inode: int


@dataclass(frozen=True, slots=True)
class Journal:
    """All of it. Folders come before those within them."""

    run: str
    changes: tuple[Change, ...]
    folders: tuple[Made, ...]

    def encoded(self) -> bytes:
        """As it is written."""
        return json.dumps({"version": _VERSION, **asdict(self)}, separators=(",", ":")).encode()


def decode(data: bytes, run: str) -> Journal:
    """What was written. Raises PlanError "fault" for what is no journal of this run."""
    try:
        said = json.loads(data)
        if (said["version"], said["run"]) != (_VERSION, run):
            raise ValueError(f"version {said['version']!r}, run {said['run']!r:.80}")
        changes = tuple(_change(each) for each in said["changes"])
        folders = tuple(Made(_path(each), _name(each, "d"), _number(each["inode"])) for each in said["folders"])
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise PlanError(
            "fault", f"staging of {run}: expected its journal, got something else: {error!r:.200}"
        ) from error
    return Journal(run, changes, folders)


def _change(said: Mapping[str, Any]) -> Change:
    change = Change(_path(said), _name(said, "f"), _state(said["new"]), _state(said["old"]))
    if change.new is None and change.old is None:
        raise ValueError(f"{change.path}: neither new nor old")
    return change


def _state(said: Mapping[str, Any] | None) -> State | None:
    if said is None:
        return None
    if not _DIGEST.fullmatch(said["sha256"]):
        raise ValueError("no digest")
    numbers = [_number(said[name]) for name in ("inode", "bytes", "mtime_ns", "mode")]
    return State(numbers[0], numbers[1], numbers[2], said["sha256"], numbers[3])


def _path(said: Mapping[str, Any]) -> str:
    path = said["path"]
    if not isinstance(path, str) or (expected := path_problem(path)):
        raise ValueError(f"expected {expected if isinstance(path, str) else 'a text'}, got {path!r:.100}")
    return path


def _name(said: Mapping[str, Any], kind: str) -> str:
    name = said["name"]
    if not isinstance(name, str) or not re.fullmatch(rf"{kind}[0-9]{{1,6}}", name):
        raise ValueError(f"expected a name as {kind}0, got {name!r:.100}")
    return name


def _number(number: object) -> int:
    if type(number) is not int:
        raise ValueError(f"expected a number, got {number!r:.100}")
    return number
