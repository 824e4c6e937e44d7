"""One SQLite file: opened, checked, read by everybody, changed by one at a time.

Every change is one transaction that also writes the history, tells whoever keeps the audit, and raises the revision by
one. Reading has a connection of its own (WAL), so that nobody who only reads waits for a change to become durable.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from plugind.errors import StateError
from plugind.model import State

SCHEMA_VERSION: Final = 1
APPLICATION_ID: Final = 0x706C7567  # "plug"
RESERVE_BYTES: Final = 256 * 1024
"""Several times what a hold takes in the log of SQLite."""
TABLES: Final = """
CREATE TABLE plugins (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT NOT NULL UNIQUE
) STRICT;
CREATE TABLE versions (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    plugin INTEGER NOT NULL REFERENCES plugins (id),
    version TEXT NOT NULL,
    digest TEXT NOT NULL UNIQUE,
    sequence INTEGER NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('submitted', 'approved', 'active', 'retired', 'revoked')),
    tier INTEGER NOT NULL CHECK (tier IN (0, 1, 2)),
    manifest TEXT NOT NULL,
    attestations BLOB NOT NULL,
    approval TEXT,
    submitted_by_uid INTEGER NOT NULL,
    submitted_unix_ms INTEGER NOT NULL,
    UNIQUE (plugin, version)
) STRICT;
CREATE UNIQUE INDEX one_active ON versions (plugin) WHERE state = 'active';
CREATE TABLE votes (
    digest TEXT NOT NULL REFERENCES versions (digest),
    by_uid INTEGER NOT NULL,
    content TEXT NOT NULL,
    not_after_unix_ms INTEGER NOT NULL,
    PRIMARY KEY (digest, by_uid)
) STRICT, WITHOUT ROWID;
CREATE TABLE holds (
    kind TEXT NOT NULL,
    target TEXT NOT NULL,
    reason TEXT NOT NULL,
    by_uid INTEGER NOT NULL,
    at_unix_ms INTEGER NOT NULL,
    PRIMARY KEY (kind, target)
) STRICT, WITHOUT ROWID;
CREATE TABLE development_keys (
    raw BLOB PRIMARY KEY
) STRICT, WITHOUT ROWID;
CREATE TABLE history (
    revision INTEGER PRIMARY KEY,
    plugin_id TEXT NOT NULL,
    plugin TEXT NOT NULL,
    version TEXT NOT NULL,
    digest TEXT NOT NULL,
    action TEXT NOT NULL,
    state TEXT NOT NULL,
    by_uid INTEGER NOT NULL,
    at_unix_ms INTEGER NOT NULL,
    why TEXT NOT NULL,
    detail TEXT NOT NULL
) STRICT;
CREATE INDEX history_of_plugin ON history (plugin, revision);
"""
QUARANTINE_TABLES: Final = """
CREATE TABLE IF NOT EXISTS release_votes (
    digest TEXT NOT NULL REFERENCES versions (digest),
    by_uid INTEGER NOT NULL,
    stages TEXT NOT NULL,
    PRIMARY KEY (digest, by_uid)
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS probations (
    digest TEXT PRIMARY KEY REFERENCES versions (digest),
    stages TEXT NOT NULL,
    runs_left INTEGER NOT NULL,
    since_unix_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
"""
"""Made where they are missing: a registry of before there was quarantine gets them when it is opened."""


@dataclass(frozen=True, slots=True)
class Change:
    """One entry of the history. What a change is not about stays empty: a hold on everything has no plugin."""

    revision: int
    plugin_id: str
    plugin: str
    version: str
    digest: str
    action: str
    """submit, attest, approve, vote, reject, activate, retire, rollback, or the kind of a hold and its lifting."""
    state: State | str
    """Of the version after it."""
    by_uid: int
    at_unix_ms: int
    why: str
    detail: str
    """JSON: the approval as given, the target of a hold; or empty."""


OnChange = Callable[[Change], None]
"""Called within the transaction: when it raises, nothing has changed."""


class Database:
    """The file and its two connections. Raises StateError when it is damaged or somebody else's."""

    def __init__(self, path: Path, on_change: OnChange) -> None:
        self._path = path
        self._reserve = path.with_name(f"{path.name}-reserve")
        self._on_change = on_change
        self._write_lock = threading.Lock()
        self._read_lock = threading.Lock()
        self._writer = self._connect()
        try:
            with self._reported():
                self._prepare()
                self.revision = _revision(self._writer)
                """Number of the newest change, 0 at the beginning. This process makes all changes, so it knows."""
            self._reader = self._connect()
            self._set_aside()
        except BaseException:
            self._writer.close()
            raise

    def close(self) -> None:
        """Release the file."""
        with self._write_lock, self._read_lock:
            self._writer.close()
            self._reader.close()

    @contextmanager
    def changing(self) -> Iterator[sqlite3.Connection]:
        """A transaction, committed at the end, or rolled back by whatever is raised."""
        with self._write_lock, self._reported():
            self._writer.execute("BEGIN IMMEDIATE")
            try:
                yield self._writer
                self._writer.execute("COMMIT")
            except BaseException:
                if self._writer.in_transaction:
                    self._writer.execute("ROLLBACK")
                raise
            self.revision = _revision(self._writer)

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """What was committed last."""
        with self._read_lock, self._reported():
            yield self._reader

    def free_reserve(self) -> bool:
        """Give a full disk back what was set aside for the change that must not fail. Whether there was something."""
        try:
            self._reserve.unlink()
        except OSError:
            return False
        return True

    def _set_aside(self) -> None:
        """Where there is no room, or no such call, nothing is: the disk may never be full."""
        with contextlib.suppress(OSError), self._reserve.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, RESERVE_BYTES)

    def record(self, connection: sqlite3.Connection, change: Change) -> None:
        """Write a change into the history, under the next revision, and tell `on_change`."""
        values = (
            *(_revision(connection) + 1, change.plugin_id, change.plugin, change.version, change.digest),
            *(change.action, change.state, change.by_uid, change.at_unix_ms, change.why, change.detail),
        )
        connection.execute("INSERT INTO history VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", values)
        self._on_change(change)

    def _connect(self) -> sqlite3.Connection:
        with self._reported():
            connection = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False)
        connection.row_factory = sqlite3.Row
        return connection

    def _prepare(self) -> None:
        connection = self._writer
        found = connection.execute("PRAGMA application_id").fetchone()[0]
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        is_new = not connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]
        if not is_new and (found, version) != (APPLICATION_ID, SCHEMA_VERSION):
            raise StateError(
                f"{self._path}: expected a registry of plugind, schema version {SCHEMA_VERSION}, "
                f"got application {found:#x}, version {version}"
            )
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA foreign_keys = ON")
        if is_new:
            header = f"PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {SCHEMA_VERSION};"
            connection.executescript(f"BEGIN; {TABLES} {header} COMMIT;")
        connection.executescript(f"BEGIN; {QUARANTINE_TABLES} COMMIT;")
        damage = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
        if damage != "ok":
            raise StateError(f"{self._path}: expected an intact registry, got: {damage}")

    @contextmanager
    def _reported(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise StateError(f"{self._path}: expected a registry of plugind, got an error: {error}") from error


def _revision(connection: sqlite3.Connection) -> int:
    return int(connection.execute("SELECT coalesce(max(revision), 0) FROM history").fetchone()[0])
