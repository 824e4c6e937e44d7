"""What the keeper changes on the host: one nftables table, one link, forwarding of IPv4. And how all of it is undone.

What has to be remembered for that lies in a file, so that it is undone after a kill -9 too: by the next start, or by
sweep(). IPv6 forwarding is never switched on: the host would from then on ignore router advertisements, and perhaps
lose its own way out with them.
Sources: Documentation/networking/ip-sysctl.rst, inet_forward_change() in net/ipv4/devinet.c.
"""

from __future__ import annotations

import contextlib
import ipaddress
import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from pyroute2 import IPRoute

from plugind.errors import IsolationUnavailableError
from plugind.linux.nftables import Nftables
from plugind.sandbox.network import foreign, namespaces, rules
from plugind.sandbox.network.foreign import Obstacle
from plugind.sandbox.network.words import Settings

_FILE: Final = "network.json"
_FORWARD: Final = "net/ipv4/ip_forward"
_FORWARD6: Final = "net/ipv6/conf/all/forwarding"
_CONF: Final = "net/ipv4/conf"
_GONE_S: Final = 3.0
_DEFAULT_LIKE_BITS: Final = 8
"""Routes for more than this leads to are ways to everywhere, as VPNs write them (0.0.0.0/1), and give way to ours."""


class Host:
    """The host's side. Every method is for a caller in the host's network namespace."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._file = settings.folder / _FILE

    def forwards_ipv6(self) -> bool:
        """Whether somebody has switched it on."""
        return namespaces.sysctl(_FORWARD6) == "1"

    def sweep(self) -> None:
        """Undo what a killed keeper left. Raises IsolationUnavailableError where one is still there, OSError."""
        uplink = self._settings.uplink
        deadline = time.monotonic() + _GONE_S
        # For a moment it may still be: the kernel takes a namespace's links down in its own time.
        while os.path.exists(f"/proc/sys/{_CONF}/{uplink}"):
            if time.monotonic() > deadline:
                raise IsolationUnavailableError(
                    "network", f"expected no link {uplink}: another daemon needs another name"
                )
            time.sleep(0.01)
        self._take_back_rules()

    def check(self) -> None:
        """Raises IsolationUnavailableError where a route of the host leads into our ranges."""
        with IPRoute() as ip:
            for route in ip.get_routes():
                self._check_route(ip, route)

    def _check_route(self, ip: IPRoute, route: Any) -> None:
        if (text := route.get_attr("RTA_DST")) is None or route["dst_len"] < _DEFAULT_LIKE_BITS:
            return
        network = ipaddress.ip_network((text, route["dst_len"]), strict=False)
        ours = self._settings.range4 if network.version == 4 else self._settings.range6
        if network.version != ours.version or not network.overlaps(ours):
            return
        links = ip.get_links(route.get_attr("RTA_OIF")) if route.get_attr("RTA_OIF") else ()
        names = "".join(str(link.get_attr("IFLA_IFNAME")) for link in links)
        if names != self._settings.uplink:  # which is there when doctor asks
            raise IsolationUnavailableError(
                "network", f"expected no route of this machine within {ours}, found {network} dev {names}"
            )

    def obstacles(self) -> list[Obstacle]:
        """Who else drops what is to be forwarded. Raises OSError, RulesetError, ValueError."""
        nft = Nftables()
        try:
            return foreign.obstacles(nft.listed("chains"), self._settings.uplink)
        finally:
            nft.close()

    def set_up(self, ifindex: int) -> None:
        """Table, addresses of the uplink's end here, forwarding. Raises OSError, RulesetError."""
        addresses = self._settings.addresses(0)
        nft = Nftables()
        try:
            nft.run(rules.no_host(self._settings) + rules.host(self._settings))
        finally:
            nft.close()
        six = self.forwards_ipv6()
        if namespaces.has_ipv6():
            namespaces.set_sysctl(f"net/ipv6/conf/{self._settings.uplink}/disable_ipv6", "0" if six else "1")
        with IPRoute() as ip:
            ip.link("set", index=ifindex, state="up")
            ip.addr("add", index=ifindex, address=addresses.near4, prefixlen=30)
            ip.route("add", dst=str(self._settings.range4), gateway=addresses.far4, oif=ifindex)
            if six:
                # nodad: there is nobody else, and it is to be there at once.
                ip.addr("add", index=ifindex, address=addresses.near6, prefixlen=126, flags=0x02)
                ip.route("add", family=10, dst=str(self._settings.range6), gateway=addresses.far6, oif=ifindex)
        self._forward()

    def _forward(self) -> None:
        if namespaces.sysctl(_FORWARD) != "0":
            return
        # With it the kernel changes these too, and back again to what they need not have been.
        links = sorted(set(os.listdir(f"/proc/sys/{_CONF}")) - {"all", self._settings.uplink})
        along = [f"{_CONF}/all/accept_redirects", *(f"{_CONF}/{name}/forwarding" for name in links)]
        former = {name: namespaces.sysctl(name) for name in along}
        self._settings.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        text = json.dumps({"of": _identity(), "former": former})
        beside = self._file.with_suffix(".new")
        beside.write_text(text)
        beside.replace(self._file)  # before the change: whoever finds the file has something to undo, or nothing
        namespaces.set_sysctl(_FORWARD, "1")

    def take_back(self) -> None:
        """All of it, as far as it is there. Raises OSError, NetlinkError, RulesetError."""
        with IPRoute() as ip:
            for ifindex in ip.link_lookup(ifname=self._settings.uplink):
                ip.link("del", index=ifindex)
        self._take_back_rules()

    def _take_back_rules(self) -> None:
        nft = Nftables()
        try:
            nft.run(rules.no_host(self._settings))
            others = [name for name in rules.tables(nft.listed("tables")) if name.split("_")[0] == "plugind"]
        finally:
            nft.close()
        self._forward_no_more(keep=bool(others))

    def _forward_no_more(self, *, keep: bool) -> None:
        """`keep`: another daemon of this machine needs it, which found it switched on. The next sweep asks again."""
        if keep or not self._file.exists():
            return
        remembered = json.loads(self._file.read_text())
        if remembered["of"] == _identity() and namespaces.sysctl(_FORWARD) == "1":
            namespaces.set_sysctl(_FORWARD, "0")
            _restore(remembered["former"])
        self._file.unlink()


def _restore(former: Mapping[str, str | None]) -> None:
    for name, value in former.items():
        if value is not None and namespaces.sysctl(name) not in {None, value}:
            with contextlib.suppress(FileNotFoundError):  # that link is gone
                namespaces.set_sysctl(name, value)


def _identity() -> str:
    """This boot and this network namespace: what a file of another says is over."""
    return f"{Path('/proc/sys/kernel/random/boot_id').read_text().strip()} {os.stat('/proc/self/ns/net').st_ino}"
