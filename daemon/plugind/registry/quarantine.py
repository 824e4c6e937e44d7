"""The way out of quarantine: votes for a release, and the probation that follows it. In memory too, as holds are."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from typing import Final

from plugind.errors import ConflictError, InvalidRequestError
from plugind.model import POLICY_UID, Hold, PluginVersion, Probation
from plugind.registry.connection import Change, Database
from plugind.registry.holds import Holds

MOST_STAGES: Final = 100


class Quarantines:
    """Versions that were put into quarantine, by digest. Changes block: call them from a thread."""

    def __init__(self, database: Database, holds: Holds) -> None:
        self._database = database
        self._holds = holds
        self._probations = self._read()

    def hold(self, digest: str) -> Hold | None:
        """The hold that keeps these bytes in quarantine."""
        target = f"sha256:{digest}"
        return next((each for each in self._holds.all() if (each.kind, each.target) == ("quarantined", target)), None)

    def probation(self, digest: str) -> Probation | None:
        """What these bytes are held to after they were released."""
        return self._probations.get(digest)

    def probations(self) -> tuple[Probation, ...]:
        """All of them, oldest first."""
        return tuple(sorted(self._probations.values(), key=lambda each: each.since_unix_ms))

    def votes(self, digest: str) -> tuple[int, ...]:
        """Uids of those who want them released so far."""
        with self._database.reading() as connection:
            found = connection.execute("SELECT by_uid FROM release_votes WHERE digest = ? ORDER BY by_uid", (digest,))
            return tuple(row["by_uid"] for row in found.fetchall())

    def put(self, hold: Hold) -> Hold:
        """Put the bytes of its target there. A probation is over, and votes of before do not count any more.

        Raises what Holds.set does.
        """
        kept = self._holds.set(hold)
        digest = hold.target.removeprefix("sha256:")
        if kept is hold or digest in self._probations:
            with self._database.changing() as connection:
                _forget(connection, digest)
            self._probations = self._read()
        return kept

    def release(
        self,
        version: PluginVersion,
        stages: Sequence[str],
        *,
        by_uid: int,
        why: str,
        at_unix_ms: int,
        approvers: int,
        runs: int,
    ) -> bool:
        """One voice for letting a version out; whether it is out: when `approvers` people have said the same.

        It is on probation then, in these stages, until `runs` runs went well.
        Raises InvalidRequestError, ConflictError (it is not in quarantine), AuditUnavailableError.
        """
        if not why.strip():
            raise InvalidRequestError("reason: expected the cause why it is safe again, got nothing")
        wanted = json.dumps(_checked(version, stages))
        with self._database.changing() as connection:
            hold = self.hold(version.digest)
            if hold is None:
                raise ConflictError(
                    f"{version.plugin_id} {version.label}: expected one in quarantine, got {_how(self, version)}"
                )
            connection.execute(
                "INSERT OR REPLACE INTO release_votes VALUES (?, ?, ?)", (version.digest, by_uid, wanted)
            )
            query = "SELECT count(*) FROM release_votes WHERE digest = ? AND stages = ?"
            voices: int = connection.execute(query, (version.digest, wanted)).fetchone()[0]
            released = voices >= approvers
            if released:
                target = f"sha256:{version.digest}"
                connection.execute("DELETE FROM holds WHERE kind = 'quarantined' AND target = ?", (target,))
                _forget(connection, version.digest)
                row = (version.digest, wanted, runs, at_unix_ms)
                if runs:
                    connection.execute("INSERT INTO probations VALUES (?, ?, ?, ?)", row)
            action = "release" if released else "release_vote"
            detail = json.dumps({"stages": json.loads(wanted), "probation_runs": runs})
            self._database.record(connection, _change(version, action, by_uid, at_unix_ms, why, detail))
        if released:
            self._holds.released(hold)
            self._probations = self._read()
        return released

    def went_well(self, version: PluginVersion, at_unix_ms: int) -> None:
        """One more run of a version on probation; the last one ends it. Only that has a record of its own."""
        with self._database.changing() as connection:
            one_less = "UPDATE probations SET runs_left = runs_left - 1 WHERE digest = ?"
            connection.execute(one_less, (version.digest,))
            query = "DELETE FROM probations WHERE digest = ? AND runs_left <= 0"
            if connection.execute(query, (version.digest,)).rowcount:
                why = "as many runs as its release asked for went well"
                self._database.record(connection, _change(version, "probation_end", POLICY_UID, at_unix_ms, why, ""))
        self._probations = self._read()

    def _read(self) -> dict[str, Probation]:
        with self._database.reading() as connection:
            found = connection.execute("SELECT * FROM probations").fetchall()
        return {
            row["digest"]: Probation(
                row["digest"], tuple(json.loads(row["stages"])), row["runs_left"], row["since_unix_ms"]
            )
            for row in found
        }


def _checked(version: PluginVersion, stages: Sequence[str]) -> list[str]:
    """The stages of a probation, each once: some of those that are approved."""
    approved = version.approval.stages if version.approval else ()
    known = ", ".join(approved) or "none: approve it first"
    if not stages or len(stages) > MOST_STAGES:
        raise InvalidRequestError(f"stages: expected 1 to {MOST_STAGES} of those approved ({known}), got {len(stages)}")
    for stage in stages:
        if stage not in approved and "*" not in approved:
            raise InvalidRequestError(f"stages: expected some of those approved ({known}), got {stage[:80]!r}")
    return sorted(set(stages))


def _how(quarantines: Quarantines, version: PluginVersion) -> str:
    return "one on probation" if quarantines.probation(version.digest) else "another"


def _forget(connection: sqlite3.Connection, digest: str) -> None:
    connection.execute("DELETE FROM release_votes WHERE digest = ?", (digest,))
    connection.execute("DELETE FROM probations WHERE digest = ?", (digest,))


def _change(version: PluginVersion, action: str, by_uid: int, at_unix_ms: int, why: str, detail: str) -> Change:
    return Change(
        revision=0,
        plugin_id=version.plugin_id,
        plugin=version.manifest.name,
        version=version.manifest.version,
        digest=version.digest,
        action=action,
        state=version.state,
        by_uid=by_uid,
        at_unix_ms=at_unix_ms,
        why=why,
        detail=detail,
    )
