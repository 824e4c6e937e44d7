"""The router: a network namespace between the slots and the host, and the links that it has to both.

No link asks who has which address: both ends have the same one, and NOARP, so that the kernel takes its own for that of
the other. What would be asked could be answered wrongly, or not at all.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Collection
from typing import Final

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from plugind.linux import conntrack, nfelements, rtnetlink
from plugind.linux.nftables import Nftables
from plugind.sandbox.network import namespaces, rules
from plugind.sandbox.network.host import Host
from plugind.sandbox.network.words import Addresses, Settings

_MAC: Final = "02:70:6c:75:67:01"
_NODAD: Final = 0x02
_SIX: Final = 10
_INSIDE: Final = "eth0"
"""A slot's own end of its link."""
_ROUTER4: Final = {
    "net/ipv4/ip_forward": "1",
    **{
        f"net/ipv4/conf/{which}/{name}": value
        for which in ("all", "default")
        for name, value in (
            ("rp_filter", "1"),
            ("accept_redirects", "0"),
            ("send_redirects", "0"),
            ("accept_source_route", "0"),
        )
    },
}
_ROUTER6: Final = {
    "net/ipv6/conf/all/forwarding": "1",
    "net/ipv6/conf/all/accept_redirects": "0",
    "net/ipv6/conf/default/accept_redirects": "0",
    "net/ipv6/conf/default/accept_ra": "0",
    "net/ipv6/conf/default/addr_gen_mode": "1",  # no address by itself
    "net/ipv6/conf/default/keep_addr_on_down": "1",  # a slot's link goes down after each run
}
_STRICT: Final = {"net/netfilter/nf_conntrack_tcp_loose": "0"}
"""A connection begins with its first packet, not somewhere in the middle."""
_SLOT4: Final = {
    "net/ipv4/tcp_no_metrics_save": "1",  # what one connection was like is nothing for the next run to learn
    "net/ipv4/ping_group_range": "1 0",
    "net/ipv4/tcp_orphan_retries": "1",
    "net/ipv4/tcp_fin_timeout": "2",
}
_SLOT6: Final = {
    "net/ipv6/conf/default/accept_ra": "0",
    "net/ipv6/conf/default/addr_gen_mode": "1",
}


class Router:
    """Made by a process that then lives in it: when that process ends, and nobody else holds it, all links are gone."""

    def __init__(self, settings: Settings) -> None:
        """Raises IsolationUnavailableError, OSError, NetlinkError, RulesetError."""
        self.settings = settings
        self._host = Host(settings)
        self._six = namespaces.has_ipv6()
        self._host_namespace = namespaces.current()
        self._host.sweep()
        self._host.check()
        self.obstacles = self._host.obstacles()
        self._host_connections = conntrack.connect()
        router = namespaces.fresh()
        namespaces.enter(router)
        os.close(router)
        self.links = rtnetlink.connect()
        self.nft = Nftables()
        self.elements = nfelements.connect()
        self._connections = conntrack.connect()
        self._ip = IPRoute()
        try:
            self._set_up()
        except BaseException:
            self.close()
            raise

    def _set_up(self) -> None:
        _set({**_ROUTER4, **(_ROUTER6 if self._six else {})})
        self.nft.run(rules.ROUTER)
        _set(_STRICT)
        uplink = self.settings.uplink
        inner = self._pair(rules.UPLINK, uplink, self._host_namespace)
        addresses = self.settings.addresses(0)
        with namespaces.entered(self._host_namespace):
            with IPRoute() as ip:
                (outer,) = ip.link_lookup(ifname=uplink)
            self._host.set_up(outer)
            leaves6 = self._six and self._host.forwards_ipv6()
        self._ip.link("set", index=inner, state="up")
        self._ip.addr("add", index=inner, address=addresses.far4, prefixlen=30)
        self._ip.route("add", dst="default", gateway=addresses.near4, oif=inner)
        if self._six:
            self._ip.addr("add", index=inner, address=addresses.far6, prefixlen=126, flags=_NODAD)
            self._ip.route("add", family=_SIX, dst="default", gateway=addresses.near6, oif=inner)
        if self._six and not leaves6:
            self.nft.run(rules.NO_IPV6)

    def _pair(self, name: str, other: str, namespace: int) -> int:
        """A pair of links, one end in this other namespace; the index of the end here."""
        peer = {"ifname": other, "address": _MAC, "net_ns_fd": namespace}
        self._ip.link("add", ifname=name, kind="veth", address=_MAC, peer=peer)
        (ifindex,) = self._ip.link_lookup(ifname=name)
        self._ip.link("set", index=ifindex, arp=False)
        with namespaces.entered(namespace), IPRoute() as ip:
            ip.link("set", index=ip.link_lookup(ifname=other)[0], arp=False)
        return int(ifindex)

    def connect(self, number: int, namespace: int) -> int:
        """Give a fresh namespace its link and its rules; the link's index here. Raises OSError, NetlinkError."""
        addresses = self.settings.addresses(number)
        with namespaces.entered(namespace):
            _set({**_SLOT4, **(_SLOT6 if self._six else {})})
        ifindex = self._pair(rules.link(number), _INSIDE, namespace)
        try:
            self._ip.link("set", index=ifindex, state="up")
            self._ip.addr("add", index=ifindex, address=addresses.near4, prefixlen=30)
            if self._six:
                self._ip.addr("add", index=ifindex, address=addresses.near6, prefixlen=126, flags=_NODAD)
            self._set_up_inside(namespace, addresses)
            self.nft.run(rules.slot(number, addresses))
        except BaseException:
            self._ip.link("del", index=ifindex)
            raise
        return ifindex

    def _set_up_inside(self, namespace: int, addresses: Addresses) -> None:
        with namespaces.entered(namespace), IPRoute() as ip:
            ip.link("set", index=ip.link_lookup(ifname="lo")[0], state="up")
            (ifindex,) = ip.link_lookup(ifname=_INSIDE)
            ip.link("set", index=ifindex, state="up")
            ip.addr("add", index=ifindex, address=addresses.far4, prefixlen=30)
            ip.route("add", dst="default", gateway=addresses.near4, oif=ifindex)
            if self._six:
                ip.addr("add", index=ifindex, address=addresses.far6, prefixlen=126, flags=_NODAD)
                ip.route("add", family=_SIX, dst="default", gateway=addresses.near6, oif=ifindex)

    def disconnect(self, number: int, ifindex: int) -> None:
        """Take both back; some 10 ms. Raises OSError, NetlinkError."""
        self.nft.run(rules.no_slot(number, self.settings.addresses(number)))
        try:
            self._ip.link("del", index=ifindex)
        except NetlinkError as error:
            if error.code != errno.ENODEV:  # whoever is root where the other end is can delete both
                raise

    def forget_connections(self, marks: Collection[int]) -> None:
        """Of these runs, here and on the host, where they have the same first packet; some 10 ms. Raises OSError.

        The kernel walks through the whole machine's table for it, hence once for many.
        """
        for mark, connection in conntrack.marked(self._connections):
            if mark in marks:
                conntrack.forget(self._connections, connection)
                conntrack.forget(self._host_connections, connection)

    def close(self) -> None:
        """Take back what is on the host. The rest goes with this process. Raises OSError, NetlinkError."""
        with namespaces.entered(self._host_namespace):
            self._host.take_back()


def _set(values: dict[str, str]) -> None:
    for name, value in values.items():
        namespaces.set_sysctl(name, value)
