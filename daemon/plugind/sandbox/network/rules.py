"""The rulesets of the router and of the host as texts, and what the router's counters say. Pure.

All a run may is elements of a few sets of the router, keyed by the slot's link on the router's side, which no plugin
can reach. A slot without a run has no element in `allowed4` and `allowed6`: everything it sends is refused. Protocols
are numbers: what they are called is a file of the machine. Sources: nft(8), libnftables-json(5).
"""

from __future__ import annotations

import ipaddress
import json
import struct
from collections.abc import Mapping, Sequence
from typing import Any, Final

from plugind.addresses import Endpoint
from plugind.sandbox.network.words import MOST_REFUSALS, PROTOCOLS, Addresses, Caps, Refusal, Settings

UPLINK: Final = "up"
"""The uplink's end in the router."""
NAME: Final = "plugind"
TABLE: Final = f"inet {NAME}"
"""Of the router."""
_NAME_BYTES: Final = 16
"""Of a link. Source: IFNAMSIZ of linux/if.h."""
COUNTED: Final = ("sent", "received", "begun", "others")
_CAPPED: Final = ("sending", "receiving")
_BURST_BYTES: Final = 128 * 1024
"""More than one packet can be before it is cut for the wire: a limit below it would let none of these pass, ever."""
_NAMES: Final = {str(number): name for name, number in PROTOCOLS.items()} | {name: name for name in PROTOCOLS}


def link(number: int) -> str:
    """A slot's end in the router."""
    return f"s{number}"


# -- the router

ROUTER: Final = f"""
table {TABLE} {{
    set sources4 {{
        type ifname . ipv4_addr
    }}
    set sources6 {{
        type ifname . ipv6_addr
    }}
    set allowed4 {{
        type ifname . ipv4_addr . inet_proto . inet_service
    }}
    set allowed6 {{
        type ifname . ipv6_addr . inet_proto . inet_service
    }}
    map marks {{
        type ifname : mark
    }}
    set current {{
        type ifname . mark
    }}
    set sent {{
        type ifname
        counter
    }}
    set received {{
        type ifname
        counter
    }}
    set begun {{
        type ifname
        counter
    }}
    set others {{
        type ifname
        counter
    }}
    set sending {{
        type ifname
        flags dynamic
    }}
    set receiving {{
        type ifname
        flags dynamic
    }}
    map beginnings {{
        type ifname : verdict
    }}
    map refusals {{
        type ifname : verdict
    }}
    chain input {{
        type filter hook input priority filter; policy drop;
        iifname != {{ "{UPLINK}", "lo" }} iifname @sending goto refuse
    }}
    chain output {{
        # What it refuses with, and nothing else: it has nothing to say of its own.
        type filter hook output priority filter; policy drop;
        meta l4proto {{ 1, 58 }} accept
        tcp flags & rst == rst accept
    }}
    chain forward {{
        type filter hook forward priority filter; policy drop;
        iifname "{UPLINK}" goto into
        iifname @sending goto from
    }}
    chain from {{
        meta nfproto ipv4 iifname . ip saddr != @sources4 drop
        meta nfproto ipv6 iifname . ip6 saddr != @sources6 drop
        oifname != "{UPLINK}" goto refuse
        iifname . ip daddr . meta l4proto . th dport @allowed4 goto pass
        iifname . ip6 daddr . meta l4proto . th dport @allowed6 goto pass
        goto refuse
    }}
    chain pass {{
        ct state invalid drop
        iifname . ct mark @current goto leave
        # The first packet of a connection, or one that has another run's mark.
        iifname vmap @beginnings
    }}
    chain begin {{
        ct mark set iifname map @marks
        iifname @begun
        goto leave
    }}
    chain leave {{
        iifname . ct mark != @current drop
        iifname @sent accept
    }}
    chain into {{
        ct state != {{ established, related }} drop
        oifname . ct mark != @current drop
        oifname @receiving oifname @received accept
    }}
    chain refuse {{
        # A kernel's own word about a connection, such as of a port that was closed meanwhile: nobody tried anything.
        ct state related drop
        iifname vmap @refusals
        meta l4proto 6 reject with tcp reset
        reject with icmpx admin-prohibited
    }}
}}
"""


NO_IPV6: Final = f"insert rule {TABLE} from meta nfproto ipv6 goto refuse"
"""Where the host does not forward it: a plugin is told at once, and not when it has waited for nothing."""


