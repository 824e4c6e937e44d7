"""The name servers that are asked: as an operator writes them, or as resolv.conf(5) names them."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from plugind import addresses
from plugind.errors import ConfigError

PORT: Final = 53
MOST: Final = 3
"""As MAXNS of resolv.conf(5); further ones are never asked there either."""
_PATH: Final = "/etc/resolv.conf"
_MAX_BYTES: Final = 64 * 1024
_WITH_PORT: Final = re.compile(r"(?:\[(?P<six>[^\]]*)\]|(?P<four>[0-9.]+)):(?P<port>[0-9]{1,5})")


@dataclass(frozen=True, slots=True)
class Server:
    """One to ask. `scope` is the number of a link, where the address is one of a link only; else 0."""

    address: str
    port: int = PORT
    scope: int = 0

    @property
    def family(self) -> socket.AddressFamily:
        """Of its sockets."""
        return socket.AF_INET6 if ":" in self.address else socket.AF_INET

    @property
    def place(self) -> tuple[str, int] | tuple[str, int, int, int]:
        """As connect(2) takes it."""
        four = (self.address, self.port)
        return (*four, 0, self.scope) if self.family == socket.AF_INET6 else four

    def __str__(self) -> str:
        if self.port == PORT:
            return self.address
        return f"[{self.address}]:{self.port}" if ":" in self.address else f"{self.address}:{self.port}"


def parse(text: str) -> Server:
    """`192.0.2.53`, `2001:db8::53`, `192.0.2.53:5353` or `[2001:db8::53]:5353`. Raises ConfigError."""
    match = _WITH_PORT.fullmatch(text)
    address, port = (match["six"] or match["four"], int(match["port"])) if match else (text, PORT)
    try:
        parsed = addresses.parse(address)
    except ValueError:
        parsed = None
    if parsed is None or not 0 < port < 65536 or (match and match["six"] and parsed.version == 4):
        expected = "an address, such as 192.0.2.53 or [2001:db8::53]:5353"
        raise ConfigError(f"name server: expected {expected}, got {text!r:.100}")
    return Server(str(parsed), port)


class Servers:
    """Those that count now: the ones that were given, else those of resolv.conf, read again when it has changed."""

    def __init__(self, given: Sequence[Server], path: str = _PATH) -> None:
        self._given = tuple(given)
        self._path = path
        self._seen: tuple[int, ...] = ()
        self._found: tuple[Server, ...] = ()

    def now(self) -> tuple[Server, ...]:
        """None at all where resolv.conf cannot be read or names none."""
        if self._given:
            return self._given
        try:
            status = os.stat(self._path)
            seen = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
            if seen != self._seen:
                with open(self._path, "rb") as file:
                    self._found = of_resolv_conf(file.read(_MAX_BYTES).decode(errors="replace"))
                self._seen = seen
        except OSError:
            self._seen, self._found = (), ()
        return self._found


def of_resolv_conf(text: str) -> tuple[Server, ...]:
    """Its `nameserver` lines. What nobody understands is passed over, as the C library does."""
    found: list[Server] = []
    for line in text.splitlines():
        words = line.split()
        if len(words) >= 2 and words[0] == "nameserver" and (server := _of_line(words[1])) is not None:
            found.append(server)
    return tuple(found[:MOST])


def _of_line(text: str) -> Server | None:
    address, _, link = text.partition("%")
    try:
        return Server(str(addresses.parse(address)), PORT, socket.if_nametoindex(link) if link else 0)
    except (OSError, ValueError):  # no address; a link that is not there
        return None
