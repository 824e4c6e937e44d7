"""Who may make which call."""

from __future__ import annotations

import enum

from plugind.errors import NotAllowedError
from plugind.model import Caller


class Role(enum.StrEnum):
    """What somebody is allowed to do. Every call of the API names the one it needs."""

    CALLER = "caller"
    OPERATOR = "operator"
    APPROVER = "approver"
    ADMIN = "admin"


class DevRoles:
    """--dev: whoever gets through the door, which is the owner and root, has every role."""

    def of(self, caller: Caller) -> frozenset[Role]:
        """The roles of this caller."""
        del caller
        return frozenset(Role)

    def require(self, caller: Caller, role: Role, call: str) -> None:
        """Raises NotAllowedError unless the caller has the role."""
        has = self.of(caller)
        if role not in has:
            shown = ", ".join(sorted(has)) or "no role"
            raise NotAllowedError(f"{call}: expected role {role}, uid {caller.uid} has {shown}")
