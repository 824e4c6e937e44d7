"""Entries of connection tracking, with their marks, and how they are forgotten.

Source: linux/netfilter/nfnetlink_conntrack.h.
"""

from __future__ import annotations

import contextlib
import socket
import struct
from typing import Final

from plugind.linux import netlink

_GET: Final = 1 << 8 | 1
_DELETE: Final = 1 << 8 | 2
_TUPLE_ORIG: Final = 1
_MARK: Final = 8
_NESTED: Final = 0x8000
_GENERAL: Final = struct.Struct(">BBH")
"""Family, version, resource (struct nfgenmsg)."""
_NUMBER: Final = struct.Struct(">I")
Tuple = tuple[int, bytes]
"""Family, and the tuple of the first packet as the kernel wrote it."""


def connect() -> socket.socket:
    """A socket for the connections of the namespace in which the caller is. Raises OSError."""
    return netlink.connect(netlink.NETFILTER)


def marked(sock: socket.socket) -> list[tuple[int, Tuple]]:
    """All connections, each with its mark. Raises OSError, ValueError."""
    found = []
    for answer in netlink.dump(sock, _GET, _GENERAL.pack(socket.AF_UNSPEC, 0, 0)):
        values = dict(netlink.attributes(answer[_GENERAL.size :]))
        found.append((_NUMBER.unpack(values.get(_MARK, bytes(4)))[0], (answer[0], values[_TUPLE_ORIG])))
    return found


def forget(sock: socket.socket, connection: Tuple) -> None:
    """Delete it; one that is not there is as good. Raises OSError."""
    family, original = connection
    body = _GENERAL.pack(family, 0, 0) + netlink.attribute(_TUPLE_ORIG | _NESTED, original)
    with contextlib.suppress(FileNotFoundError):
        netlink.order(sock, _DELETE, body)
