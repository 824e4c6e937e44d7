"""The keeper of networks with a real kernel, in an internet of our own: what is allowed gets through, and nothing else."""

from __future__ import annotations

import contextlib
import errno
import itertools
import json
import os
import select
import signal
import socket
import struct
import time
import urllib.request
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path

import pytest
from pyroute2 import IPRoute

from plugind.errors import IsolationUnavailableError
from plugind.linux import conntrack, netlink, nftables, sock_diag
from plugind.sandbox.network import foreign, keeper, namespaces, probing
from plugind.sandbox.network.words import Caps, Endpoint, Failed, Given, Settings, Used
from tests.support import internet
from tests.support.internet import (
    HOST4,
    HOST6,
    HTTP_PORT,
    OUTSIDE4,
    OUTSIDE6,
    PAGE,
    PORTS,
    Internet,
    Template,
    inside,
    instance,
    speak,
)

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


@pytest.fixture(scope="module")
def net():
    made = Internet()
    made.serve()
    yield made
    made.close()


@pytest.fixture
def template():
    made = Template()
    yield made
    made.close()


@pytest.fixture
def start(net, tmp_path):
    started = []

    def begin(settings=None):
        with namespaces.entered(net.host):
            kept = keeper.start(settings or Settings(folder=tmp_path, most=8), FakeGroup())
        started.append(kept)
        return kept

    yield begin
    for kept in started:
        if not kept._group.removed:
            with namespaces.entered(net.host):
                kept.end()


def test_exactly_what_is_allowed_gets_through_and_the_rest_is_counted(start, template) -> None:
    kept = start()
    allowed = (
        Endpoint(OUTSIDE4[0], "tcp", PORTS[0]),
        Endpoint(OUTSIDE4[1], "udp", PORTS[1]),
        Endpoint(OUTSIDE6[0], "udp", PORTS[0]),
        Endpoint(OUTSIDE6[1], "tcp", PORTS[1]),
    )
    given = take(kept, template, endpoints=allowed)
    cells = [Endpoint(*cell) for cell in itertools.product((*OUTSIDE4, *OUTSIDE6), ("tcp", "udp"), PORTS)]

    def tries():
        began = time.monotonic()
        return [speak(each.address, each.protocol, each.port) for each in cells], time.monotonic() - began

    found, took_s = inside(template, given.namespace, tries)
    assert {cell: what == "ok" for cell, what in zip(cells, found, strict=True)} == {
        cell: cell in allowed for cell in cells
    }, list(zip(cells, found, strict=True))
    assert "timeout" not in found
    assert took_s < 2, "what is refused is refused at once"
    used = release(kept)
    assert {Endpoint(each.address, each.protocol, each.port) for each in used.refused} == set(cells) - set(allowed)
    assert {each.count for each in used.refused} == {1}
    assert used.connections == len(allowed)
    assert used.sent_bytes > 4 * 20
    assert used.received_bytes > 4 * 20
    assert used.refused_others == 0


def test_a_page_of_a_real_web_server_is_read_and_no_other_port(start, template) -> None:
    kept = start()
    given = take(kept, template, endpoints=[Endpoint(OUTSIDE4[0], "tcp", HTTP_PORT)])

    def read():
        with urllib.request.urlopen(f"http://{OUTSIDE4[0]}:{HTTP_PORT}/", timeout=5) as page:
            return page.read().decode()

    assert inside(template, given.namespace, read) == PAGE.decode()
    used = release(kept)
    assert (used.connections, used.refused) == (1, ())


