"""What people do, in the ledger: changes of the registry within their transaction, and attempts that were refused."""

from __future__ import annotations

import json

from plugind.audit.ledger import Ledger
from plugind.audit.records import Changed, Refused
from plugind.config import log
from plugind.errors import AuditUnavailableError
from plugind.governance.incidents import Action, Incident
from plugind.model import POLICY_UID, Caller
from plugind.registry.connection import Change
from plugind.sandbox.protocol import Imported


class Trail:
    """Writes to one ledger."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def changed(self, change: Change) -> None:
        """For the registry, in a thread: it is durable then. Raises AuditUnavailableError: the change is undone."""
        self._ledger.append_from_thread(
            Changed(
                action=change.action,
                plugin_id=change.plugin_id,
                plugin=change.plugin,
                version=change.version,
                digest=change.digest,
                by_uid=change.by_uid,
                why=change.why,
                detail=change.detail,
            )
        )

    def incident(self, action: Action, incident: Incident, by_uid: int, why: str) -> int:
        """For incidents, in a thread: the record's index, durable then. Raises AuditUnavailableError."""
        about = incident.about
        detail = {"incident": incident.id, "severity": incident.severity, "cause": incident.cause}
        return self._ledger.append_from_thread(
            Changed(
                action=action,
                plugin_id=about.plugin_id,
                plugin=about.plugin,
                version=about.version,
                digest=about.digest,
                by_uid=by_uid,
                why=why,
                detail=json.dumps(detail),
            )
        )

    async def refused(self, caller: Caller, call: str, role: str) -> None:
        """An administrative attempt without the role for it. It is refused whether or not it can be recorded."""
        has = ", ".join(sorted(caller.roles)) or "no role"
        try:
            await self._ledger.append(Refused(call, caller.uid, role, f"pid {caller.pid} with {has}"))
        except AuditUnavailableError as error:
            log(f"uid {caller.uid} tried {call} without the role {role}; not recorded: {error}")

    async def policy_reloaded(self, by_uid: int, digest: str, path: str) -> None:
        """Another policy is about to be in force. Raises AuditUnavailableError: then it is not."""
        await self._ledger.append(
            Changed("policy_reload", "", "", "", digest=digest, by_uid=by_uid, why="", detail=path)
        )

    async def environment_imported(self, seen: Imported) -> None:
        """An environment's packages were imported, by a process that is what `seen` says."""
        facts = {name: getattr(seen, name) for name in ("tier", "uid", "capabilities", "user_namespace", "wall_ms")}
        try:
            await self._ledger.append(
                Changed(
                    "environment_import",
                    "",
                    "",
                    "",
                    digest=seen.environment,
                    by_uid=POLICY_UID,
                    why=f"packages imported in tier {seen.tier}, by uid {seen.uid} in a user namespace of its own",
                    detail=json.dumps(facts | {"failed": seen.failed}),
                )
            )
        except AuditUnavailableError as error:
            log(f"environment {seen.environment} was imported in tier {seen.tier}; not recorded: {error}")