def slot(number: int, addresses: Addresses) -> str:
    """What a slot has as long as it is there: its addresses, and where its refusals are counted."""
    name = link(number)
    lines = [f"add chain {TABLE} refused_{name}", f"add chain {TABLE} begin_{name}"]
    for digit, kind, family in (("4", "ipv4_addr", "ip"), ("6", "ipv6_addr", "ip6")):
        many = f"{{ type {kind} . inet_proto . inet_service; size {MOST_REFUSALS}; flags dynamic; counter; }}"
        count = f"add @refused{digit}_{name} {{ {family} daddr . meta l4proto . th dport counter }} return"
        lines += [
            f"add set {TABLE} refused{digit}_{name} {many}",
            f"add rule {TABLE} refused_{name} meta l4proto {{ 6, 17 }} {count}",
        ]
    lines += [
        f"add rule {TABLE} refused_{name} iifname @others",
        f'add element {TABLE} refusals {{ "{name}" : jump refused_{name} }}',
        f'add element {TABLE} beginnings {{ "{name}" : goto begin_{name} }}',
        f'add element {TABLE} sources4 {{ "{name}" . {addresses.far4} }}',
        f'add element {TABLE} sources6 {{ "{name}" . {addresses.far6} }}',
    ]
    return "\n".join(lines)


def no_slot(number: int, addresses: Addresses) -> str:
    """The contrary, of a slot that is not ready for a run."""
    name = link(number)
    return "\n".join(
        [
            f'delete element {TABLE} refusals {{ "{name}" : jump refused_{name} }}',
            f'delete element {TABLE} beginnings {{ "{name}" : goto begin_{name} }}',
            f'delete element {TABLE} sources4 {{ "{name}" . {addresses.far4} }}',
            f'delete element {TABLE} sources6 {{ "{name}" . {addresses.far6} }}',
            *(f"{verb} chain {TABLE} {each}_{name}" for verb in ("flush", "delete") for each in ("refused", "begin")),
            f"delete set {TABLE} refused4_{name}",
            f"delete set {TABLE} refused6_{name}",
        ]
    )


def ready(number: int, mark: int, caps: Caps) -> str:
    """What a run will have that can be there before it: counters from nothing, a mark, and caps that may be its."""
    name = link(number)
    return "\n".join(
        [
            f'add element {TABLE} marks {{ "{name}" : {mark} }}',
            f'add element {TABLE} current {{ "{name}" . {mark} }}',
            *(f'add element {TABLE} {counted} {{ "{name}" counter packets 0 bytes 0 }}' for counted in COUNTED),
            _caps(name, caps),
        ]
    )


def unready(number: int, mark: int) -> str:
    """The contrary."""
    name = link(number)
    return "\n".join(
        [
            f'delete element {TABLE} marks {{ "{name}" : {mark} }}',
            f'delete element {TABLE} current {{ "{name}" . {mark} }}',
            *(f'delete element {TABLE} {each} {{ "{name}" }}' for each in (*COUNTED, *_CAPPED)),
            f"flush set {TABLE} refused4_{name}",
            f"flush set {TABLE} refused6_{name}",
            f"flush chain {TABLE} begin_{name}",
        ]
    )


def other_caps(number: int, caps: Caps) -> str:
    """Replace them."""
    name = link(number)
    gone = [f'delete element {TABLE} {each} {{ "{name}" }}' for each in _CAPPED]
    return "\n".join([*gone, f"flush chain {TABLE} begin_{name}", _caps(name, caps)])


def _caps(name: str, caps: Caps) -> str:
    rate = f"limit rate {caps.bytes_per_second} bytes/second burst {_BURST_BYTES} bytes"
    often = f"limit rate over {caps.new_per_second}/second burst {caps.new_per_second} packets"
    return "\n".join(
        [
            f'add element {TABLE} sending {{ "{name}" {rate} }}',
            f'add element {TABLE} receiving {{ "{name}" {rate} }}',
            # Rules and not an element: the kernel throws an element that counts connections away when it counts none.
            f"add rule {TABLE} begin_{name} ct count over {caps.connections} goto refuse",
            f"add rule {TABLE} begin_{name} {often} goto refuse",
            f"add rule {TABLE} begin_{name} goto begin",
        ]
    )