def test_nobody_reaches_the_host_the_router_or_another_slot_even_if_it_was_allowed(start, template) -> None:
    kept = start()
    settings = kept._settings
    near = [settings.addresses(0), settings.addresses(1), settings.addresses(2)]
    here = [HOST4, HOST6, *(text for each in near for text in (each.near4, each.far4, each.near6, each.far6))]
    endpoints = [Endpoint(address, protocol, PORTS[0]) for address in here for protocol in ("tcp", "udp")]
    first = take(kept, template, "a", endpoints)
    second = take(kept, template, "b", endpoints)

    def listen():
        for family, kind in itertools.product(
            (socket.AF_INET, socket.AF_INET6), (socket.SOCK_STREAM, socket.SOCK_DGRAM)
        ):
            sock = socket.socket(family, kind)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            sock.bind(("::" if family == socket.AF_INET6 else "0.0.0.0", PORTS[0]))
            if kind == socket.SOCK_STREAM:
                sock.listen()
            keep.append(sock)
        os.write(writes, b"x")
        signal.pause()

    keep = []
    reads, writes = os.pipe()
    listener = instance(template, second.namespace, listen)
    assert os.read(reads, 1) == b"x"
    own = {
        settings.addresses(2 if first.ifindex > second.ifindex else 1).far4,
        settings.addresses(2 if first.ifindex > second.ifindex else 1).far6,
    }
    try:

        def tries():
            return [(each.address, speak(each.address, each.protocol, each.port, 0.5)) for each in endpoints]

        found = [what for what in inside(template, first.namespace, tries) if what[0] not in own]
        assert len(found) == 2 * (len(here) - 2)
        assert not [what for what in found if what[1] in ("ok", "other")], found
        assert [what for what in found if what[1] == "timeout"] == [], found
    finally:
        internet.end(listener)
        os.close(reads)
        os.close(writes)


def test_a_source_address_of_its_own_choice_gets_nowhere(start, template, net) -> None:
    kept = start()
    given = take(kept, template, endpoints=[Endpoint(OUTSIDE4[0], "udp", 9009)])
    with namespaces.entered(net.outside):
        sink = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sink.bind((OUTSIDE4[0], 9009))
    sink.settimeout(0.5)

    def spoof():
        """As root of the template could."""
        with IPRoute() as ip:
            eth0 = ip.link_lookup(ifname="eth0")[0]
            for address in ("198.19.0.99", "10.1.2.3"):
                ip.addr("add", index=eth0, address=address, prefixlen=32)
        for address in ("198.19.0.99", "10.1.2.3", "0.0.0.0"):
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
                sock.bind((address, 0))
                sock.sendto(address.encode(), (OUTSIDE4[0], 9009))
        return True

    with sink:
        assert inside(template, given.namespace, spoof)
        data, peer = sink.recvfrom(100)
        assert (data, peer[0]) == (b"0.0.0.0", HOST4)
        with pytest.raises(TimeoutError):
            sink.recvfrom(100)
    release(kept)


def test_so_many_connections_and_no_more(start, template) -> None:
    kept = start()
    endpoint = Endpoint(OUTSIDE4[0], "tcp", PORTS[0])
    given = take(kept, template, endpoints=[endpoint], caps=Caps(10_000_000, 5))

    def connect():
        found, keep = [], []
        for _ in range(12):
            sock = socket.socket()
            sock.settimeout(2)
            found.append(sock.connect_ex((endpoint.address, endpoint.port)))
            keep.append(sock)
        keep[0].close()
        keep[0] = None
        time.sleep(0.3)
        return found, speak(endpoint.address, "tcp", endpoint.port)

    found, _ = inside(template, given.namespace, connect)
    assert found == [0] * 5 + [errno.ECONNREFUSED] * 7
    used = release(kept)
    assert used.connections in {5, 6}
    assert used.refused[0].count >= 7
    assert (used.refused[0].address, used.refused[0].port) == (endpoint.address, endpoint.port)


@pytest.mark.parametrize("way", ["sent", "received"])
def test_so_many_bytes_a_second_and_no_more(start, template, net, way) -> None:
    kept = start()
    rate = 400_000
    endpoint = Endpoint(OUTSIDE4[0], "tcp", 9010)
    given = take(kept, template, endpoints=[endpoint], caps=Caps(rate, 5))
    listening = net.listen(OUTSIDE4[0], 9010)

    def push(sock, seconds):
        sock.setblocking(False)
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            if select.select([], [sock], [], 0.05)[1]:
                sock.send(bytes(65536))

    def pull(sock, seconds):
        got, until = 0, time.monotonic() + seconds
        sock.settimeout(0.1)
        while time.monotonic() < until:
            with contextlib.suppress(TimeoutError):
                got += len(sock.recv(1 << 20))
        return got

    def work():
        with socket.create_connection((endpoint.address, endpoint.port), 5) as sock:
            (push if way == "sent" else pull)(sock, 3)
        return True

    pid = instance(template, given.namespace, work)
    connection, _ = listening.accept()
    got = pull(connection, 3) if way == "sent" else push(connection, 3)
    internet.end(pid)
    used = release(kept)
    counted = used.sent_bytes if way == "sent" else used.received_bytes
    # A bucket of one second and a bit, and three seconds.
    assert rate // 2 < counted < 5 * rate, counted
    if way == "sent":
        assert got <= counted
    connection.close()
    listening.close()


