"""Elements of nftables sets, without libnftables, which first asks the kernel for every set and chain there is.

Some 50 µs whatever the ruleset, and one transaction too. Source: linux/netfilter/nf_tables.h, nfnetlink.h.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Mapping, Sequence
from typing import Final

from plugind.linux import netlink

_NFTABLES: Final = 10
_BEGIN, _END = 0x10, 0x11
_ADD: Final = _NFTABLES << 8 | 12
_CREATE: Final = 0x400
_INET: Final = 1
_TABLE, _SET, _ELEMENTS = 1, 2, 3
_ELEMENT, _KEY, _VALUE = 1, 1, 1
_NESTED: Final = 0x8000
_GENERAL: Final = struct.Struct(">BBH")
"""Family, version, resource (struct nfgenmsg)."""
_MOST: Final = 512
"""Elements of one message: an attribute's length is 16 bits wide."""


def connect() -> socket.socket:
    """A socket for the ruleset of the namespace in which the caller is. Raises OSError."""
    sock = netlink.connect(netlink.NETFILTER)
    sock.setblocking(False)
    return sock


def add(sock: socket.socket, table: str, elements: Mapping[str, Sequence[bytes]]) -> None:
    """Put these keys into sets of an inet table, by the set's name: all of them or none.

    Raises OSError, and RuntimeError where it cannot be said which.
    """
    messages = [
        netlink.message(
            _ADD, netlink.REQUEST | netlink.ACK | _CREATE, _elements(table, name, keys[first : first + _MOST])
        )
        for name, keys in elements.items()
        for first in range(0, len(keys), _MOST)
    ]
    around = _GENERAL.pack(socket.AF_UNSPEC, 0, _NFTABLES)
    begin, end = (netlink.message(kind, netlink.REQUEST, around) for kind in (_BEGIN, _END))
    sock.send(b"".join([begin, *messages, end]))
    _check(sock, len(messages))


def _elements(table: str, name: str, keys: Sequence[bytes]) -> bytes:
    listed = b"".join(
        netlink.attribute(_ELEMENT | _NESTED, netlink.attribute(_KEY | _NESTED, netlink.attribute(_VALUE, key)))
        for key in keys
    )
    return (
        _GENERAL.pack(_INET, 0, 0)
        + netlink.attribute(_TABLE, table.encode() + b"\0")
        + netlink.attribute(_SET, name.encode() + b"\0")
        + netlink.attribute(_ELEMENTS | _NESTED, listed)
    )


def _check(sock: socket.socket, expected: int) -> None:
    """The kernel has answered before send() returned. Every answer is read: the next question is to find none."""
    errors, answers = [], 0
    while True:
        try:
            data = sock.recv(netlink.ROOM)
        except BlockingIOError:
            break
        for kind, body in netlink.split(data):
            if kind == netlink.ERROR:
                answers += 1
                errors += [-number for (number,) in [struct.unpack_from("=i", body)] if number]
    if errors:
        raise OSError(errors[0], os.strerror(errors[0]), "nftables")
    if answers != expected:
        raise RuntimeError(f"nftables: expected {expected} answers, got {answers}: who knows what is in force")
