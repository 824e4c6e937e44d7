"""Plugins, versions, approvals and their history, in SQLite, behind one small interface with a revision.

Every change is one transaction that also writes the history and raises the revision by one; the revision is the number
of the newest change. Times are arguments. Safe from several threads: changes take turns on one connection, reading has
one of its own (WAL), so that nobody who only reads waits for a change that is being made durable.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from plugind.errors import ConflictError, NotFoundError, StateError
from plugind.model import Approval, Manifest, PluginVersion, State, Tier
from plugind.registry import approvals, codec

SCHEMA_VERSION: Final = 1
APPLICATION_ID: Final = 0x706C7567  # "plug"

_TABLES: Final = """
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
    state TEXT NOT NULL CHECK (state IN ('submitted', 'approved', 'active', 'retired')),
    tier INTEGER NOT NULL CHECK (tier IN (0, 1, 2)),
    manifest TEXT NOT NULL,
    attestations BLOB NOT NULL,
    approval TEXT,
    submitted_by_uid INTEGER NOT NULL,
    submitted_unix_ms INTEGER NOT NULL,
    UNIQUE (plugin, version)
) STRICT;
CREATE UNIQUE INDEX one_active ON versions (plugin) WHERE state = 'active';
CREATE TABLE development_keys (
    raw BLOB PRIMARY KEY
) STRICT, WITHOUT ROWID;
CREATE TABLE history (
    revision INTEGER PRIMARY KEY,
    plugin INTEGER NOT NULL REFERENCES plugins (id),
    version TEXT NOT NULL,
    action TEXT NOT NULL,
    state TEXT NOT NULL,
    by_uid INTEGER NOT NULL,
    at_unix_ms INTEGER NOT NULL,
    why TEXT NOT NULL,
    detail TEXT NOT NULL
) STRICT;
"""
_VERSION: Final = (
    "SELECT versions.*, plugins.id AS plugin_number FROM versions JOIN plugins ON plugins.id = versions.plugin "
)


@dataclass(frozen=True, slots=True)
class Submission:
    """A bundle that was checked in full, and what its evidence gave."""

    manifest: Manifest
    digest: str
    sequence: int
    tier: Tier
    attestations: bytes
    by_uid: int
    at_unix_ms: int


@dataclass(frozen=True, slots=True)
class Plugin:
    """A plugin with its versions, in the order they were submitted."""

    plugin_id: str
    name: str
    versions: tuple[PluginVersion, ...]

    @property
    def active(self) -> PluginVersion | None:
        """The version that runs when none is asked for."""
        return next((version for version in self.versions if version.state == "active"), None)


@dataclass(frozen=True, slots=True)
class Change:
    """One entry of the history. `detail` is JSON: the approval as given, or empty."""

    revision: int
    plugin_id: str
    version: str
    action: str
    state: State
    by_uid: int
    at_unix_ms: int
    why: str
    detail: str


class Registry:
    """The registry in one file. Plugins are named by name or by id ("plug_1"). Raises StateError when it is damaged."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._read_lock = threading.Lock()
        self._connection = self._connect()
        try:
            with self._reported():
                self._prepare()
                self.revision = _revision(self._connection)
                """Number of the newest change; 0 at the beginning. This process makes all changes, so it is known."""
            self._reader = self._connect()
        except BaseException:
            self._connection.close()
            raise

    def _connect(self) -> sqlite3.Connection:
        with self._reported():
            connection = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False)
        connection.row_factory = sqlite3.Row
        return connection

    def close(self) -> None:
        """Release the file."""
        with self._lock, self._read_lock:
            self._connection.close()
            self._reader.close()

    def development_keys(self) -> tuple[bytes, ...]:
        """The raw public keys that a development daemon trusts."""
        with self._reading() as connection:
            return tuple(row["raw"] for row in connection.execute("SELECT raw FROM development_keys ORDER BY raw"))

    def trust_for_development(self, keys: Iterable[bytes]) -> None:
        """Trust these raw public keys too."""
        with self._changing() as connection:
            connection.executemany("INSERT OR IGNORE INTO development_keys VALUES (?)", [(key,) for key in keys])

    def submit(self, new: Submission) -> PluginVersion:
        """Take in a version. The same bytes again give the same answer.

        Newer attestations replace the older ones, unless the tier would be a worse one.

        Raises ConflictError for other bytes under the same name and version.
        """
        with self._changing() as connection:
            connection.execute("INSERT OR IGNORE INTO plugins (name) VALUES (?)", (new.manifest.name,))
            number = _plugin_number(connection, new.manifest.name)
            label = f"{new.manifest.name}@{new.manifest.version}"
            known = _find_version(connection, number, new.manifest.version)
            if known and known.digest != new.digest:
                raise ConflictError(
                    f"{known.plugin_id} {label}: sha256 expected {known.digest}, as submitted before, "
                    f"got {new.digest}; other content needs another version"
                )
            if known and (new.attestations == known.attestations or not new.attestations or new.tier > known.tier):
                return known
            if known:
                connection.execute(
                    "UPDATE versions SET attestations = ?, tier = ? WHERE digest = ?",
                    (new.attestations, new.tier, new.digest),
                )
            else:
                _insert(connection, number, new)
            action, state = ("attest", known.state) if known else ("submit", "submitted")
            _record(connection, number, new.manifest.version, action, state, new.by_uid, new.at_unix_ms)
            return _version(connection, number, new.manifest.version)

    def approve(self, plugin: str, version: str, approval: Approval) -> PluginVersion:
        """Approve a version, in place of an earlier approval; an active one stays active.

        Raises NotFoundError, InvalidRequestError (no reason), ConflictError (more than declared, or than the evidence).
        """
        with self._changing() as connection:
            number = _plugin_number(connection, plugin)
            record = _version(connection, number, version)
            approvals.check(record, approval)
            state: State = "active" if record.state == "active" else "approved"
            detail = codec.encode_approval(approval)
            connection.execute(
                "UPDATE versions SET approval = ?, state = ? WHERE digest = ?", (detail, state, record.digest)
            )
            _record(
                connection,
                number,
                version,
                "approve",
                state,
                approval.by_uid,
                approval.at_unix_ms,
                approval.reason,
                detail,
            )
            return _version(connection, number, version)

    def activate(self, plugin: str, version: str, *, by_uid: int, at_unix_ms: int, why: str = "") -> PluginVersion:
        """Make an approved version the active one; the one before is retired. Active already: nothing changes.

        Raises NotFoundError, ConflictError (not approved).
        """
        with self._changing() as connection:
            number = _plugin_number(connection, plugin)
            record = _version(connection, number, version)
            if record.state == "active":
                return record
            if record.approval is None:
                raise ConflictError(
                    f"{record.plugin_id} {record.label}: expected an approved version, got {record.state}"
                )
            before = connection.execute(
                "SELECT version FROM versions WHERE plugin = ? AND state = 'active'", (number,)
            ).fetchone()
            if before:
                retired = f"{record.label} became active"
                _set_state(connection, number, before["version"], "retired")
                _record(connection, number, before["version"], "retire", "retired", by_uid, at_unix_ms, retired)
            _set_state(connection, number, version, "active")
            _record(connection, number, version, "activate", "active", by_uid, at_unix_ms, why)
            return _version(connection, number, version)

    def get(self, plugin: str) -> Plugin:
        """One plugin with all versions. Raises NotFoundError."""
        with self._reading() as connection:
            return _plugin(connection, _plugin_number(connection, plugin))

    def version(self, plugin: str, version: str) -> PluginVersion:
        """One version. Raises NotFoundError."""
        with self._reading() as connection:
            return _version(connection, _plugin_number(connection, plugin), version)

    def active(self, plugin: str) -> PluginVersion | None:
        """The active version, None if there is none. Raises NotFoundError for an unknown plugin."""
        with self._reading() as connection:
            number = _plugin_number(connection, plugin)
            row = connection.execute(_VERSION + "WHERE plugin = ? AND state = 'active'", (number,)).fetchone()
            return _decoded(row) if row else None

    def plugins(self) -> list[Plugin]:
        """All plugins, by id."""
        with self._reading() as connection:
            rows = connection.execute("SELECT id FROM plugins ORDER BY id").fetchall()
            return [_plugin(connection, row["id"]) for row in rows]

    def history(self, plugin: str) -> list[Change]:
        """Every change to a plugin, oldest first. Raises NotFoundError."""
        with self._reading() as connection:
            number = _plugin_number(connection, plugin)
            rows = connection.execute("SELECT * FROM history WHERE plugin = ? ORDER BY revision", (number,)).fetchall()
            return [_change(row) for row in rows]

    def _prepare(self) -> None:
        connection = self._connection
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
            connection.executescript(f"BEGIN; {_TABLES} {header} COMMIT;")
        damage = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
        if damage != "ok":
            raise StateError(f"{self._path}: expected an intact registry, got: {damage}")

    @contextmanager
    def _changing(self) -> Iterator[sqlite3.Connection]:
        with self._lock, self._reported():
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
                self._connection.execute("COMMIT")
                self.revision = _revision(self._connection)
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        with self._read_lock, self._reported():
            yield self._reader

    @contextmanager
    def _reported(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise StateError(f"{self._path}: expected a registry of plugind, got an error: {error}") from error


def _revision(connection: sqlite3.Connection) -> int:
    return int(connection.execute("SELECT coalesce(max(revision), 0) FROM history").fetchone()[0])


def _plugin_number(connection: sqlite3.Connection, plugin: str) -> int:
    if plugin.startswith("plug_") and plugin[5:].isdecimal() and len(plugin) <= 20:
        query, key = "SELECT id FROM plugins WHERE id = ?", int(plugin[5:])
        row = connection.execute(query, (key,)).fetchone()
        if row and f"plug_{row['id']}" == plugin:
            return int(row["id"])
    row = connection.execute("SELECT id FROM plugins WHERE name = ?", (plugin,)).fetchone()
    if row is None:
        raise NotFoundError(f"{plugin}: expected the name or id of a submitted plugin, got an unknown one")
    return int(row["id"])


def _find_version(connection: sqlite3.Connection, number: int, version: str) -> PluginVersion | None:
    row = connection.execute(_VERSION + "WHERE plugin = ? AND version = ?", (number, version)).fetchone()
    return _decoded(row) if row else None


def _version(connection: sqlite3.Connection, number: int, version: str) -> PluginVersion:
    found = _find_version(connection, number, version)
    if found is None:
        rows = connection.execute("SELECT version FROM versions WHERE plugin = ? ORDER BY id", (number,)).fetchall()
        known = ", ".join(row["version"] for row in rows)
        raise NotFoundError(f"plug_{number}: version: expected one of {known}, got {version}")
    return found


def _plugin(connection: sqlite3.Connection, number: int) -> Plugin:
    name = connection.execute("SELECT name FROM plugins WHERE id = ?", (number,)).fetchone()["name"]
    rows = connection.execute(_VERSION + "WHERE plugin = ? ORDER BY versions.id", (number,)).fetchall()
    return Plugin(f"plug_{number}", name, tuple(map(_decoded, rows)))


def _insert(connection: sqlite3.Connection, number: int, new: Submission) -> None:
    connection.execute(
        "INSERT INTO versions (plugin, version, digest, sequence, state, tier, manifest, attestations, "
        "submitted_by_uid, submitted_unix_ms) VALUES (?, ?, ?, ?, 'submitted', ?, ?, ?, ?, ?)",
        (
            number,
            new.manifest.version,
            new.digest,
            new.sequence,
            new.tier,
            codec.encode_manifest(new.manifest),
            new.attestations,
            new.by_uid,
            new.at_unix_ms,
        ),
    )


def _set_state(connection: sqlite3.Connection, number: int, version: str, state: State) -> None:
    connection.execute("UPDATE versions SET state = ? WHERE plugin = ? AND version = ?", (state, number, version))


def _record(
    connection: sqlite3.Connection,
    number: int,
    version: str,
    action: str,
    state: State,
    by_uid: int,
    at_unix_ms: int,
    why: str = "",
    detail: str = "",
) -> None:
    connection.execute(
        "INSERT INTO history VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (_revision(connection) + 1, number, version, action, state, by_uid, at_unix_ms, why, detail),
    )


def _decoded(row: sqlite3.Row) -> PluginVersion:
    return PluginVersion(
        plugin_id=f"plug_{row['plugin_number']}",
        digest=row["digest"],
        sequence=row["sequence"],
        state=row["state"],
        tier=row["tier"],
        manifest=codec.decode_manifest(row["manifest"]),
        attestations=row["attestations"],
        approval=codec.decode_approval(row["approval"]) if row["approval"] else None,
        submitted_by_uid=row["submitted_by_uid"],
        submitted_unix_ms=row["submitted_unix_ms"],
    )


def _change(row: sqlite3.Row) -> Change:
    return Change(
        revision=row["revision"],
        plugin_id=f"plug_{row['plugin']}",
        version=row["version"],
        action=row["action"],
        state=row["state"],
        by_uid=row["by_uid"],
        at_unix_ms=row["at_unix_ms"],
        why=row["why"],
        detail=row["detail"],
    )