def namespace_of(given):
    return os.fstat(given.namespace).st_ino


def test_a_used_namespace_serves_the_same_digest_only(start, template) -> None:
    kept = start()
    used = {}
    for run, digest in enumerate(["a", "b", "a", "c", "b", "a"]):
        given = take(kept, template, f"r{run}", digest=digest)
        assert used.setdefault(namespace_of(given), digest) == digest
        os.close(given.namespace)
        release(kept, f"r{run}")
        settled(kept)
    assert sorted(used.values()) == ["a", "b", "c"]


def test_when_all_are_used_the_one_idle_longest_goes_and_when_all_run_nobody_gets_one(start, template) -> None:
    kept = start()
    seen = []
    for run in range(20):
        given = take(kept, template, f"r{run}", digest=f"d{run}")
        seen.append(given.namespace)
        release(kept, f"r{run}")
    assert len({os.fstat(each).st_ino for each in seen}) == 20
    for run in range(8):
        take(kept, template, f"s{run}", digest="x")
    kept.take("one-more", "tier2", template.namespace, "x", [], CAPS)
    assert hear(kept, Failed).run == "one-more"
    release(kept, "s3")
    take(kept, template, "one-more", digest="y")


def test_the_next_run_gets_nothing_of_what_the_last_was_allowed_or_is_sent(start, template, net) -> None:
    kept = start()
    allowed = [Endpoint(OUTSIDE4[0], "udp", PORTS[0])]
    with namespaces.entered(net.outside):
        server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.bind((OUTSIDE4[0], 9011))
    server.settimeout(5)
    first = take(kept, template, "a", [Endpoint(OUTSIDE4[0], "udp", 9011)])

    def ask():
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.bind(("0.0.0.0", 7777))
            sock.sendto(b"?", (OUTSIDE4[0], 9011))
        return True

    assert inside(template, first.namespace, ask)
    _, peer = server.recvfrom(10)
    release(kept, "a")
    second = take(kept, template, "b", allowed)
    assert namespace_of(second) == namespace_of(first)

    def wait():
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.bind(("0.0.0.0", 7777))
            server.sendto(b"late", peer)
            return bool(select.select([sock], [], [], 0.5)[0]), speak(OUTSIDE4[0], "udp", 9011)

    with server:
        came, answer = inside(template, second.namespace, wait)
    assert not came
    assert answer != "ok"
    assert release(kept, "b").received_bytes == 0


def test_nothing_that_waits_to_be_sent_leaves_after_the_cut(start, template, net) -> None:
    """64 MB are queued in the plugin's socket; the link goes down, then it is killed."""
    kept = start()
    listening = net.listen(OUTSIDE4[0], 9012)
    given = take(kept, template, endpoints=[Endpoint(OUTSIDE4[0], "tcp", 9012)], caps=Caps(20_000_000, 5))
    with namespaces.entered(given.namespace):
        namespaces.set_sysctl("net/ipv4/tcp_wmem", f"4096 {128 << 20} {128 << 20}")

    def queue():
        sock = socket.socket()
        sock.connect((OUTSIDE4[0], 9012))
        sock.setblocking(False)
        data, sent = memoryview(bytes(64 << 20)), 0
        while sent < len(data):
            try:
                sent += sock.send(data[sent : sent + (1 << 20)])
            except BlockingIOError:
                time.sleep(0.001)
        signal.pause()

    pid = instance(template, given.namespace, queue)
    connection, _ = listening.accept()
    connection.settimeout(0.5)
    got = 0
    while got < 1 << 20:
        got += len(connection.recv(1 << 16))
    began = time.perf_counter()
    kept.cut(given.ifindex)
    took_ms = (time.perf_counter() - began) * 1000
    arrived = tcp_bytes_received(connection)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    time.sleep(0.7)
    later = tcp_bytes_received(connection)
    assert later == arrived, f"{later - arrived} bytes came after the cut"
    assert arrived < 60 << 20, "everything had been sent already"
    release(kept)
    time.sleep(0.3)
    assert tcp_bytes_received(connection) == arrived
    print(f"cut: {took_ms:.2f} ms, {arrived} bytes had arrived")
    for each in (connection, listening):
        each.close()


