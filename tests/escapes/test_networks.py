"""Plugins that were granted a network, and want more of it than that; on an internet of our own."""

from __future__ import annotations

import os
import random
import signal
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from plugind.sandbox.network import namespaces
from plugind_client import Killed, PlugindError
from tests.escapes.attack import attack
from tests.support.daemon import Daemon
from tests.support.internet import HOST4, HOST6, METADATA, OUTSIDE4, OUTSIDE6, Internet
from tests.support.jail import descendants
from tests.support.networked import SPEAKS, STAGE, approved, daemon_on, permission
from tests.support.servers import HTTP_PORT, PORTS

pytestmark = pytest.mark.root

PEER = (OUTSIDE4[0], PORTS[0])


@pytest.fixture(scope="module")
def internet() -> Iterator[Internet]:
    made = Internet()
    made.serve()
    yield made
    made.close()


@pytest.fixture(scope="module")
def networked(internet: Internet) -> Iterator[Daemon]:
    with daemon_on(internet) as running:
        yield running
        assert running.process.poll() is None, running.log.read_text()
        assert running.client().audit.verify().holds


def refused(answer: Any) -> set[str]:
    """The peers that the audit says were refused."""
    return {each["name"] for each in answer["violations"] if each["kind"] == "network"}


SOCKETS = """
import errno, socket
def run(payload, context):
    answers = {}
    for name, kind in payload.items():
        try:
            socket.socket(*kind).close()
            answers[name] = "done"
        except OSError as error:
            answers[name] = errno.errorcode[error.errno]
    try:
        pair = socket.socketpair()[0]
        pair.connect(b"\\0" + b"anybody")
        answers["pair"] = "done"
    except OSError as error:
        answers["pair"] = errno.errorcode[error.errno]
    return answers
"""


@attack(
    17, "AF_UNIX of an instance with a network, which may make sockets", "of AF_INET, AF_INET6 and route netlink only"
)
@attack(38, "raw and packet sockets, other protocols, other netlink, to get around the filter", "the same")
def test_no_other_socket_comes_with_a_network(networked: Daemon, tmp_path: Path) -> None:
    kinds = {
        "unix": (socket.AF_UNIX, socket.SOCK_STREAM, 0),
        "raw": (socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW),
        "ping": (socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_ICMP),
        "packet": (socket.AF_PACKET, socket.SOCK_RAW, 3),
        "sctp": (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_SCTP),
        "mptcp": (socket.AF_INET6, socket.SOCK_STREAM, 262),
        "vsock": (socket.AF_VSOCK, socket.SOCK_STREAM, 0),
        "sock_diag": (socket.AF_NETLINK, socket.SOCK_RAW, 4),
        "netfilter": (socket.AF_NETLINK, socket.SOCK_RAW, 12),
        "bluetooth": (31, socket.SOCK_RAW, 0),
        "key": (15, socket.SOCK_RAW, 2),
        "route": (socket.AF_NETLINK, socket.SOCK_RAW, 0),
        "tcp": (socket.AF_INET, socket.SOCK_STREAM, 0),
    }
    answer = approved(networked, tmp_path, "sockets", SOCKETS, permission(*PEER), payload=kinds)
    answers = answer["output"]
    assert answers.pop("pair") != "done"
    assert {name for name, how in answers.items() if how == "done"} == {"route", "tcp"}
    assert set(answers.values()) == {"done", "EPERM"}
    told = " ".join(each["detail"] for each in answer["violations"] if each["name"] == "socket")
    for family in ("AF_UNIX", "AF_PACKET", "AF_VSOCK", "AF_NETLINK"):
        assert family in told


FORMS = """
import errno, socket
def run(payload, context):
    answers = {}
    for host, port in payload:
        try:
            with socket.create_connection((host, port), 2) as sock:
                sock.send(b"hello")
                answers[host] = "reached" if sock.recv(64) else "nothing came"
        except OSError as error:
            answers[host] = errno.errorcode.get(error.errno, str(error)) if error.errno else str(error)
    return answers
"""


@attack(
    37,
    "metadata, private and host addresses: as they are, IPv4-mapped, decimal, in hexadecimal, in octal",
    "no route but to what was approved; refused and counted",
)
def test_metadata_and_the_host_are_out_of_reach_however_they_are_written(
    networked: Daemon, internet: Internet, tmp_path: Path
) -> None:
    with namespaces.entered(internet.host):
        for reachable in (METADATA, HOST4, OUTSIDE4[1]):  # so that there is something to keep it from
            socket.create_connection((reachable, PORTS[0]), 2).close()
    number = int.from_bytes(socket.inet_aton(METADATA), "big")
    hosts = [
        METADATA,
        f"::ffff:{METADATA}",
        str(number),
        hex(number),
        "0251.0376.0251.0376",
        "127.0.0.1",
        "::1",
        "0.0.0.0",
        "10.0.0.1",
        HOST4,
        HOST6,
        "198.19.0.1",
        "198.19.0.6",
        OUTSIDE4[1],
        OUTSIDE6[0],
        "localhost",
    ]
    payload = [[host, PORTS[0]] for host in hosts] + [list(PEER)]
    answer = approved(networked, tmp_path, "forms", FORMS, permission(*PEER), payload=payload)
    reached = {host for host, how in answer["output"].items() if how == "reached"}
    assert reached == {OUTSIDE4[0]}
    there = refused(answer)
    for host in (METADATA, HOST4, OUTSIDE4[1], "10.0.0.1"):
        assert f"{host}:{PORTS[0]}/tcp" in there
    assert f"[{HOST6}]:{PORTS[0]}/tcp" in there


