"""Whom an instance may be given to talk to: every address is judged here, after names were resolved. Pure.

A name is worth nothing as a promise: whoever has it can let it mean 127.0.0.1 tomorrow, or for one answer. So what is
judged is the address, and one bad answer refuses all of them.
Sources: the IANA special-purpose address registries for IPv4 and IPv6 (RFC 6890 and its successors), RFC 4291 for
IPv6; what clouds answer their instances at.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final, TypeAlias, get_args

from plugind.model import Protocol, Wanted

Address: TypeAlias = IPv4Address | IPv6Address
Network: TypeAlias = IPv4Network | IPv6Network

MOST_ADDRESSES: Final = 16
"""That one name may have."""
MOST_NAMES: Final = 32
"""That one run may need."""
MOST_ENDPOINTS: Final = 64
"""That one run may have."""
_METADATA: Final = "a cloud's metadata service"
_NEVER: Final = {
    "0.0.0.0/32": "unspecified",
    "0.0.0.0/8": "this network",
    "127.0.0.0/8": "loopback",
    "169.254.0.0/16": "link-local (cloud metadata lives there)",
    "100.100.100.200/32": _METADATA,  # Alibaba
    "168.63.129.16/32": _METADATA,  # Azure: a public address, which every one of its machines reaches its host at
    "192.0.0.192/32": _METADATA,  # Oracle, of old
    "192.0.0.0/24": "for protocols of the network itself",  # also the anycast addresses, at which a NAT takes orders
    "192.88.99.0/24": "a 6to4 relay",
    "198.19.0.0/16": "plugind's own",
    "224.0.0.0/4": "multicast",
    "255.255.255.255/32": "broadcast",
    "240.0.0.0/4": "reserved",
    "::/128": "unspecified",
    "::1/128": "loopback",
    "fe80::/10": "link-local",
    "fec0::/10": "site-local",
    "ff00::/8": "multicast",
    "fd00:ec2::/32": _METADATA,  # Amazon, with its name and time servers
    "fd20:ce::/32": _METADATA,  # Google
    "fd00:42::42/128": _METADATA,  # Scaleway
    "fd70:6c75:6769::/48": "plugind's own",
    "100::/64": "discarded by routers",
    "100:0:0:1::/64": "a dummy prefix",
    "5f00::/16": "for segment routing",
    "2001:2::/48": "for benchmarks",
    "2001:10::/28": "no address but a hash (ORCHID)",
    "2001:20::/28": "no address but a hash (ORCHID)",
    "2001::/23": "for protocols of the network itself",
}
"""What nobody can approve, and why. The first that fits is said, so parts stand before the whole."""
_PRIVATE: Final = {
    "10.0.0.0/8": "private",
    "172.16.0.0/12": "private",
    "192.168.0.0/16": "private",
    "100.64.0.0/10": "shared by a provider's customers (carrier-grade NAT)",
    "198.18.0.0/15": "for benchmarks",
    "192.0.2.0/24": "for documentation",
    "198.51.100.0/24": "for documentation",
    "203.0.113.0/24": "for documentation",
    "fc00::/7": "private (unique local)",
    "2001:db8::/32": "for documentation",
    "3fff::/20": "for documentation",
}
"""What means something else on every network: only where it is approved as such."""
_CARRIERS: Final = (
    ("::ffff:0:0/96", 0, "IPv4-mapped"),
    ("::/96", 0, "IPv4-compatible"),
    ("::ffff:0:0:0/96", 0, "IPv4-translated"),
    ("64:ff9b::/96", 0, "NAT64"),
    ("64:ff9b:1::/48", 0, "NAT64 of this network"),
    ("2002::/16", 80, "6to4"),
)
"""IPv6 that becomes IPv4 on its way: how far to the right the address in it has to be moved, and what it is called."""
_TEREDO: Final = IPv6Network("2001::/32")
_GLOBAL_UNICAST: Final = IPv6Network("2000::/3")
_ISATAP: Final = (0x00005EFE, 0x02005EFE)
_LABEL: Final = re.compile(r"(?!-)[a-z0-9-]{1,63}(?<!-)")
_NUMBER: Final = re.compile(r"[0-9]+|0x[0-9a-f]*")
_LOCALHOST: Final = "127.0.0.1 localhost\n::1 localhost\n"


class RefusedError(ValueError):
    """Whom a run wants to talk to cannot be given to it. `objections` are all there are, one sentence each."""

    def __init__(self, objections: Sequence[str]) -> None:
        super().__init__("; ".join(objections))
        self.objections = tuple(objections)


@dataclass(frozen=True, slots=True, order=True)
class Endpoint:
    """Whom an instance may talk to. Raises ValueError for anything but one address in its usual form, and a port."""

    address: str
    protocol: Protocol
    port: int

    def __post_init__(self) -> None:
        address = parse(self.address)
        if str(address) != self.address or getattr(address, "ipv4_mapped", None):
            raise ValueError(f"address: expected one in its usual form, got {self.address!r}")
        if self.protocol not in get_args(Protocol):
            raise ValueError(f"protocol: expected tcp or udp, got {self.protocol!r}")
        if type(self.port) is not int or not 1 <= self.port <= 65535:
            raise ValueError(f"port: expected 1 to 65535, got {self.port!r:.50}")

    @property
    def is_six(self) -> bool:
        """Whether it is one of IPv6."""
        return ":" in self.address


def parse(text: object) -> Address:
    """One address in a text: no zone, no leading zero, no number instead of it. Raises ValueError."""
    if not isinstance(text, str) or "%" in text:  # of a number ip_address makes one too
        raise ValueError(f"expected an IPv4 or IPv6 address, got {text!r:.60}")
    return ip_address(text)


def is_address(text: str) -> bool:
    """Whether it is one, and no name."""
    try:
        parse(text)
    except ValueError:
        return False
    return True


def name_objection(name: str) -> str:
    """Why a text is no name to resolve, in words; nothing when it is one: lower case, absolute, of the DNS."""
    labels = name.split(".")
    if len(name) > 253 or not all(_LABEL.fullmatch(label) for label in labels):
        return "no host name in lower case"
    if _NUMBER.fullmatch(labels[-1]):
        return "no host name: programs read it as an address"  # inet_aton(3): also 0x7f000001, 127.1 and 2130706433
    if labels[-1] == "localhost":
        return "the instance itself"
    return "not of the DNS (mDNS)" if labels[-1] == "local" else ""


def is_wildcard(host: str) -> bool:
    """Whether it stands for names that somebody has to list: `*.` and a name of at least two labels."""
    return host.startswith("*.") and "." in host[2:] and not name_objection(host[2:])


def is_below(name: str, wildcard: str) -> bool:
    """Whether a wildcard can stand for a name: one that ends as it does, however many labels stand before that."""
    return not name_objection(name) and name.endswith(wildcard[1:])


def objection(address: Address, allowed: Sequence[Network]) -> str:
    """Why nobody may be given an address to talk to, in words; nothing when somebody may.

    Of what is private the ranges in `allowed` may be given. No others, and nothing that is never allowed.
    """
    if why := _never(address):
        return why
    if (why := private(address)) and not any(address in network for network in allowed):
        return f"{why}, and in no range that is allowed here"
    return ""


def private(address: Address) -> str:
    """In what way an address means something else on every network; nothing when it does not."""
    return _first(_PRIVATE_RANGES, address)


def check(
    wanted: Sequence[Wanted], answers: Mapping[str, Sequence[str]], allowed: Sequence[Network]
) -> tuple[Endpoint, ...]:
    """Whom a run may talk to: what is wanted, with the addresses that its names have. Each once, in a fixed order.

    A name may have a private address only where that address is wanted too, by itself, with the same port and protocol:
    so somebody has approved it as such. Raises RefusedError with every objection: one bad answer refuses the run, for
    good and bad ones together are what rebinding looks like.
    """
    judged = _Judged(wanted, answers, allowed)
    objections = [*judged.objections()]
    endpoints = {} if objections else dict(judged.endpoints())
    if len(endpoints) > MOST_ENDPOINTS:
        objections = [f"expected at most {MOST_ENDPOINTS} endpoints in all, got {len(endpoints)}"]
    if objections:
        raise RefusedError(objections)
    return tuple(endpoint for _, endpoint in sorted(endpoints.items()))


def hosts_text(answers: Mapping[str, Sequence[str]]) -> str:
    """The /etc/hosts of an instance: itself, and each name with its addresses. Raises ValueError for other texts."""
    lines = [_LOCALHOST]
    for name in sorted(answers):
        if why := name_objection(name):
            raise ValueError(f"{name!r:.300}: {why}")
        lines += [f"{parse(text)} {name}\n" for text in answers[name]]
    return "".join(lines)


@dataclass(frozen=True, slots=True)
class _Judged:
    wanted: Sequence[Wanted]
    answers: Mapping[str, Sequence[str]]
    allowed: Sequence[Network]

    def objections(self) -> Iterator[str]:
        names = {want.host for want in self.wanted if not is_address(want.host)}
        if len(names) > MOST_NAMES:
            yield f"expected at most {MOST_NAMES} names, got {len(names)}"
            return
        for name in sorted(names):
            yield from self._to_name(name)
        for want in dict.fromkeys(self.wanted):
            for address in self._addresses(want):
                if why := self._to(want, address):
                    yield f"{want.host} port {want.port}/{want.protocol}: {_shown(want, address)}{why}"

    def endpoints(self) -> Iterator[tuple[tuple[int, int, str, int], Endpoint]]:
        for want in self.wanted:
            for address in self._addresses(want):
                order = (address.version, int(address), want.protocol, want.port)
                yield order, Endpoint(str(address), want.protocol, want.port)

    def _addresses(self, want: Wanted) -> Iterator[Address]:
        """Those that can be read; `_to_name` objects to the others."""
        texts = [want.host] if is_address(want.host) else self.answers.get(want.host, ())
        yield from dict.fromkeys(parse(text) for text in texts[:MOST_ADDRESSES] if is_address(text))

    def _to_name(self, name: str) -> Iterator[str]:
        found = self.answers.get(name, ())
        if why := name_objection(name):
            yield f"{name!r:.300}: {why}"
        elif not found:
            yield f"{name}: it has no address"
        elif len(found) > MOST_ADDRESSES:
            yield f"{name}: expected at most {MOST_ADDRESSES} addresses, got {len(found)}"
        for text in found[:MOST_ADDRESSES]:
            if not is_address(text):
                yield f"{name}: {text!r:.60} is no address"

    def _to(self, want: Wanted, address: Address) -> str:
        why = objection(address, self.allowed)
        if not why and private(address) and not is_address(want.host) and not self._is_approved(want, address):
            why = f"{private(address)}, and a permission for that address itself is not approved"
        return why

    def _is_approved(self, want: Wanted, address: Address) -> bool:
        return any(
            is_address(each.host)
            and parse(each.host) == address
            and (each.port, each.protocol) == (want.port, want.protocol)
            for each in self.wanted
        )


def _shown(want: Wanted, address: Address) -> str:
    return "" if is_address(want.host) else f"{address}: "


def _never(address: Address) -> str:
    if isinstance(address, IPv4Address):
        return _first(_NEVER_RANGES, address)
    if address.scope_id:
        return "of one link only"
    known = address in _GLOBAL_UNICAST or private(address)
    return _carried(address) or _first(_NEVER_RANGES, address) or ("" if known else "reserved")


def _carried(address: IPv6Address) -> str:
    """Of what is IPv6 for a part of its way only. An IPv4 address is asked for as one, and then judged as one."""
    number = int(address)
    found = [(number >> shift, how) for network, shift, how in _CARRIER_RANGES if address in network]
    if address in _TEREDO:
        found = [(~number, "Teredo")]
    elif number >> 32 & 0xFFFFFFFF in _ISATAP:
        found = [(number, "ISATAP")]
    if not found or number <= 1:  # unspecified and loopback are no IPv4-compatible addresses
        return ""
    carried, how = found[0]
    return f"carries the IPv4 address {IPv4Address(carried & 0xFFFFFFFF)} ({how})"


def _first(ranges: Sequence[tuple[Network, str]], address: Address) -> str:
    return next((why for network, why in ranges if address in network), "")


def _ranges(texts: Mapping[str, str]) -> tuple[tuple[Network, str], ...]:
    return tuple((ip_network(text), why) for text, why in texts.items())


_NEVER_RANGES: Final = _ranges(_NEVER)
_PRIVATE_RANGES: Final = _ranges(_PRIVATE)
_CARRIER_RANGES: Final = tuple((IPv6Network(text), shift, how) for text, shift, how in _CARRIERS)
