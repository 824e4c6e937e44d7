"""What the monitor knows and people decided about it, in one SQLite file beside the registry.

What the monitor knows can be made anew from the ledger; what people said of it (votes for a release, how incidents were
closed) has records there too.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from plugind.errors import StateError

SCHEMA_VERSION: Final = 2
WAIT_S: Final = 1.0
"""So long a change waits for another one of this daemon's."""
APPLICATION_ID: Final = 0x706C676D  # "plgm"
TABLES: Final = """
CREATE TABLE progress (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    next_index INTEGER NOT NULL
) STRICT;
CREATE TABLE statistics (
    digest TEXT PRIMARY KEY,
    body TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE anomalies (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    digest TEXT NOT NULL,
    plugin TEXT NOT NULL,
    at_unix_ms INTEGER NOT NULL,
    body TEXT NOT NULL
) STRICT;
CREATE INDEX anomalies_of_digest ON anomalies (digest, id);
CREATE TABLE incidents (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    severity TEXT NOT NULL,
    title TEXT NOT NULL,
    cause TEXT NOT NULL,
    plugin_id TEXT NOT NULL,
    plugin TEXT NOT NULL,
    version TEXT NOT NULL,
    digest TEXT NOT NULL,
    target TEXT NOT NULL,
    opened_by_uid INTEGER NOT NULL,
    opened_unix_ms INTEGER NOT NULL,
    closed_by_uid INTEGER,
    closed_unix_ms INTEGER,
    closing TEXT NOT NULL
) STRICT;
CREATE INDEX incidents_of_digest ON incidents (digest, closed_unix_ms);
CREATE TABLE incident_events (
    incident INTEGER NOT NULL REFERENCES incidents (id),
    at_unix_ms INTEGER NOT NULL,
    kind TEXT NOT NULL,
    text TEXT NOT NULL,
    log_index INTEGER NOT NULL,
    by_uid INTEGER NOT NULL,
    plan_id TEXT NOT NULL
) STRICT;
CREATE INDEX events_of_incident ON incident_events (incident, at_unix_ms);
CREATE TABLE incident_plans (
    incident INTEGER NOT NULL REFERENCES incidents (id),
    plan_id TEXT NOT NULL,
    PRIMARY KEY (incident, plan_id)
) STRICT, WITHOUT ROWID;
"""
_FROM_1: Final = "ALTER TABLE incidents ADD COLUMN target TEXT NOT NULL DEFAULT '';"
"""Until then what a kill meant that was no version stood in the title alone."""


class Database:
    """The file; one connection behind a lock. Blocks: call it from a thread. Raises StateError when it is damaged."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.RLock()
        try:
            self._connection = sqlite3.connect(path, WAIT_S, isolation_level=None, check_same_thread=False)
            self._connection.row_factory = sqlite3.Row
            self._prepare()
        except sqlite3.Error as error:
            raise StateError(f"{path}: expected the monitor's database, got: {error}") from error

    def close(self) -> None:
        """Release the file."""
        with self._lock:
            self._connection.close()

    @contextmanager
    def changing(self) -> Iterator[sqlite3.Connection]:
        """A transaction, committed at the end, or rolled back by whatever is raised."""
        with self._lock, self._reported():
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """For queries."""
        with self._lock, self._reported():
            yield self._connection

    @contextmanager
    def _reported(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise StateError(f"{self._path}: the monitor's database cannot be used: {error}") from error

    def _prepare(self) -> None:
        (application,) = self._connection.execute("PRAGMA application_id").fetchone()
        (version,) = self._connection.execute("PRAGMA user_version").fetchone()
        empty = not self._connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        if not empty and (application != APPLICATION_ID or version not in {1, SCHEMA_VERSION}):
            raise StateError(f"{self._path}: expected format {SCHEMA_VERSION} of the monitor's database, got another")
        self._connection.execute("PRAGMA journal_mode = WAL")
        self._connection.execute("PRAGMA synchronous = NORMAL")
        if empty:
            mark = f"PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {SCHEMA_VERSION};"
            self._connection.executescript(f"BEGIN; {TABLES} {mark} COMMIT;")
        elif version == 1:
            self._connection.executescript(f"BEGIN; {_FROM_1} PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;")
