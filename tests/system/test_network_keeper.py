"""The keeper of networks with a real kernel, in an internet of our own: what is allowed gets through, and nothing else."""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import select
import signal
import socket
import time
import urllib.request
from pathlib import Path

import pytest
from pyroute2 import IPRoute

from plugind.addresses import Endpoint
from plugind.sandbox.network import keeper, namespaces
from plugind.sandbox.network.words import Caps, Refusal, Settings
from tests.support import internet
from tests.support.internet import (
    HOST4,
    HOST6,
    HTTP_PORT,
    OUTSIDE4,
    OUTSIDE6,
    PAGE,
    PORTS,
    inside,
    instance,
    speak,
)
from tests.support.networks import (
    FakeGroup,
    has_table,
    hear,
    release,
    take,
    tcp_bytes_received,
)


def test_exactly_what_is_allowed_gets_through_and_the_rest_is_counted(start_keeper, template) -> None:
    kept = start_keeper()
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


def test_a_page_of_a_real_web_server_is_read_and_no_other_port(start_keeper, template) -> None:
    kept = start_keeper()
    given = take(kept, template, endpoints=[Endpoint(OUTSIDE4[0], "tcp", HTTP_PORT)])

    def read():
        with urllib.request.urlopen(f"http://{OUTSIDE4[0]}:{HTTP_PORT}/", timeout=5) as page:
            return page.read().decode()

    assert inside(template, given.namespace, read) == PAGE.decode()
    used = release(kept)
    assert (used.connections, used.refused) == (1, ())


def test_nobody_reaches_the_host_the_router_or_another_slot_even_if_it_was_allowed(start_keeper, template) -> None:
    kept = start_keeper()
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
    # Its own two addresses are the only ones of these at which a process of the first's own could listen.
    own = {near[1].far4, near[1].far6} if first.ifindex < second.ifindex else {near[2].far4, near[2].far6}
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


def test_a_source_address_of_its_own_choice_gets_nowhere(start_keeper, template, net) -> None:
    kept = start_keeper()
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


def test_so_many_connections_and_no_more(start_keeper, template) -> None:
    kept = start_keeper()
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


def test_so_many_connections_begin_a_second_and_no_more(start_keeper, template) -> None:
    kept = start_keeper()
    endpoint = Endpoint(OUTSIDE4[0], "tcp", PORTS[0])
    given = take(kept, template, endpoints=[endpoint], caps=Caps(10_000_000, 20))

    def churn():
        began, done = time.monotonic(), 0
        for _ in range(300):
            with socket.socket() as sock:
                done += sock.connect_ex((endpoint.address, endpoint.port)) == 0
        return done, time.monotonic() - began

    done, took_s = inside(template, given.namespace, churn)
    assert 20 <= done <= 20 + 20 * (took_s + 1)
    assert done < 300
    used = release(kept)
    assert used.connections == done
    assert used.refused == (Refusal(endpoint.address, "tcp", endpoint.port, 300 - done),)


@pytest.mark.parametrize("way", ["sent", "received"])
def test_so_many_bytes_a_second_and_no_more(start_keeper, template, net, way) -> None:
    kept = start_keeper()
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
            (push if way == "sent" else pull)(sock, 60)
        return True

    pid = instance(template, given.namespace, work)
    with listening:
        connection, _ = listening.accept()
    with connection:
        got = pull(connection, 3) if way == "sent" else push(connection, 3)
    internet.end(pid)
    used = release(kept)
    counted = used.sent_bytes if way == "sent" else used.received_bytes
    # A bucket of one second and a bit, and three seconds.
    assert rate // 2 < counted < 5 * rate, counted
    if way == "sent":
        assert got <= counted


def test_nothing_that_waits_to_be_sent_leaves_after_the_cut(start_keeper, template, net) -> None:
    """64 MB are queued in the plugin's socket; the link goes down, then it is killed."""
    kept = start_keeper()
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


def test_what_a_template_s_root_does_in_its_namespace_changes_nothing_of_what_it_may(start_keeper, template) -> None:
    kept = start_keeper()
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


def test_refusals_beyond_what_is_counted_one_by_one_are_one_number(start_keeper, template) -> None:
    kept = start_keeper()
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
    assert (group.attached, group.limits) == ([kept.process.pid], keeper.BUDGET)
    assert Path(f"/proc/{kept.process.pid}/comm").read_text() == "plugind-network\n"
    kept.link.close()
    kept.sock.close()
    assert os.waitstatus_to_exitcode(os.waitpid(kept.process.pid, 0)[1]) == 0
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
    assert kept.process.group.removed
    assert not has_table(net)
    assert "plugind-launcher: the keeper of networks: ValueError" in capfd.readouterr().err
