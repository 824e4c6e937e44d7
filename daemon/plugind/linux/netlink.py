"""What the raw netlink sockets of this package have in common: messages, attributes, one question and its answers.

Sources: netlink(7), linux/netlink.h.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator
from typing import Final

ROUTE: Final = 0
SOCK_DIAG: Final = 4
NETFILTER: Final = 12
REQUEST: Final = 0x1
ACK: Final = 0x4
DUMP: Final = 0x300
ERROR: Final = 2
_DONE: Final = 3
_HEADER: Final = struct.Struct("=IHHII")
"""Length, type, flags, sequence, port."""
_ATTRIBUTE: Final = struct.Struct("=HH")
_KIND: Final = 0x3FFF
"""Without the marks for `nested` and `network byte order`."""
ROOM: Final = 64 * 1024
_WAIT_S: Final = 5.0


def connect(protocol: int) -> socket.socket:
    """A socket of the network namespace in which the caller is, and stays. Raises OSError."""
    sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol)
    sock.settimeout(_WAIT_S)  # the kernel answers before sendmsg() returns: whoever waits has lost its answer
    return sock


def adopt(descriptor: int) -> socket.socket:
    """A socket that somebody else made, perhaps in another namespace: there is what is asked of it. Raises OSError."""
    sock = socket.socket(fileno=descriptor)
    sock.settimeout(_WAIT_S)
    return sock


def message(kind: int, flags: int, body: bytes) -> bytes:
    """One message with its header."""
    return _HEADER.pack(_HEADER.size + len(body), kind, flags, 0, 0) + body


def attribute(kind: int, value: bytes) -> bytes:
    """One attribute, filled up to four bytes."""
    return _ATTRIBUTE.pack(_ATTRIBUTE.size + len(value), kind) + value + bytes(-len(value) % 4)


def attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Kind and value of each. Raises ValueError for what is none."""
    while len(data) >= _ATTRIBUTE.size:
        size, kind = _ATTRIBUTE.unpack_from(data)
        if not _ATTRIBUTE.size <= size <= len(data):
            raise ValueError(f"attribute: expected 4 to {len(data)} bytes, got {size}")
        yield kind & _KIND, data[_ATTRIBUTE.size : size]
        data = data[size + -size % 4 :]


def order(sock: socket.socket, kind: int, body: bytes) -> None:
    """Have one thing done, and wait for the kernel's word that it is. Raises OSError."""
    sock.send(message(kind, REQUEST | ACK, body))
    for _, _ in _answers(sock):
        pass


def dump(sock: socket.socket, kind: int, body: bytes) -> list[bytes]:
    """The bodies of all answers. Raises OSError."""
    sock.send(message(kind, REQUEST | DUMP, body))
    return [answer for _, answer in _answers(sock)]


def _answers(sock: socket.socket) -> Iterator[tuple[int, bytes]]:
    while True:
        data = sock.recv(ROOM)
        for kind, body in split(data):
            if kind in {_DONE, ERROR}:
                number = -struct.unpack_from("=i", body)[0]  # a dump that breaks off says why in its last message
                if number:
                    raise OSError(number, os.strerror(number), "netlink")
                return
            yield kind, body


def split(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Type and body of each message of one datagram. Raises ValueError for what is none."""
    while len(data) >= _HEADER.size:
        size, kind, _, _, _ = _HEADER.unpack_from(data)
        if not _HEADER.size <= size <= len(data):
            raise ValueError(f"message: expected 16 to {len(data)} bytes, got {size}")
        yield kind, data[_HEADER.size : size]
        data = data[size + -size % 4 :]
