"""Plugins, versions, approvals and their history, behind one small interface with a revision. Times are arguments."""

from __future__ import annotations

import dataclasses
import json
import sqlite3
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from plugind.errors import ConflictError, InvalidRequestError
from plugind.model import Approval, Manifest, PluginVersion, State, Tier
from plugind.registry import approvals, codec, rows
from plugind.registry.connection import Change, Database, OnChange
from plugind.registry.holds import Holds
from plugind.registry.quarantine import Quarantines
from plugind.registry.rows import Plugin


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
class Act:
    """Who does something to a version, when, and why."""

    by_uid: int
    at_unix_ms: int
    why: str = ""


class Registry:
    """The registry in one file. Plugins are named by name or by id ("plug_1"). Raises StateError when it is damaged.

    `on_change` is told of each change within its transaction and can refuse it; `warn` gets what must not fail.
    """

    def __init__(
        self,
        path: Path,
        on_change: OnChange,
        warn: Callable[[str], None],
    ) -> None:
        self._database = Database(path, on_change)
        self.holds = Holds(self._database, warn)
        self.quarantines = Quarantines(self._database, self.holds)

    def close(self) -> None:
        """Release the file."""
        self._database.close()

    @property
    def revision(self) -> int:
        """Number of the newest change; 0 at the beginning."""
        return self._database.revision

    def development_keys(self) -> tuple[bytes, ...]:
        """The raw public keys that a development daemon trusts."""
        with self._database.reading() as connection:
            return tuple(row["raw"] for row in connection.execute("SELECT raw FROM development_keys ORDER BY raw"))

    def trust_for_development(self, keys: Iterable[bytes]) -> None:
        """Trust these raw public keys too."""
        with self._database.changing() as connection:
            connection.executemany("INSERT OR IGNORE INTO development_keys VALUES (?)", [(key,) for key in keys])

    # -- what there is

    def get(self, plugin: str) -> Plugin:
        """One plugin with all versions. Raises NotFoundError."""
        with self._database.reading() as connection:
            return rows.get_plugin(connection, rows.plugin_number(connection, plugin))

    def version(self, plugin: str, version: str) -> PluginVersion:
        """One version. Raises NotFoundError."""
        with self._database.reading() as connection:
            return rows.get_version(connection, rows.plugin_number(connection, plugin), version)

    def has(self, digest: str) -> bool:
        """Whether there is a version with these bytes."""
        with self._database.reading() as connection:
            return connection.execute("SELECT 1 FROM versions WHERE digest = ?", (digest,)).fetchone() is not None

    def of_digest(self, digest: str) -> PluginVersion:
        """The version with these bytes. Raises NotFoundError."""
        with self._database.reading() as connection:
            return rows.of_digest(connection, digest)

    def plugins(self) -> list[Plugin]:
        """All plugins, by id."""
        with self._database.reading() as connection:
            found = connection.execute("SELECT id FROM plugins ORDER BY id").fetchall()
            return [rows.get_plugin(connection, row["id"]) for row in found]

    def history(self, plugin: str = "") -> list[Change]:
        """Every change to a plugin, or to all, oldest first. Raises NotFoundError."""
        with self._database.reading() as connection:
            if not plugin:
                found = connection.execute("SELECT * FROM history ORDER BY revision").fetchall()
            else:
                name = rows.get_plugin(connection, rows.plugin_number(connection, plugin)).name
                query = "SELECT * FROM history WHERE plugin = ? ORDER BY revision"
                found = connection.execute(query, (name,)).fetchall()
            return [rows.change_of(row) for row in found]

    def history_about(self, name: str, digest: str) -> list[Change]:
        """Every change to a plugin of this name, or to the version of this digest, oldest first. Empty: to none."""
        query = "SELECT * FROM history WHERE (plugin = ? AND ? <> '') OR (digest = ? AND ? <> '') ORDER BY revision"
        with self._database.reading() as connection:
            return [rows.change_of(row) for row in connection.execute(query, (name, name, digest, digest)).fetchall()]

    # -- the life of a version

    def submit(self, new: Submission) -> PluginVersion:
        """Take in a version. The same bytes again give the same answer.

        Newer attestations replace the older ones, unless the tier would be a worse one.
        Raises ConflictError for other bytes under the same name and version.
        """
        act = Act(new.by_uid, new.at_unix_ms)
        with self._database.changing() as connection:
            connection.execute("INSERT OR IGNORE INTO plugins (name) VALUES (?)", (new.manifest.name,))
            number = rows.plugin_number(connection, new.manifest.name)
            known = rows.find_version(connection, number, new.manifest.version)
            if known and known.digest != new.digest:
                raise ConflictError(
                    f"{known.plugin_id} {known.label}: sha256 expected {known.digest}, as submitted before, "
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
            return self._changed(connection, number, new.manifest.version, "attest" if known else "submit", act)

    def approve(self, plugin: str, version: str, approval: Approval, *, approvers: int = 1) -> PluginVersion:
        """Approve a version, in place of an earlier approval; an active one stays active.

        With `approvers` 2 the first voice is kept as a vote, and it takes effect when another uid approves the same.
        Raises NotFoundError, InvalidRequestError (no reason), ConflictError (more than declared, or than the evidence).
        """
        act = Act(approval.by_uid, approval.at_unix_ms, approval.reason)
        with self._database.changing() as connection:
            number = rows.plugin_number(connection, plugin)
            record = rows.get_version(connection, number, version)
            if record.state == "revoked":
                raise ConflictError(f"{record.plugin_id} {record.label}: revoked, which is final for these bytes")
            approvals.check(record, approval)
            content = approvals.content(approval)
            vote = (record.digest, approval.by_uid, content, approval.not_after_unix_ms)
            connection.execute("INSERT OR REPLACE INTO votes VALUES (?, ?, ?, ?)", vote)
            query = "SELECT not_after_unix_ms FROM votes WHERE digest = ? AND content = ?"
            ends = [row["not_after_unix_ms"] for row in connection.execute(query, (record.digest, content))]
            if len(ends) < approvers:
                return self._changed(connection, number, version, "vote", act, codec.encode_approval(approval))
            # Whoever gave the shorter time has not agreed to a longer one.
            approval = dataclasses.replace(approval, not_after_unix_ms=min(filter(None, ends), default=0))
            detail = codec.encode_approval(approval)
            connection.execute("DELETE FROM votes WHERE digest = ?", (record.digest,))
            state: State = "active" if record.state == "active" else "approved"
            connection.execute(
                "UPDATE versions SET approval = ?, state = ? WHERE digest = ?", (detail, state, record.digest)
            )
            return self._changed(connection, number, version, "approve", act, detail)

    def reject(self, plugin: str, version: str, act: Act) -> PluginVersion:
        """Take approval and votes away; an active version stops being active.

        Raises NotFoundError, InvalidRequestError (no reason).
        """
        if not act.why.strip():
            raise InvalidRequestError("reason: expected why this is rejected, got nothing")
        with self._database.changing() as connection:
            number = rows.plugin_number(connection, plugin)
            record = rows.get_version(connection, number, version)
            connection.execute("DELETE FROM votes WHERE digest = ?", (record.digest,))
            if record.state != "revoked":
                query = "UPDATE versions SET approval = NULL, state = 'submitted' WHERE digest = ?"
                connection.execute(query, (record.digest,))
            return self._changed(connection, number, version, "reject", act)

    def activate(self, plugin: str, version: str, act: Act) -> PluginVersion:
        """Make an approved version the active one; the one before is retired. Active already: nothing changes.

        Raises NotFoundError, ConflictError (not approved, or older than the active one: that is a rollback).
        """
        with self._database.changing() as connection:
            number = rows.plugin_number(connection, plugin)
            record = rows.get_version(connection, number, version)
            if record.state == "active":
                return record
            active = rows.get_plugin(connection, number).active
            if active and active.sequence > record.sequence:
                raise ConflictError(
                    f"{record.plugin_id} {record.label}: expected a version after the active {active.manifest.version}"
                    f" (SEQUENCE_ROLLBACK); to go back: plugindctl rollback {record.label}"
                )
            return self._make_active(connection, number, record, "activate", act)

    def rollback(self, plugin: str, version: str, act: Act) -> PluginVersion:
        """Make an earlier version active again; empty: the one that was active before the active one.

        Raises NotFoundError, InvalidRequestError (no reason), ConflictError (none before, or not approved).
        """
        if not act.why.strip():
            raise InvalidRequestError("reason: expected why it goes back, got nothing")
        with self._database.changing() as connection:
            number = rows.plugin_number(connection, plugin)
            known = rows.get_plugin(connection, number)
            version = version or _before(connection, known)
            record = rows.get_version(connection, number, version)
            if record.state == "active":
                raise ConflictError(f"{record.plugin_id} {record.label}: expected another than the active version")
            return self._make_active(connection, number, record, "rollback", act)

    def _make_active(
        self, connection: sqlite3.Connection, number: int, record: PluginVersion, action: str, act: Act
    ) -> PluginVersion:
        if record.approval is None or record.state == "revoked":
            raise ConflictError(
                f"{record.plugin_id} {record.label}: expected an approved version, got {record.state};"
                f" plugindctl approve {record.label}"
            )
        active = rows.get_plugin(connection, number).active
        if active:
            retired = Act(act.by_uid, act.at_unix_ms, f"{record.label} became active")
            _set_state(connection, active, "retired")
            self._changed(connection, number, active.manifest.version, "retire", retired)
        _set_state(connection, record, "active")
        return self._changed(connection, number, record.manifest.version, action, act)

    def _changed(
        self, connection: sqlite3.Connection, number: int, version: str, action: str, act: Act, detail: str = ""
    ) -> PluginVersion:
        """Record it; the version as it is now."""
        now = rows.get_version(connection, number, version)
        self._database.record(
            connection,
            Change(
                revision=0,
                plugin_id=now.plugin_id,
                plugin=now.manifest.name,
                version=version,
                digest=now.digest,
                action=action,
                state=now.state,
                by_uid=act.by_uid,
                at_unix_ms=act.at_unix_ms,
                why=act.why,
                detail=detail or json.dumps({"tier": now.tier}),
            ),
        )
        return now


def _insert(connection: sqlite3.Connection, number: int, new: Submission) -> None:
    connection.execute(
        "INSERT INTO versions (plugin, version, digest, sequence, state, tier, manifest, attestations, "
        "submitted_by_uid, submitted_unix_ms) VALUES (?, ?, ?, ?, 'submitted', ?, ?, ?, ?, ?)",
        (
            *(number, new.manifest.version, new.digest, new.sequence, new.tier),
            *(codec.encode_manifest(new.manifest), new.attestations, new.by_uid, new.at_unix_ms),
        ),
    )


def _set_state(connection: sqlite3.Connection, record: PluginVersion, state: State) -> None:
    connection.execute("UPDATE versions SET state = ? WHERE digest = ?", (state, record.digest))


def _before(connection: sqlite3.Connection, known: Plugin) -> str:
    """The version that was active before the one that is."""
    active = known.active.manifest.version if known.active else ""
    row = connection.execute(
        "SELECT version FROM history WHERE plugin = ? AND action IN ('activate', 'rollback') AND version <> ?"
        " ORDER BY revision DESC LIMIT 1",
        (known.name, active),
    ).fetchone()
    if row is None:
        raise ConflictError(f"{known.plugin_id} {known.name}: expected a version that was active before, got none")
    return str(row["version"])
