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
_COUNTS: Final = re.compile(r"\b(?:used|inuse|tw) (\d+)")


def left() -> bool:
    """Whether the namespace in which the caller is has a socket of any kind, also one that waits for its end.

    Raises OSError. Source: proc_net(5), sockstat; `orphan`, `alloc` and `mem` there are the whole machine's.
    """
    return any(has_sockets(path.read_text()) for path in map(Path, _SOCKSTAT) if path.exists())


_SOCKSTAT: Final = ("/proc/thread-self/net/sockstat", "/proc/thread-self/net/sockstat6")


def has_sockets(sockstat: str) -> bool:
    """What such a file says."""
    return any(int(count) for count in _COUNTS.findall(sockstat))


def destroy() -> None:
    """End every internet socket of the namespace in which the caller is. Raises OSError."""
    with netlink.connect(netlink.SOCK_DIAG) as sock:
        for family, protocol in itertools.product(_FAMILIES, _PROTOCOLS):
            asked = _REQUEST.pack(family, protocol, 0, _EVERY_STATE, bytes(48))
            with contextlib.suppress(FileNotFoundError):  # a protocol without a handler, or one that ended by itself
                for answer in netlink.dump(sock, _BY_FAMILY, asked):
                    gone = _REQUEST.pack(family, protocol, 0, _EVERY_STATE, answer[_IDENTITY])
                    with contextlib.suppress(FileNotFoundError):
                        netlink.order(sock, _DESTROY, gone)
