"""Internet sockets of a network namespace that no process holds any more, and their end. Source: sock_diag(7)."""

from __future__ import annotations

import contextlib
import itertools
import re
import socket
import struct
from pathlib import Path
from typing import Final

from plugind.linux import netlink

_BY_FAMILY: Final = 20
_DESTROY: Final = 21
_REQUEST: Final = struct.Struct("=BBBxI48s")
"""Family, protocol, extensions, states, identity (struct inet_diag_req_v2)."""
_IDENTITY: Final = slice(4, 52)
"""Where it is in an answer (struct inet_diag_msg)."""
_EVERY_STATE: Final = 0xFFFFFFFF
_FAMILIES: Final = (socket.AF_INET, socket.AF_INET6)
_PROTOCOLS: Final = (socket.IPPROTO_TCP, socket.IPPROTO_UDP, socket.IPPROTO_UDPLITE, socket.IPPROTO_RAW)
_COUNTS: Final = re.compile(r"\b(used|inuse|tw) (\d+)")
_SOCKSTAT: Final = (Path("/proc/self/net/sockstat"), Path("/proc/self/net/sockstat6"))


def connect() -> socket.socket:
    """A socket for those of the namespace in which the caller is. Raises OSError."""
    return netlink.connect(netlink.SOCK_DIAG)


def left() -> bool:
    """Whether the namespace in which the caller is has a socket besides one of connect(), also one that only lingers.

    Raises OSError. Source: sockstat of proc_net(5); `orphan`, `alloc` and `mem` there are the whole machine's.
    """
    return any(has_sockets(path.read_text()) for path in _SOCKSTAT if path.exists())


def has_sockets(sockstat: str) -> bool:
    """What such a file says."""
    return any(int(count) > (what == "used") for what, count in _COUNTS.findall(sockstat))


def destroy(sock: socket.socket) -> None:
    """End every internet socket. Raises OSError."""
    for family, protocol in itertools.product(_FAMILIES, _PROTOCOLS):
        asked = _REQUEST.pack(family, protocol, 0, _EVERY_STATE, bytes(48))
        with contextlib.suppress(FileNotFoundError):  # a protocol without a handler
            for answer in netlink.dump(sock, _BY_FAMILY, asked):
                gone = _REQUEST.pack(family, protocol, 0, _EVERY_STATE, answer[_IDENTITY])
                with contextlib.suppress(FileNotFoundError):  # it ended by itself
                    netlink.order(sock, _DESTROY, gone)