FETCHES = """
import urllib.error, urllib.request
def run(payload, context):
    handler = urllib.request.ProxyHandler(payload.get("proxy") or {})
    try:
        return urllib.request.build_opener(handler).open(payload["url"], timeout=3).read().decode()
    except urllib.error.URLError as error:
        return f"refused: {error}"
"""


@attack(37, "a web server that was approved redirects to the metadata address", "each hop is a connection of its own")
@attack(38, "by way of a proxy that nobody approved (CONNECT)", "it is a peer as any other")
def test_a_redirect_and_a_proxy_lead_nowhere(networked: Daemon, tmp_path: Path) -> None:
    web = (OUTSIDE4[0], HTTP_PORT)
    redirect = {"url": f"http://{web[0]}:{web[1]}/to/http://{METADATA}:{HTTP_PORT}/"}
    answer = approved(networked, tmp_path, "fetches", FETCHES, permission(*web), payload=redirect)
    assert answer["output"].startswith("refused: "), answer
    assert refused(answer) == {f"{METADATA}:{HTTP_PORT}/tcp"}
    client = networked.client()
    proxy = {"url": f"http://{web[0]}:{web[1]}/", "proxy": {"http": f"http://{OUTSIDE4[1]}:{HTTP_PORT}"}}
    result = client.run("fetches", proxy, stage=STAGE)
    assert result.output.startswith("refused: ")
    assert [(each.kind, each.name) for each in result.violations] == [("network", f"{OUTSIDE4[1]}:{HTTP_PORT}/tcp")]


HAMMERS = """
import errno, socket, time
def run(payload, context):
    good, bad, until = payload["good"], payload["bad"], time.monotonic() + payload["seconds"]
    answers = {"good": {}, "bad": {}}
    while time.monotonic() < until:
        for name, peer in (("good", good), ("bad", bad)):
            try:
                with socket.create_connection(peer, 2) as sock:
                    sock.send(b"hello")
                    how = "reached" if sock.recv(64) else "nothing came"
            except OSError as error:
                how = errno.errorcode.get(error.errno, str(error))
            answers[name][how] = answers[name].get(how, 0) + 1
        time.sleep(0.03)  # so many connections a second as the profile lets begin, and no more
    return answers
"""


@attack(
    39,
    "wait until the allow-list is emptied or loaded anew: other runs begin and end, the policy is read again",
    "a packet passes only where an element says so; changes are transactions",
)
def test_what_was_refused_stays_so_while_everything_around_changes(networked: Daemon, tmp_path: Path) -> None:
    payload = {"good": PEER, "bad": [OUTSIDE4[1], PORTS[0]], "seconds": 0}
    approved(networked, tmp_path, "hammers", HAMMERS, permission(*PEER), payload=payload)
    approved(networked, tmp_path, "bystander", SPEAKS, permission(OUTSIDE4[1], PORTS[0]), payload=[])
    client = networked.client()
    with ThreadPoolExecutor(2) as pool:
        running = pool.submit(client.run, "hammers", payload | {"seconds": 3}, stage=STAGE)
        others = 0
        while not running.done():
            assert client.run("bystander", [[OUTSIDE4[1], "tcp", PORTS[0]]], stage=STAGE).output == ["ok"]
            os.kill(networked.process.pid, signal.SIGHUP)
            others += 1
        result = running.result()
    assert others >= 3
    assert set(result.output["good"]) == {"reached"}
    assert set(result.output["bad"]) == {"ECONNREFUSED"}
    assert result.output["bad"]["ECONNREFUSED"] > 20
    assert [each.name for each in result.violations] == [f"{OUTSIDE4[1]}:{PORTS[0]}/tcp"]


@attack(39, "the keeper of the filters is killed", "its networks go with it; the run ends as a fault")
def test_without_its_keeper_nothing_passes(networked: Daemon, internet: Internet, tmp_path: Path) -> None:
    with internet.listen(OUTSIDE4[0], 9002) as listening, ThreadPoolExecutor(1) as pool:
        approved(networked, tmp_path, "floods_on", floods(9002), permission(OUTSIDE4[0], 9002), payload=0)
        running = pool.submit(networked.client().run, "floods_on", 9002, stage=STAGE)
        peer, _ = listening.accept()
        with peer:
            assert peer.recv(1000)
            (keeper,) = [pid for pid, name in descendants(networked.process.pid).items() if name == "plugind-network"]
            os.kill(keeper, signal.SIGKILL)
            with pytest.raises(PlugindError):
                running.result(timeout=20)
            peer.setblocking(False)
            drained(peer)
            time.sleep(0.3)
            assert drained(peer) == 0
    answer = networked.client().run("floods_on", 0, stage=STAGE)
    assert answer.output == 0, "another keeper has come"


