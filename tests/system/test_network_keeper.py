"""The keeper of networks with a real kernel, in an internet of our own: what is allowed gets through, and nothing else."""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import select
import signal
import socket
import struct
import time
import urllib.request

import pytest
from pyroute2 import IPRoute

from plugind.sandbox.network import keeper, namespaces
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
