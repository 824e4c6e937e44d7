"""Links up and down, without pyroute2: what the launcher itself does before it kills. Source: rtnetlink(7)."""

from __future__ import annotations

import socket
import struct
from typing import Final

from plugind.linux import netlink

_NEWLINK: Final = 16
_IFF_UP: Final = 1
_LINK: Final = struct.Struct("=BxHiII")
"""Family, type, index, flags, which flags are meant (struct ifinfomsg)."""


def connect() -> socket.socket:
    """A socket for the links of the namespace in which the caller is. Raises OSError."""
    return netlink.connect(netlink.ROUTE)


def link_down(sock: socket.socket, ifindex: int) -> None:
    """Nothing goes through it when this returns: some 0.1 ms. Raises OSError."""
    netlink.order(sock, _NEWLINK, _LINK.pack(socket.AF_UNSPEC, 0, ifindex, 0, _IFF_UP))


def link_up(sock: socket.socket, ifindex: int) -> None:
    """The contrary. Raises OSError."""
    netlink.order(sock, _NEWLINK, _LINK.pack(socket.AF_UNSPEC, 0, ifindex, _IFF_UP, _IFF_UP))