def tcp_bytes_received(sock):
    """tcpi_bytes_received of struct tcp_info, which counts what nobody has read too."""
    return struct.unpack_from("Q", sock.getsockopt(socket.IPPROTO_TCP, 11, 256), 128)[0]


def state_of(kept):
    """What there is in the router: links, elements of sets, connections. Asked from a socket of the launcher's."""
    pid = kept._pid
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
    """Its idle work is done."""
    before = None
    while (now := state_of(kept)) != before:
        before = now
        time.sleep(0.15)
    return now


def test_500_runs_leave_nothing_behind(start, template, net, tmp_path) -> None:
    kept = start(Settings(folder=tmp_path, most=6, spare=1))
    allowed = [Endpoint(OUTSIDE4[0], "tcp", PORTS[0]), Endpoint(OUTSIDE6[0], "udp", PORTS[1])]
    before = connections_of(net.host)

    def run(number, *, real=False):
        given = take(kept, template, f"r{number}", allowed, digest=f"d{number % 5}", caps=Caps(10**7 + number % 3, 50))
        if real:
            assert inside(
                template,
                given.namespace,
                lambda: [
                    speak(each.address, each.protocol, each.port) for each in (*allowed, Endpoint(HOST4, "tcp", 1))
                ],
            )[:2] == ["ok", "ok"]
        os.close(given.namespace)
        used = release(kept, f"r{number}")
        assert used.connections == (2 if real else 0)

    for number in range(20):
        run(number, real=True)
    first = settled(kept)
    assert first[3] == 0, "connections are tracked still"
    descriptors = len(os.listdir("/proc/self/fd"))
    for number in range(20, 500):
        run(number, real=number % 10 == 0)
    assert settled(kept) == first
    assert len(os.listdir("/proc/self/fd")) == descriptors
    assert connections_of(net.host) == before
    kept.forget("tier2")
    links, elements, _, _, _ = settled(kept)
    assert links == 2  # lo and the uplink
    assert not any(count for name, count in elements.items() if not name.startswith("__"))


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


FOREIGN = """
table inet somebodys {
    set things {
        type ipv4_addr
        elements = { 192.0.2.1 }
    }
    chain forward {
        type filter hook forward priority filter; policy accept;
        ip saddr @things counter drop
    }
}
"""


def has_table(net, name="plugind"):
    return any(each.get("table", {}).get("name") == name for each in host_state(net)[0])


def test_on_the_host_only_ours_comes_and_all_of_it_goes(start, net, template) -> None:
    with namespaces.entered(net.host):
        nft = nftables.Nftables()
        nft.run(FOREIGN)
        namespaces.set_sysctl("net/ipv4/conf/all/accept_redirects", "0")  # which the kernel would set to 1
        namespaces.set_sysctl("net/ipv4/conf/lo/forwarding", "1")
    before = host_state(net)
    kept = start()
    during = host_state(net)
    assert {each["table"]["name"] for each in during[0] if "table" in each} == {"somebodys", "plugind"}
    assert [each for each in during[0] if "somebodys" in json.dumps(each)] == before[0]
    assert set(during[1]) - set(before[1]) == {"plugind0"}
    assert during[3][0] == "1"
    with namespaces.entered(net.host):
        kept.end()
        assert host_state(net) == before
        nft.run("delete table inet somebodys")
        nft.close()


