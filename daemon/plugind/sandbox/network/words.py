"""What the launcher and the keeper of networks say to each other: values, and how they become messages.

Both sides check what they get. Addresses are kept as the text that Python's ipaddress makes of them.
"""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Any, Final

from plugind.addresses import Endpoint

MAX_MESSAGE_BYTES: Final = 128 * 1024
MOST_ENDPOINTS: Final = 256
MOST_REFUSALS: Final = 256
"""What is counted one by one, of a run and a family of addresses; the rest is one number."""
PROTOCOLS: Final = {"tcp": 6, "udp": 17}
_MOST_BYTES: Final = 10**10
_MOST_CONNECTIONS: Final = 65535
_LEAST_NEW_PER_SECOND: Final = 20
_TEXTS: Final = {
    "run": re.compile(r"[\x21-\x7e]{1,128}\Z"),
    "key": re.compile(r"[\x20-\x7e]{1,256}\Z"),
    "digest": re.compile(r"[\x20-\x7e]{1,256}\Z"),
    "detail": re.compile(r"[^\0]{0,1000}\Z"),
}
_SUFFIX: Final = re.compile(r"[a-z0-9]{0,7}\Z")
_RANGE4: Final = IPv4Network("198.19.0.0/16")
_RANGE6: Final = IPv6Network("fd70:6c75:6769::/48")
_EACH4, _EACH6 = 4, 4
"""How many addresses of a range one link has: a /30 and a /126."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Of one keeper. Raises ValueError for what cannot be."""

    folder: Path
    """Where it keeps what has to be undone; the same at the next start."""
    range4: IPv4Network = _RANGE4
    range6: IPv6Network = _RANGE6
    suffix: str = ""
    """What tells several daemons of one machine apart, in the names of link and table."""
    spare: int = 2
    """Networks made ahead for each template."""
    most: int = 64
    """Networks in all."""

    def __post_init__(self) -> None:
        if not _SUFFIX.match(self.suffix):
            raise ValueError(f"suffix: expected at most 7 of a-z and 0-9, got {self.suffix!r}")
        room = min(self.range4.num_addresses // _EACH4, self.range6.num_addresses // _EACH6) - 1
        if not 1 <= self.most <= room:
            raise ValueError(f"most: expected 1 to {room}, the networks that fit into the ranges, got {self.most}")
        if not 0 <= self.spare <= self.most:
            raise ValueError(f"spare: expected 0 to {self.most}, got {self.spare}")

    @property
    def uplink(self) -> str:
        """The link's end on the host."""
        return f"plugind-{self.suffix}" if self.suffix else "plugind0"

    @property
    def table(self) -> str:
        """The nftables table on the host."""
        return f"plugind_{self.suffix}" if self.suffix else "plugind"

    def addresses(self, number: int) -> Addresses:
        """Of a slot from 1 on, or of the uplink: 0."""
        four, six = number * _EACH4, number * _EACH6
        return Addresses(
            str(self.range4[four + 1]), str(self.range4[four + 2]), str(self.range6[six + 1]), str(self.range6[six + 2])
        )


@dataclass(frozen=True, slots=True)
class Addresses:
    """Both ends of a link: `near` is where packets go to leave, `far` who sends them."""

    near4: str
    far4: str
    near6: str
    far6: str


@dataclass(frozen=True, slots=True)
class Caps:
    """What a run may have at most: bytes a second, each way, and connections at a time. Raises ValueError.

    Bytes beyond are dropped; a connection beyond is refused, and is among the refusals with the endpoint it was for.
    """

    bytes_per_second: int
    connections: int

    def __post_init__(self) -> None:
        _check_number("bytes_per_second", self.bytes_per_second, 1, _MOST_BYTES)
        _check_number("connections", self.connections, 1, _MOST_CONNECTIONS)

    @property
    def new_per_second(self) -> int:
        """And so many may begin a second.

        One that is closed is tracked for two minutes more, here and on the host, whose table is for everybody.
        """
        return max(self.connections, _LEAST_NEW_PER_SECOND)


@dataclass(frozen=True, slots=True)
class Refusal:
    """What a run tried and was not allowed, and how many packets of it there were."""

    address: str
    protocol: str
    port: int
    count: int


# -- what the launcher says


@dataclass(frozen=True, slots=True)
class Expect:
    """A template is there and may need networks. With a descriptor of its user namespace."""

    key: str


@dataclass(frozen=True, slots=True)
class Take:
    """A run needs one. With a descriptor of its template's user namespace."""

    run: str
    key: str
    digest: str
    endpoints: tuple[Endpoint, ...]
    caps: Caps


@dataclass(frozen=True, slots=True)
class Release:
    """A run needs it no more: no process of it is left."""

    run: str


@dataclass(frozen=True, slots=True)
class Forget:
    """A template is gone."""

    key: str


@dataclass(frozen=True, slots=True)
class End:
    """Take everything back."""


# -- what the keeper says


@dataclass(frozen=True, slots=True)
class Given:
    """A run's network: `ifindex` is what cut() takes, `namespace` a descriptor that now is the launcher's."""

    run: str
    ifindex: int
    namespace: int = -1


@dataclass(frozen=True, slots=True)
class Used:
    """What a run did with it."""

    run: str
    sent_bytes: int
    received_bytes: int
    connections: int
    refused: tuple[Refusal, ...]
    refused_others: int
    """Packets that were refused and are not among `refused`."""


@dataclass(frozen=True, slots=True)
class Failed:
    """A run gets no network, or nobody knows what it did with it."""

    run: str
    detail: str


ToKeeper = Expect | Take | Release | Forget | End
ToLauncher = Given | Used | Failed
_OPS: Final[Mapping[str, type[Any]]] = {
    kind.__name__.lower(): kind for kind in (Expect, Take, Release, Forget, End, Given, Used, Failed)
}
DESCRIPTORS: Final[Mapping[type[Any], int]] = {Expect: 1, Take: 1, Given: 1}
"""How many come with a message; none with the others."""


def encode(message: ToKeeper | ToLauncher) -> bytes:
    """As one datagram. Raises ValueError for one that nobody would take."""
    values = asdict(message)
    values.pop("namespace", None)
    data = json.dumps({"op": type(message).__name__.lower(), **values}, separators=(",", ":")).encode()
    if len(data) > MAX_MESSAGE_BYTES:
        raise ValueError(f"message: expected at most {MAX_MESSAGE_BYTES} bytes, got {len(data)}")
    return data


def decode(data: bytes) -> ToKeeper | ToLauncher:
    """The other way round. Raises ValueError for anything else."""
    try:
        values = json.loads(data)
        kind = _OPS[values.pop("op")]
        message: ToKeeper | ToLauncher = kind(**{name: _value(name, value) for name, value in values.items()})
    except (KeyError, TypeError, AttributeError, RecursionError, json.JSONDecodeError) as error:
        raise ValueError(f"message: expected one that the keeper's protocol has: {error!r:.200}") from error
    if isinstance(message, Given) and message.namespace != -1:
        raise ValueError("given: a descriptor comes as one")
    return message


def _value(name: str, value: Any) -> Any:
    """Each field by its name, which means the same in every message."""
    if (form := _TEXTS.get(name)) is not None:
        return _check_text(name, value, form)
    if name == "endpoints":
        return tuple(Endpoint(**each) for each in _check_list(name, value, MOST_ENDPOINTS))
    if name == "refused":
        return tuple(_refusal(each) for each in _check_list(name, value, 2 * MOST_REFUSALS))
    return Caps(**value) if name == "caps" else _check_number(name, value, 0, 2**63 - 1)


def _refusal(value: Mapping[str, Any]) -> Refusal:
    refusal = Refusal(**value)
    _check_number("count", refusal.count, 0, 2**63 - 1)
    _check_number("port", refusal.port, 0, 65535)
    if refusal.protocol not in PROTOCOLS or str(ipaddress.ip_address(refusal.address)) != refusal.address:
        raise ValueError("refused: expected an address, and tcp or udp")
    return refusal


def _check_text(name: str, value: Any, form: re.Pattern[str]) -> str:
    if not isinstance(value, str) or not form.match(value):
        raise ValueError(f"{name}: expected {form.pattern}")
    return value


def _check_list(name: str, value: Any, most: int) -> Sequence[Any]:
    if not isinstance(value, list) or len(value) > most:
        raise ValueError(f"{name}: expected a list of at most {most}")
    return value


def _check_number(name: str, value: Any, least: int, most: int) -> int:
    if type(value) is not int or not least <= value <= most:
        raise ValueError(f"{name}: expected {least} to {most}, got {value!r:.50}")
    return value
