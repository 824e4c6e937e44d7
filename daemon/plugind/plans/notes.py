"""Changes of plans that are under way, where a crash finds them: STATE/commits/NAME.json, one file for each.

A file is there, durably, before anything is staged in a plan's folder, and goes when that is decided, recorded and
cleaned up.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from plugind.config import log
from plugind.errors import PlanError

_NAME: Final = re.compile(r"log_\d{1,18}-[0-9a-f]{8}")
_MOST_BYTES: Final = 64 * 1024
_KINDS: Final = {"str": str, "int": int, "bool": bool}


@dataclass(frozen=True, slots=True)
class Change:
    """What a run, or the undoing of one, is about to change in a plan's folder."""

    name: str
    """Its own, which its staging folder has too: see `name_of`."""
    of: int
    """The INTENT of the run, or the record that a RESTORE is about (its `of`)."""
    since: int
    """The ledger says nothing about it before the record with this index."""
    restores: bool
    """Whether a RESTORE is what decides, and not the run's OUTCOME."""
    run: str
    plan_dir: str
    plan_id: str
    caller_uid: int
    caller_gid: int
    plugin_id: str
    plugin: str
    version: str


def name_of(index: int) -> str:
    """A name for a change that belongs to a record. Another daemon may have one like that in the same folder."""
    return f"log_{index}-{secrets.token_hex(4)}"


class CommitLog:
    """The files of one state folder. Every method blocks."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def write(self, change: Change) -> None:
        """It is durable when this returns. Raises PlanError "fault": nothing is there."""
        path, new = self._path(change.name), self._folder / f"{change.name}.new"
        try:
            descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            with os.fdopen(descriptor, "wb") as stream:
                stream.write(json.dumps(dataclasses.asdict(change)).encode())
                stream.flush()
                os.fsync(descriptor)
            new.rename(path)
            self._sync()
        except OSError as error:
            raise PlanError("fault", f"{path}: what is about to change in a plan cannot be noted: {error}") from error

    def remove(self, name: str) -> None:
        """It is over. Where a crash brings the file back, the ledger says so again. Raises OSError."""
        self._path(name).unlink(missing_ok=True)

    def load(self) -> list[Change]:
        """All that an earlier daemon left, oldest first. A file that is none of ours is named in the log, and stays."""
        found = []
        for path in sorted(self._folder.iterdir()):
            if path.suffix == ".new":
                path.unlink()  # it was never whole, and nothing was staged for it
                continue
            try:
                found.append(_change(path))
            except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
                log(f"{path}: expected a change of a plan's files, which is to be ended, got {error!r:.300}")
        return sorted(found, key=lambda change: (change.since, change.name))

    def _path(self, name: str) -> Path:
        return self._folder / f"{name}.json"

    def _sync(self) -> None:
        descriptor = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _change(path: Path) -> Change:
    """Raises OSError, ValueError, TypeError, KeyError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    with os.fdopen(descriptor, "rb") as stream:
        fields: dict[str, Any] = json.loads(stream.read(_MOST_BYTES).decode())
    change = Change(**fields)
    for field in dataclasses.fields(Change):
        kind, value = _KINDS[str(field.type)], getattr(change, field.name)
        if type(value) is not kind:
            raise ValueError(f"{field.name}: expected {kind.__name__}, got {value!r:.80}")
    if _NAME.fullmatch(change.name) is None or path.stem != change.name:
        raise ValueError(f"name: expected {path.stem}, got {change.name!r:.80}")
    return change
