"""Entries of connection tracking, found by their mark and forgotten by their tuple.

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
_MARK_MASK: Final = 21
_NESTED: Final = 0x8000
_GENERAL: Final = struct.Struct(">BBH")
"""Family, version, resource (struct nfgenmsg)."""
_NUMBER: Final = struct.Struct(">I")
Tuple = tuple[int, bytes]
"""Family, and the tuple of the first packet as the kernel wrote it."""


def connect() -> socket.socket:
    """A socket for the connections of the namespace in which the caller is. Raises OSError."""
    return netlink.connect(netlink.NETFILTER)


def marked(sock: socket.socket, mark: int) -> list[Tuple]:
    """The connections with a mark. Raises OSError, ValueError."""
    wanted = netlink.attribute(_MARK, _NUMBER.pack(mark)) + netlink.attribute(_MARK_MASK, _NUMBER.pack(0xFFFFFFFF))
    found = []
    for answer in netlink.dump(sock, _GET, _GENERAL.pack(socket.AF_UNSPEC, 0, 0) + wanted):
        values = dict(netlink.attributes(answer[_GENERAL.size :]))
        found.append((answer[0], values[_TUPLE_ORIG]))
    return found


def forget(sock: socket.socket, connection: Tuple) -> None:
    """Delete it; one that is not there is as good. Raises OSError."""
    family, original = connection
    body = _GENERAL.pack(family, 0, 0) + netlink.attribute(_TUPLE_ORIG | _NESTED, original)
    with contextlib.suppress(FileNotFoundError):
        netlink.order(sock, _DELETE, body)