def keys(number: int, endpoints: Sequence[Endpoint]) -> dict[str, list[bytes]]:
    """What lets a slot speak to these: the keys of `allowed4` and `allowed6`, as the kernel keeps them.

    Each part is filled up to 4 bytes.
    """
    name = link(number).encode().ljust(_NAME_BYTES, b"\0")
    found: dict[str, list[bytes]] = {}
    for each in dict.fromkeys(endpoints):
        address = ipaddress.ip_address(each.address).packed
        key = b"".join([name, address, struct.pack(">B3xH2x", PROTOCOLS[each.protocol], each.port)])
        found.setdefault("allowed6" if each.is_six else "allowed4", []).append(key)
    return found


def allow_no_more(number: int, endpoints: Sequence[Endpoint]) -> str:
    """The contrary, as a command."""
    lines = []
    for name, six in (("allowed4", False), ("allowed6", True)):
        elements = ", ".join(
            f'"{link(number)}" . {each.address} . {PROTOCOLS[each.protocol]} . {each.port}'
            for each in dict.fromkeys(endpoints)
            if each.is_six is six
        )
        if elements:
            lines.append(f"delete element {TABLE} {name} {{ {elements} }}")
    return "\n".join(lines)


# -- the host


def host(settings: Settings) -> str:
    """The one table there: it lets the router's packets out under the host's addresses, and keeps all others away.

    Before the usual priority: what is dropped here no other table of the host need see.
    """
    uplink, four, six = settings.uplink, settings.range4, settings.range6
    return f"""
table inet {settings.table} {{
    chain input {{
        type filter hook input priority filter - 10; policy accept;
        iifname "{uplink}" meta l4proto 6 reject with tcp reset
        iifname "{uplink}" reject with icmpx admin-prohibited
    }}
    chain forward {{
        type filter hook forward priority filter - 10; policy accept;
        iifname "{uplink}" jump leaving
        oifname "{uplink}" jump entering
    }}
    chain leaving {{
        meta nfproto ipv4 ip saddr != {four} drop
        meta nfproto ipv6 ip6 saddr != {six} drop
        # It would leave with the address that nobody outside can answer.
        ct state invalid drop
    }}
    chain entering {{
        ct state != {{ established, related }} drop
        iifname "{uplink}" drop
    }}
    chain postrouting {{
        type nat hook postrouting priority srcnat; policy accept;
        oifname "{uplink}" return
        ip saddr {four} masquerade
        ip6 saddr {six} masquerade
    }}
}}
"""


def no_host(settings: Settings) -> str:
    """The contrary, whether it is there or not."""
    return f"table inet {settings.table} {{\n}}\ndelete table inet {settings.table}\n"


# -- what libnftables lists


def elements(listed: str) -> list[Mapping[str, Any]]:
    """Each element of the one set that was listed, as {"val": ..., "counter": {...}}. Raises ValueError."""
    try:
        found = [each["set"] for each in json.loads(listed)["nftables"] if "set" in each]
        if len(found) != 1:
            raise ValueError(f"nftables: expected one set, got {len(found)}")
        inner = [each["elem"] for each in found[0].get("elem", [])]
        for each in inner:
            each["val"], _count(each)
    except (KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"nftables: expected a set with counters: {error!r:.200}") from error
    return inner


def _count(element: Mapping[str, Any]) -> tuple[int, int]:
    packets, size_bytes = element["counter"]["packets"], element["counter"]["bytes"]
    if type(packets) is not int or type(size_bytes) is not int or packets < 0 or size_bytes < 0:
        raise ValueError("nftables: expected numbers of packets and bytes")
    return packets, size_bytes


def count_of(listed: str, number: int) -> tuple[int, int]:
    """Packets and bytes that one slot's element counted. Raises ValueError."""
    for element in elements(listed):
        if element["val"] == link(number):
            return _count(element)
    raise ValueError(f"nftables: expected an element {link(number)}")


def refusals(listed: str) -> list[Refusal]:
    """What a slot's sets of refusals hold. Raises ValueError."""
    found = []
    for element in elements(listed):
        try:
            address, protocol, port = element["val"]["concat"]
            name = _NAMES[str(protocol)]
            found.append(Refusal(str(ipaddress.ip_address(address)), name, int(port), _count(element)[0]))
        except (KeyError, TypeError) as error:
            raise ValueError(f"nftables: expected address, protocol and port: {error!r:.200}") from error
    return found


def tables(listed: str) -> list[str]:
    """The names of the tables of family inet. Raises ValueError."""
    try:
        found = [each["table"] for each in json.loads(listed)["nftables"] if "table" in each]
        return [str(each["name"]) for each in found if each["family"] == "inet"]
    except (KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"nftables: expected tables: {error!r:.200}") from error