def test_ipv6_forwarding_of_the_host_is_never_switched_on_and_a_plugin_is_told_at_once(template, tmp_path) -> None:
    net = Internet(forwards6=False)
    with namespaces.entered(net.host):
        kept = keeper.start(Settings(folder=tmp_path, most=2), FakeGroup())
    try:
        given = take(kept, template, endpoints=[Endpoint(OUTSIDE6[0], "tcp", PORTS[0])])
        assert inside(template, given.namespace, lambda: speak(OUTSIDE6[0], "tcp", PORTS[0])) in {
            "ENETUNREACH",
            "EHOSTUNREACH",
            "EACCES",
            "ECONNREFUSED",
        }
        assert host_state(net)[4] == "0"
    finally:
        with namespaces.entered(net.host):
            kept.end()
        net.close()


def test_after_kill_9_nothing_passes_and_the_next_start_sweeps(start, net, template, tmp_path) -> None:
    before = host_state(net)
    kept = start()
    given = take(kept, template, endpoints=[Endpoint(OUTSIDE4[0], "tcp", PORTS[0])])
    assert inside(template, given.namespace, lambda: speak(OUTSIDE4[0], "tcp", PORTS[0])) == "ok"
    os.kill(kept._pid, signal.SIGKILL)
    assert select.select([kept.sock], [], [], 10)[0]
    with pytest.raises(EOFError):
        while True:
            kept.receive()
    deadline = time.monotonic() + 5
    while "plugind0" in host_state(net)[1]:
        assert time.monotonic() < deadline, "its link is still there"
        time.sleep(0.02)
    assert inside(template, given.namespace, lambda: speak(OUTSIDE4[0], "tcp", PORTS[0])) != "ok"
    assert has_table(net)
    assert host_state(net)[3][0] == "1"
    os.waitpid(kept._pid, 0)
    kept.sock.close()
    kept._group.remove()
    again = start()
    assert has_table(net)
    with namespaces.entered(net.host):
        again.end()
    assert host_state(net) == before


def test_the_launcher_sweeps_at_its_own_start_what_a_killed_keeper_left(start, net, tmp_path) -> None:
    before = host_state(net)
    kept = start()
    os.kill(kept._pid, signal.SIGKILL)
    kept.link.close()
    with namespaces.entered(net.host):
        keeper.sweep(kept._settings)
        assert host_state(net) == before
        keeper.sweep(kept._settings)
        kept.end()
    assert host_state(net) == before


def test_it_does_not_start_where_a_route_leads_into_its_range(start, net, tmp_path) -> None:
    before = host_state(net)
    with namespaces.entered(net.host), IPRoute() as ip:
        ip.route("add", dst="198.19.7.0/24", gateway=OUTSIDE4[0])
        try:
            with pytest.raises(IsolationUnavailableError, match=r"198\.19\.0\.0/16, found 198\.19\.7\.0/24 dev wan"):
                keeper.start(Settings(folder=tmp_path), FakeGroup())
        finally:
            ip.route("del", dst="198.19.7.0/24", gateway=OUTSIDE4[0])
    assert host_state(net) == before


def test_two_daemons_of_one_machine_need_two_names_and_two_ranges(start, net, template, tmp_path) -> None:
    before = host_state(net)
    first = start()
    with namespaces.entered(net.host), pytest.raises(IsolationUnavailableError, match="plugind0"):
        keeper.start(Settings(folder=tmp_path / "b", range4=IPv4Network("198.18.0.0/16")), FakeGroup())
    second = start(
        Settings(
            folder=tmp_path / "b",
            suffix="b",
            range4=IPv4Network("198.18.0.0/16"),
            range6=IPv6Network("fd70:6c75:676a::/48"),
            most=4,
        )
    )
    with namespaces.entered(net.host):
        first.end()
    given = take(second, template, endpoints=[Endpoint(OUTSIDE4[0], "tcp", PORTS[0])])
    assert inside(template, given.namespace, lambda: speak(OUTSIDE4[0], "tcp", PORTS[0])) == "ok"
    with namespaces.entered(net.host):
        second.end()
    assert host_state(net)[:3] == before[:3]