def floods(port: int) -> str:
    return f"""
import socket, time
def run(payload, context):
    if not payload:
        return 0
    sock = socket.socket()
    sock.connect(("{OUTSIDE4[0]}", {port}))
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 26)
    sock.setblocking(False)
    data = bytes(1 << 20)
    while True:
        try:
            sock.send(data)
        except BlockingIOError:
            time.sleep(0.01)
"""


@attack(54, "as much as the kernel takes queued on a slow socket, then a kill", "the link goes before the processes")
def test_after_a_kill_nothing_more_reaches_the_peer(networked: Daemon, internet: Internet, tmp_path: Path) -> None:
    with internet.listen(OUTSIDE4[0], 9001) as listening, ThreadPoolExecutor(1) as pool:
        approved(networked, tmp_path, "floods", floods(9001), permission(OUTSIDE4[0], 9001), payload=0)
        client = networked.client()
        running = pool.submit(client.run, "floods", 9001, stage=STAGE)
        peer, _ = listening.accept()
        with peer:
            assert peer.recv(1000)
            time.sleep(0.3)  # whatever fits is under way
            client.kill("floods", reason="a test")
            peer.setblocking(False)
            arrived = drained(peer)  # was here before the kill returned
            time.sleep(0.5)
            assert drained(peer) == 0
            assert arrived > 0
        with pytest.raises(Killed):
            running.result(timeout=20)
        client.lift_kill("floods", reason="a test")


def drained(peer: socket.socket) -> int:
    """Reads what is here now."""
    count = 0
    while True:
        try:
            data = peer.recv(1 << 20)
        except (BlockingIOError, ConnectionResetError):  # of which the host tells, that knows the connection no more
            return count
        if not data:
            return count
        count += len(data)


SIGNALS = """
import errno, glob, hashlib, os, socket, time

PORT = 5000

def run(payload, context):
    if not payload:
        return []
    start, slot, bits = payload["start"], payload["slot"], payload["bits"]
    seen = []
    for number in range(payload["count"]):
        time.sleep(max(0.0, start + (number + payload["at"]) * slot - time.time()))
        if bits:
            say(bits[number], start + (number + 0.8) * slot)
        else:
            seen.append(look())
    return seen

def say(bit, until):
    opened = []
    if bit:
        for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
            sock = socket.socket(socket.AF_INET6, kind)
            sock.bind(("::", PORT))
            opened.append(sock)
        opened[0].listen()
        for _ in range(5):
            opened.append(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
            for last in (2, 6, 10, 14, 18):
                try:
                    opened[-1].sendto(b"hello", (f"198.19.0.{last}", PORT))
                except OSError:
                    pass
    time.sleep(max(0.0, until - time.time()))
    for sock in opened:
        sock.close()

def look():
    found = []
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        with socket.socket(socket.AF_INET6, kind) as sock:
            try:
                sock.bind(("::", PORT))
                found.append("bound")
            except OSError as error:
                found.append(errno.errorcode[error.errno])
    for name in ("tcp", "tcp6", "udp", "udp6", "unix", "packet", "raw", "netlink", "arp", "route", "if_inet6"):
        with open(f"/proc/self/net/{name}", "rb") as file:
            found.append(hashlib.sha256(file.read()).hexdigest()[:8])
    try:
        socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 4).close()
        found.append("sock_diag")
    except OSError as error:
        found.append(errno.errorcode[error.errno])
    return found
"""
COUNT, SLOT_S = 1000, 0.006


@attack(
    55,
    "two siblings with a network: 1,000 bits by ports that are taken, names, sock_diag, /proc/net, and each other's addresses",
    "a network namespace for each; nothing from one to another",
)
@pytest.mark.alone  # both keep to slots by the clock
def test_siblings_with_a_network_exchange_nothing(networked: Daemon, tmp_path: Path) -> None:
    approved(networked, tmp_path, "signals", SIGNALS, permission(*PEER), payload=None)
    client = networked.client()
    bits = [random.randrange(2) for _ in range(COUNT)]
    given = {"start": time.time() + 1.0, "slot": SLOT_S, "count": COUNT}
    with ThreadPoolExecutor(2) as pool:
        said = pool.submit(client.run, "signals", given | {"bits": bits, "at": 0.0}, stage=STAGE)
        seen = pool.submit(client.run, "signals", given | {"bits": [], "at": 0.5}, stage=STAGE)
        said.result(timeout=60)
        looks = seen.result(timeout=60).output
    assert len(looks) == COUNT
    assert {tuple(look) for look in looks} == {tuple(looks[0])}, "it saw something change"
    assert looks[0][:2] == ["bound", "bound"]
    assert looks[0][-1] == "EPERM"
