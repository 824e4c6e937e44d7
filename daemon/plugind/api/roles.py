"""Who may make which call: what a connection may do is decided once, when it is accepted.

The run socket gives the role caller and nothing more, whatever the uid: its folder can be bind-mounted into a container
whose uid 0 is somebody else's. The admin socket gives roles by the groups of the process at its other end.
"""

from __future__ import annotations

import enum
import grp
import socket
import struct
from collections.abc import Callable, Collection, Mapping
from typing import Final, Protocol

from plugind.errors import NotAllowedError
from plugind.model import Caller

SO_PEERGROUPS: Final = 59
_MOST_BYTES = 1024
"""What Python's getsockopt takes: 256 groups."""


class Role(enum.StrEnum):
    """What somebody is allowed to do. Every call of the API names the one it needs."""

    CALLER = "caller"
    OPERATOR = "operator"
    APPROVER = "approver"
    ADMIN = "admin"


OPERATORS: Final = "plugind-operator"
ROLE_GROUPS: Final[Mapping[str, Role]] = {
    OPERATORS: Role.OPERATOR,
    "plugind-approver": Role.APPROVER,
    "plugind-admin": Role.ADMIN,
}
"""Groups of the system, and the role that each gives on the admin socket."""


Groups = Callable[[], Collection[int]]
"""Asks the kernel for the supplementary groups, where they matter."""


class Admission(Protocol):
    """Decides who comes in through one socket."""

    def admit(self, caller: Caller, groups: Groups) -> frozenset[Role]:
        """The roles of a new connection. Raises NotAllowedError where it may not come in at all."""
        ...


class DevAdmission:
    """--dev: the owner and root have every role, everybody else stays outside."""

    def __init__(self, owner_uid: int) -> None:
        self._owner_uid = owner_uid

    def admit(self, caller: Caller, groups: Groups) -> frozenset[Role]:
        """See Admission."""
        del groups
        if caller.uid not in (0, self._owner_uid):
            raise NotAllowedError(f"with --dev only uid {self._owner_uid} and root may connect")
        return frozenset(Role)


class RunAdmission:
    """The run socket: everybody is a caller, nobody is more."""

    def admit(self, caller: Caller, groups: Groups) -> frozenset[Role]:
        """See Admission."""
        del caller, groups
        return frozenset({Role.CALLER})


class AdminAdmission:
    """The admin socket: root has every role, others those of their groups; who has none stays outside."""

    def __init__(self, groups: Mapping[int, Role]) -> None:
        self._groups = groups

    @classmethod
    def of_this_machine(cls) -> AdminAdmission:
        """By the groups that exist here; one that does not gives nobody its role."""
        known = {entry.gr_name: entry.gr_gid for entry in grp.getgrall()}
        return cls({known[name]: role for name, role in ROLE_GROUPS.items() if name in known})

    def admit(self, caller: Caller, groups: Groups) -> frozenset[Role]:
        """See Admission."""
        if caller.uid == 0:
            return frozenset(Role)
        roles = {self._groups[gid] for gid in (caller.gid, *groups()) if gid in self._groups}
        if not roles:
            raise NotAllowedError(f"the admin socket is for members of {', '.join(ROLE_GROUPS)}, and root")
        return frozenset({Role.CALLER, *roles})


def groups_of(sock: socket.socket) -> tuple[int, ...]:
    """The supplementary groups of the process at the other end, as it connected. Source: unix(7), SO_PEERGROUPS.

    Raises NotAllowedError.
    """
    size = struct.calcsize("I")
    try:
        data = sock.getsockopt(socket.SOL_SOCKET, SO_PEERGROUPS, _MOST_BYTES)
    except OSError as error:
        raise NotAllowedError(f"its groups cannot be read, as of a member of more than 256: {error}") from error
    return struct.unpack(f"{len(data) // size}I", data)


def require(caller: Caller, role: Role, call: str) -> None:
    """Raises NotAllowedError unless the caller has the role."""
    if role not in caller.roles:
        shown = ", ".join(sorted(caller.roles)) or "no role"
        raise NotAllowedError(f"{call}: expected role {role}, uid {caller.uid} has {shown} on this socket")