@pytest.mark.parametrize("state", ["established", "lingering", "udp"])
def test_sockets_that_are_left_are_destroyed_and_the_namespace_is_used_again(start, template, net, state) -> None:
    kept = start()
    protocol = "udp" if state == "udp" else "tcp"
    given = take(kept, template, "a", [Endpoint(OUTSIDE4[0], protocol, 9013)])
    listening = net.listen(OUTSIDE4[0], 9013)
    reads, writes = os.pipe()

    def leave():
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM if state == "udp" else socket.SOCK_STREAM)
        sock.connect((OUTSIDE4[0], 9013))
        if state == "lingering":
            with contextlib.suppress(BlockingIOError):
                sock.setblocking(False)
                while True:
                    sock.send(bytes(1 << 20))
        else:
            theirs.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack("i", sock.fileno()))])
        os.write(writes, b"x")

    ours, theirs = socket.socketpair()
    pid = instance(template, given.namespace, leave)
    assert os.read(reads, 1) == b"x"
    os.waitpid(pid, 0)
    with namespaces.entered(given.namespace):
        assert sock_diag.left()
    before = namespace_of(given)
    release(kept, "a")
    settled(kept)
    if state == "lingering":
        with namespaces.entered(given.namespace):
            assert not sock_diag.left()
    again = take(kept, template, "b")
    # One that somebody still holds cannot be destroyed altogether: then another namespace serves.
    assert (namespace_of(again) == before) == (state == "lingering")
    for each in (ours, theirs, listening):
        each.close()
    os.close(reads)
    os.close(writes)


def test_slots_of_a_template_that_is_gone_are_not_there_for_the_next_of_its_name(start, template) -> None:
    kept = start()
    given = take(kept, template, "a")
    idle = take(kept, template, "b")
    release(kept, "b")
    kept.forget("tier2")
    release(kept, "a")
    other = Template()
    try:
        again = take(kept, other, "c")
        assert namespace_of(again) not in {namespace_of(given), namespace_of(idle)}
        # Also where nobody said that the first is gone.
        third = Template()
        release(kept, "c")
        assert namespace_of(take(kept, third, "d")) != namespace_of(again)
        third.close()
    finally:
        other.close()


def test_what_a_template_s_root_does_in_its_namespace_changes_nothing_of_what_it_may(start, template) -> None:
    kept = start()
    given = take(kept, template, endpoints=[Endpoint(OUTSIDE4[0], "tcp", PORTS[0])])

    def meddle():
        with IPRoute() as ip:
            eth0 = ip.link_lookup(ifname="eth0")[0]
            ip.link("set", index=eth0, address="02:00:00:00:00:99")
            ip.link("set", index=eth0, address="02:70:6c:75:67:01")
            ip.addr("add", index=eth0, address="203.0.113.77", prefixlen=24)
        return [speak(address, "tcp", PORTS[1]) for address in OUTSIDE4]

    assert "ok" not in inside(template, given.namespace, meddle)
    release(kept)


def test_a_template_s_root_that_deletes_its_link_harms_itself_only(start, template) -> None:
    kept = start()
    given = take(kept, template, "a", [Endpoint(OUTSIDE4[0], "tcp", PORTS[0])])

    def delete():
        found = speak(OUTSIDE4[0], "tcp", PORTS[0])
        with IPRoute() as ip:
            ip.link("del", index=ip.link_lookup(ifname="eth0")[0])
        return found

    assert inside(template, given.namespace, delete) == "ok"
    assert release(kept, "a").connections == 1
    again = take(kept, template, "b", [Endpoint(OUTSIDE4[0], "tcp", PORTS[0])])
    assert namespace_of(again) != namespace_of(given)
    assert inside(template, again.namespace, lambda: speak(OUTSIDE4[0], "tcp", PORTS[0])) == "ok"


def test_refusals_beyond_what_is_counted_one_by_one_are_one_number(start, template) -> None:
    kept = start()
    given = take(kept, template)

    def spray():
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            for port in range(1, 401):
                with contextlib.suppress(OSError):
                    sock.sendto(b"x", (OUTSIDE4[0], port))
                    time.sleep(0.0005)
        return True

    assert inside(template, given.namespace, spray)
    used = release(kept)
    assert len(used.refused) == 256
    assert used.refused_others > 0
    assert sum(each.count for each in used.refused) + used.refused_others <= 400


