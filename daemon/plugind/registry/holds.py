"""Holds: what keeps versions from running, by digest, by name and version, by name, or everything. In memory too.

A kill is never kept from taking effect by a ledger that cannot be written: then it is in the history alone.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Final

from plugind.errors import AuditUnavailableError, ConflictError, InvalidRequestError
from plugind.model import Hold, HoldKind, PluginVersion
from plugind.registry import rows
from plugind.registry.connection import Change, Database

ALL: Final = "all"
_DIGEST = re.compile(r"(?:sha256:)?([0-9a-f]{64})")
STOPS: Final[frozenset[HoldKind]] = frozenset({"killed", "quarantined"})
"""What ends runs too, and takes effect even when the ledger cannot be written."""
_LIFTED: Final[dict[HoldKind, str]] = {
    "killed": "kill_lift",
    "suspended": "resume",
    "quarantined": "release",
    "revalidation_required": "revalidated",
}
_SET: Final[dict[HoldKind, str]] = {
    "killed": "kill",
    "suspended": "suspend",
    "quarantined": "quarantine",
    "revalidation_required": "require_revalidation",
}


class Holds:
    """The holds of a registry. Changes block: call them from a thread."""

    def __init__(self, database: Database, warn: Callable[[str], None]) -> None:
        self._database = database
        self._warn = warn
        self._holds = self._read()

    def all(self) -> tuple[Hold, ...]:
        """Oldest first."""
        return self._holds

    def on(self, version: PluginVersion) -> tuple[Hold, ...]:
        """Those that keep this version from running."""
        return tuple(hold for hold in self._holds if hold.target in version.targets) if self._holds else ()

    def set(self, hold: Hold) -> Hold:
        """Put a hold in force, durably. One that is there already stays as it is.

        Raises InvalidRequestError (no reason), NotFoundError (an unknown plugin or version), ConflictError.
        """
        if not hold.reason.strip():
            raise InvalidRequestError("reason: expected why, got nothing")
        with self._database.changing() as connection:
            there = next((each for each in self._holds if (each.kind, each.target) == (hold.kind, hold.target)), None)
            if there is not None:
                return there
            values = (hold.kind, hold.target, hold.reason, hold.by_uid, hold.at_unix_ms)
            connection.execute("INSERT INTO holds VALUES (?, ?, ?, ?, ?)", values)
            change = self._change(hold, _SET[hold.kind])
            try:
                self._database.record(connection, change)
            except AuditUnavailableError as error:
                if hold.kind not in STOPS:
                    raise
                self._warn(f"{hold.kind} {hold.target} takes effect, but the ledger could not record it: {error}")
        self._holds = self._read()
        return hold

    def lift(self, kind: HoldKind, target: str, *, by_uid: int, at_unix_ms: int, why: str) -> Hold:
        """Take a hold away. Raises InvalidRequestError (no reason), ConflictError (there is none)."""
        if not why.strip():
            raise InvalidRequestError("reason: expected why, got nothing")
        with self._database.changing() as connection:
            there = next((each for each in self._holds if (each.kind, each.target) == (kind, target)), None)
            if there is None:
                known = ", ".join(each.target for each in self._holds if each.kind == kind) or "nothing"
                raise ConflictError(f"{target}: expected one that is {kind} ({known}), got another")
            connection.execute("DELETE FROM holds WHERE kind = ? AND target = ?", (kind, target))
            lifted = Hold(kind, target, why, by_uid, at_unix_ms)
            self._database.record(connection, self._change(lifted, _LIFTED[kind]))
        self._holds = self._read()
        return lifted

    def reread(self) -> None:
        """The rows were changed by somebody else of this registry."""
        self._holds = self._read()

    def target(self, text: str) -> str:
        """A target as it is kept: "all", "sha256:HEX", "NAME@VERSION", "NAME".

        Raises NotFoundError (no such plugin or version; any digest will do), InvalidRequestError.
        """
        if text == ALL:
            return ALL
        if digest := _DIGEST.fullmatch(text):
            return f"sha256:{digest[1]}"
        plugin, at, version = text.partition("@")
        if not plugin or (at and not version):
            raise InvalidRequestError(f"target: expected all, a sha256, NAME or NAME@VERSION, got {text[:80]!r}")
        with self._database.reading() as connection:
            number = rows.plugin_number(connection, plugin)
            name = rows.get_plugin(connection, number).name
            if version:
                rows.get_version(connection, number, version)
        return f"{name}{at}{version}"

    def _read(self) -> tuple[Hold, ...]:
        with self._database.reading() as connection:
            found = connection.execute("SELECT * FROM holds ORDER BY at_unix_ms, kind, target").fetchall()
        return tuple(Hold(**{name: row[name] for name in row.keys()}) for row in found)  # noqa: SIM118

    def _change(self, hold: Hold, action: str) -> Change:
        digest = hold.target.removeprefix("sha256:") if hold.target.startswith("sha256:") else ""
        name, _, version = ("", "", "") if digest or hold.target == ALL else hold.target.partition("@")
        detail = json.dumps({"target": hold.target})
        return Change(0, "", name, version, digest, action, "", hold.by_uid, hold.at_unix_ms, hold.reason, detail)
