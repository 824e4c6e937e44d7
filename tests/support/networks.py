"""What tests ask of a keeper of networks, and what they look at: its router, and the host of an internet of our own."""

from __future__ import annotations

import json
import os
import select
import socket
import struct
import time

from pyroute2 import IPRoute

from plugind.addresses import Endpoint
from plugind.linux import conntrack, netlink, nftables
from plugind.sandbox.network import namespaces
from plugind.sandbox.network.words import Caps, Given, Used
from tests.support.descriptors import opened
from tests.support.internet import HOST4, OUTSIDE4, OUTSIDE6, PORTS, inside, speak

CAPS = Caps(bytes_per_second=100_000_000, connections=100)


class FakeGroup:
    def __init__(self):
        self.limits, self.attached, self.removed = None, [], False

    def set_limits(self, limits):
        self.limits = limits

    def attach(self, pid):
        self.attached.append(pid)

    def remove(self):
        self.removed = True


def hear(kept, kind=None, timeout_s=20):
    deadline = time.monotonic() + timeout_s
    while True:
        assert select.select([kept.sock], [], [], max(0, deadline - time.monotonic()))[0], "it says nothing"
        message = kept.receive()
        if message is not None:
            assert kind is None or isinstance(message, kind), message
            return message


def take(kept, template, run="run-1", endpoints=(), caps=CAPS, digest="d1", key="tier2"):
    kept.take(run, key, template.namespace, digest, endpoints, caps)
    return hear(kept, Given)


def release(kept, run="run-1"):
    kept.release(run)
    return hear(kept, Used)


def namespace_of(given):
    return os.fstat(given.namespace).st_ino


def state_of(kept):
    """What there is in the router: links, elements of sets, connections. Asked from a socket of the launcher's."""
    pid = kept.process.pid
    router = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY)
    try:
        with namespaces.entered(router):
            nft = nftables.Nftables()
            with IPRoute() as ip:
                links = len(list(ip.get_links()))
            listed = json.loads(nft.listed("ruleset"))["nftables"]
            nft.close()
            elements = {
                each["set" if "set" in each else "map"]["name"]: len(
                    each["set" if "set" in each else "map"].get("elem", ())
                )
                for each in listed
                if "set" in each or "map" in each
            }
            chains = sum("chain" in each for each in listed)
            with conntrack.connect() as sock:
                connections = len(netlink.dump(sock, 1 << 8 | 1, bytes(4)))
    finally:
        os.close(router)
    return links, elements, chains, connections, len(os.listdir(f"/proc/{pid}/fd"))


def connections_of(namespace):
    with namespaces.entered(namespace), conntrack.connect() as sock:
        return len(netlink.dump(sock, 1 << 8 | 1, bytes(4)))


def settled(kept):
    """Its idle work is done: what there is then."""
    before, deadline = None, time.monotonic() + 10
    while time.monotonic() < deadline:
        now = state_of(kept)
        if now == before and not now[3]:
            return now
        before = now
        time.sleep(0.15)
    raise AssertionError(f"it does not come to rest: {before}, {now}")


def host_state(net):
    with namespaces.entered(net.host):
        nft = nftables.Nftables()
        rules = nft.listed("ruleset")
        nft.close()
        with IPRoute() as ip:
            links = sorted(each.get_attr("IFLA_IFNAME") for each in ip.get_links())
            # Not the kernel's own, which come when it has found out that nobody else has its addresses.
            found = [(each.get_attr("RTA_DST") or "", each.get_attr("RTA_OIF")) for each in ip.get_routes()]
            routes = sorted(each for each in found if not each[0].startswith(("fe80", "ff00")))
        names = [
            "ip_forward",
            "conf/all/accept_redirects",
            "conf/wan/forwarding",
            "conf/lo/forwarding",
            "conf/default/forwarding",
        ]
        sysctls = [namespaces.sysctl(f"net/ipv4/{name}") for name in names]
        six = namespaces.sysctl("net/ipv6/conf/all/forwarding")
    return json.loads(rules)["nftables"][1:], links, routes, sysctls, six


def has_table(net, name="plugind"):
    return any(each.get("table", {}).get("name") == name for each in host_state(net)[0])


def tcp_bytes_received(sock):
    """tcpi_bytes_received of struct tcp_info, which counts what nobody has read too."""
    return struct.unpack_from("Q", sock.getsockopt(socket.IPPROTO_TCP, 11, 256), 128)[0]


def leave_nothing(kept, template, net, runs) -> None:
    """So many, some of which speak to somebody: afterwards there is what there was, and without the template nothing."""
    allowed = [Endpoint(OUTSIDE4[0], "tcp", PORTS[0]), Endpoint(OUTSIDE6[0], "udp", PORTS[1])]
    tried = [*allowed, Endpoint(HOST4, "tcp", 1)]
    before = connections_of(net.host)

    def run(number, *, real):
        given = take(kept, template, f"r{number}", allowed, Caps(10**7 + number % 3, 50), digest=f"d{number % 5}")
        if real:
            found = inside(
                template, given.namespace, lambda: [speak(each.address, each.protocol, each.port) for each in tried]
            )
            assert found == ["ok", "ok", "ECONNREFUSED"]
        os.close(given.namespace)
        used = release(kept, f"r{number}")
        assert (used.connections, len(used.refused)) == ((2, 1) if real else (0, 0))

    for number in range(20):
        run(number, real=True)
    first = settled(kept)
    assert first[3] == 0, "connections are tracked still"
    descriptors = opened()
    for number in range(20, runs):
        run(number, real=number % 10 == 0)
    assert settled(kept) == first
    assert opened() <= descriptors
    assert connections_of(net.host) == before
    kept.forget("tier2")
    links, elements, _, _, _ = settled(kept)
    assert links == 2  # lo and the uplink
    assert not any(count for name, count in elements.items() if not name.startswith("__"))