def test_it_has_its_own_group_and_ends_with_its_launcher(net, tmp_path) -> None:
    group = FakeGroup()
    with namespaces.entered(net.host):
        kept = keeper.start(Settings(folder=tmp_path, most=2), group)
    assert (group.attached, group.limits) == ([kept._pid], keeper.BUDGET)
    assert Path(f"/proc/{kept._pid}/comm").read_text() == "plugind-network\n"
    kept.link.close()
    kept.sock.close()
    assert os.waitstatus_to_exitcode(os.waitpid(kept._pid, 0)[1]) == 0
    assert not has_table(net)


@pytest.mark.parametrize(
    "said", [b"{}", b"nonsense", b'{"op":"given","run":"a","ifindex":1}', b'{"op":"take"}', b"[" * 9999]
)
def test_whatever_is_no_message_ends_it_in_order(net, tmp_path, said, capfd) -> None:
    with namespaces.entered(net.host):
        kept = keeper.start(Settings(folder=tmp_path, most=2), FakeGroup())
        kept.sock.send(said)
        with pytest.raises(EOFError):
            hear(kept)
        kept.end()
    assert kept._group.removed
    assert not has_table(net)
    assert "plugind-launcher: the keeper of networks: ValueError" in capfd.readouterr().err


DOCKER = """
table ip filter {
    chain DOCKER-USER {
    }
    chain FORWARD {
        type filter hook forward priority filter; policy drop;
        jump DOCKER-USER
    }
}
"""


def test_what_the_machine_can_is_told_and_nothing_is_changed(net, start, tmp_path) -> None:
    before = host_state(net)
    with namespaces.entered(net.host):
        found = probing.facts(Settings(folder=tmp_path / "not"))
    assert [(each.name, each.ok) for each in found] == [
        ("network", True),
        ("network_range", True),
        ("network_forward", True),
        ("network_ipv6", True),
    ], found
    assert host_state(net) == before
    assert not (tmp_path / "not").exists()
    start()
    with namespaces.entered(net.host):
        again = probing.facts(Settings(folder=tmp_path / "not"))
    assert again == found, "it says something else while a daemon runs"


def test_a_foreign_policy_of_drop_is_named_and_left_alone_and_its_command_mends_it(net, start, template, capfd) -> None:
    with namespaces.entered(net.host):
        nft = nftables.Nftables()
        nft.run(DOCKER)
    try:
        kept = start()
        assert "networks: Docker drops what plugins send (ip filter FORWARD)" in capfd.readouterr().err
        with namespaces.entered(net.host):
            told = probing.facts(kept._settings)[2]
        assert (told.ok, told.name) == (False, "network_forward")
        assert told.command.startswith("sudo iptables -I DOCKER-USER -i plugind0 -j ACCEPT && ")
        endpoint = Endpoint(OUTSIDE4[0], "udp", PORTS[0])
        given = take(kept, template, endpoints=[endpoint])
        assert inside(template, given.namespace, lambda: speak(OUTSIDE4[0], "udp", PORTS[0], 0.5)) == "timeout"
        # What the command says, in words that need no iptables.
        nft.run('add rule ip filter DOCKER-USER iifname "plugind0" accept')
        nft.run('add rule ip filter DOCKER-USER oifname "plugind0" ct state established,related accept')
        assert inside(template, given.namespace, lambda: speak(OUTSIDE4[0], "udp", PORTS[0])) == "ok"
    finally:
        nft.run("delete table ip filter")
        nft.close()


def test_what_obstacle_commands_for_nft_say_is_what_nft_takes(net) -> None:
    chain = "table inet walls {\n chain fence {\n type filter hook forward priority 5; policy drop;\n}\n}\n"
    with namespaces.entered(net.host):
        nft = nftables.Nftables()
        nft.run(chain)
        try:
            (told,) = foreign.obstacles(nft.listed("chains"), "plugind0")
            for command in told.command.split(" && "):
                nft.run(command.removeprefix("sudo nft "))
            assert nft.listed("chain inet walls fence").count('"plugind0"') == 2
        finally:
            nft.run("delete table inet walls")
            nft.close()
