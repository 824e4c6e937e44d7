"""Looking rows up, and rows as values."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from typing import Final

from plugind.errors import NotFoundError
from plugind.model import PluginVersion
from plugind.registry import codec
from plugind.registry.connection import Change

_VERSION: Final = (
    "SELECT versions.*, plugins.id AS plugin_number FROM versions JOIN plugins ON plugins.id = versions.plugin "
)


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


def plugin_number(connection: sqlite3.Connection, plugin: str) -> int:
    """The row of a plugin by name or id ("plug_1"). Raises NotFoundError."""
    if plugin.startswith("plug_") and plugin[5:].isdecimal() and len(plugin) <= 20:
        row = connection.execute("SELECT id FROM plugins WHERE id = ?", (int(plugin[5:]),)).fetchone()
        if row and f"plug_{row['id']}" == plugin:
            return int(row["id"])
    row = connection.execute("SELECT id FROM plugins WHERE name = ?", (plugin,)).fetchone()
    if row is None:
        raise NotFoundError(f"{plugin}: expected the name or id of a submitted plugin, got an unknown one")
    return int(row["id"])


def find_version(connection: sqlite3.Connection, number: int, version: str) -> PluginVersion | None:
    """A version of a plugin, if it is there."""
    row = connection.execute(_VERSION + "WHERE plugin = ? AND version = ?", (number, version)).fetchone()
    return _decoded(row) if row else None


def get_version(connection: sqlite3.Connection, number: int, version: str) -> PluginVersion:
    """A version of a plugin. Raises NotFoundError that names those there are."""
    found = find_version(connection, number, version)
    if found is None:
        rows = connection.execute("SELECT version FROM versions WHERE plugin = ? ORDER BY id", (number,)).fetchall()
        known = ", ".join(row["version"] for row in rows)
        raise NotFoundError(f"plug_{number}: version: expected one of {known}, got {version}")
    return found


def of_digest(connection: sqlite3.Connection, digest: str) -> PluginVersion:
    """The version with these bytes (sha256, hex). Raises NotFoundError."""
    row = connection.execute(_VERSION + "WHERE digest = ?", (digest,)).fetchone()
    if row is None:
        raise NotFoundError(f"sha256 {digest[:80]}: expected the digest of a submitted version, got an unknown one")
    return _decoded(row)


def get_plugin(connection: sqlite3.Connection, number: int) -> Plugin:
    """A plugin with all versions."""
    name = connection.execute("SELECT name FROM plugins WHERE id = ?", (number,)).fetchone()["name"]
    rows = connection.execute(_VERSION + "WHERE plugin = ? ORDER BY versions.id", (number,)).fetchall()
    return Plugin(f"plug_{number}", name, tuple(map(_decoded, rows)))


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


def change_of(row: sqlite3.Row) -> Change:
    """A row of the history."""
    return Change(**{name: row[name] for name in row.keys()})  # noqa: SIM118 - a Row iterates over its values
