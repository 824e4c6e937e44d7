"""Holds: what keeps something from running (plugind.targets). In memory too.

A kill is never kept from taking effect by a ledger that cannot be written: then it is in the history alone.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Container
from typing import Final

from plugind import targets
from plugind.errors import AuditUnavailableError, ConflictError, InvalidRequestError, StateError
from plugind.model import Hold, HoldKind
from plugind.registry import rows
from plugind.registry.connection import Change, Database

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
        self._announced: tuple[Hold, ...] = ()

    def all(self) -> tuple[Hold, ...]:
        """Oldest first."""
        return (*self._holds, *self._announced) if self._announced else self._holds

    def on(self, meant: Container[str]) -> tuple[Hold, ...]:
        """Those that are on one of these targets."""
        return tuple(hold for hold in self.all() if hold.target in meant)

    def announce(self, hold: Hold) -> None:
        """Put a hold in force in this process, until `set` has made it durable. If that fails it stays so.

        Raises InvalidRequestError (no reason).
        """
        _check_reason(hold)
        if not any(_is_same(each, hold) for each in self.all()):
            self._announced = (*self._announced, hold)

    def set(self, hold: Hold) -> Hold:
        """Put a hold in force, durably. One that is there already stays as it is.

        Raises InvalidRequestError (no reason), StateError.
        """
        _check_reason(hold)
        try:
            return self._set(hold)
        except StateError:
            # A full disk: for a kill there is room set aside.
            if hold.kind not in STOPS or not self._database.free_reserve():
                raise
            return self._set(hold)

    def _set(self, hold: Hold) -> Hold:
        with self._database.changing() as connection:
            there = next((each for each in self._holds if _is_same(each, hold)), None)
            if there is None:
                self._insert(connection, hold)
        self._settle(hold)
        return there or hold

    def _insert(self, connection: sqlite3.Connection, hold: Hold) -> None:
        values = (hold.kind, hold.target, hold.reason, hold.by_uid, hold.at_unix_ms)
        connection.execute("INSERT INTO holds VALUES (?, ?, ?, ?, ?)", values)
        try:
            self._database.record(connection, self._change(hold, _SET[hold.kind]))
        except AuditUnavailableError as error:
            if hold.kind not in STOPS:
                raise
            self._warn(f"{hold.kind} {hold.target} takes effect, but the ledger could not record it: {error}")

    def lift(self, kind: HoldKind, target: str, *, by_uid: int, at_unix_ms: int, why: str) -> Hold:
        """Take a hold away. Raises InvalidRequestError (no reason), ConflictError (there is none)."""
        if not why.strip():
            raise InvalidRequestError("reason: expected why, got nothing")
        with self._database.changing() as connection:
            there = next((each for each in self.all() if (each.kind, each.target) == (kind, target)), None)
            if there is None:
                known = ", ".join(each.target for each in self.all() if each.kind == kind) or "nothing"
                raise ConflictError(f"{target}: expected one that is {kind} ({known}), got another")
            connection.execute("DELETE FROM holds WHERE kind = ? AND target = ?", (kind, target))
            lifted = Hold(kind, target, why, by_uid, at_unix_ms)
            self._database.record(connection, self._change(lifted, _LIFTED[kind]))
        self._settle(lifted)
        return lifted

    def released(self, hold: Hold) -> None:
        """Its row was taken away, together with something else of this registry."""
        self._settle(hold)

    def target(self, text: str) -> str:
        """A target as it is kept, of all kinds but the beginning of a key's id.

        Raises NotFoundError (no such plugin or version), InvalidRequestError.
        """
        if known := targets.canonical(text):
            return known
        plugin, at, version = text.partition("@")
        if not plugin or (at and not version):
            raise InvalidRequestError(f"target: expected {targets.EXPECTED}, got {text[:80]!r}")
        with self._database.reading() as connection:
            number = rows.plugin_number(connection, plugin)
            name = rows.get_plugin(connection, number).name
            if version:
                rows.get_version(connection, number, version)
        return f"{name}{at}{version}"

    def _settle(self, hold: Hold) -> None:
        """As the registry has it now; what was announced of it is that, or gone."""
        self._holds = self._read()
        self._announced = tuple(each for each in self._announced if not _is_same(each, hold))

    def _read(self) -> tuple[Hold, ...]:
        with self._database.reading() as connection:
            found = connection.execute("SELECT * FROM holds ORDER BY at_unix_ms, kind, target").fetchall()
        return tuple(Hold(**{name: row[name] for name in row.keys()}) for row in found)  # noqa: SIM118

    def _change(self, hold: Hold, action: str) -> Change:
        digest = hold.target.removeprefix("sha256:") if hold.target.startswith("sha256:") else ""
        of_plugin = hold.target != targets.ALL and ":" not in hold.target
        name, _, version = hold.target.partition("@") if of_plugin else ("", "", "")
        detail = json.dumps({"target": hold.target})
        return Change(0, "", name, version, digest, action, "", hold.by_uid, hold.at_unix_ms, hold.reason, detail)


def _check_reason(hold: Hold) -> None:
    if not hold.reason.strip():
        raise InvalidRequestError("reason: expected why, got nothing")


def _is_same(one: Hold, other: Hold) -> bool:
    return (one.kind, one.target) == (other.kind, other.target)
