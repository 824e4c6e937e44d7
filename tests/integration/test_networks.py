"""Plugins with the permission `network`, through the daemon, on an internet of our own: who is reached, and what is told."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from plugind_client import Client, Killed
from tests.support.daemon import Daemon
from tests.support.internet import OUTSIDE4, OUTSIDE6, Internet
from tests.support.plugins import folder
from tests.support.servers import HTTP_PORT, PAGE, PORTS

pytestmark = pytest.mark.root

STAGE = "currency_strategy"
"""One in which the policy as shipped allows a network."""
SPEAKS = """
import errno, json, socket

def speak(address, protocol, port):
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM) as sock:
            sock.settimeout(2)
            sock.connect((address, port))
            sock.send(b"hello")
            return "ok" if sock.recv(64) == b"hello" else "other"
    except TimeoutError:
        return "timeout"
    except OSError as error:
        return errno.errorcode.get(error.errno, str(error))

def run(payload, context):
    return [speak(*each) for each in payload]
"""


def permission(host: str, port: int, protocol: str = "tcp") -> str:
    return f'[[permissions.network]]\nhost = "{host}"\nport = {port}\nprotocol = "{protocol}"\n'


@pytest.fixture(scope="module")
def internet() -> Iterator[Internet]:
    made = Internet()
    made.serve()
    yield made
    made.close()


@pytest.fixture(scope="module")
def daemon(internet: Internet) -> Iterator[Daemon]:
    with Daemon(namespace=Path(f"/proc/{os.getpid()}/fd/{internet.host}")) as running:
        yield running


def approved(
    daemon: Daemon, parent: Path, name: str, code: str, *wanted: str, payload: Any = None, tier: int = 1
) -> Any:
    """Submit, approve, activate and run a plugin; what `try` says."""
    extra = "[limits]\nwall_ms = 20000\n" + "".join(wanted)
    return daemon.try_plugin(folder(parent, name, code=code, extra=extra), payload, stage=STAGE, tier=tier)


def outcome(client: Client, log: str) -> dict[str, Any]:
    """The OUTCOME of a run."""
    intent = int(log.removeprefix("log_"))
    found = client.audit.query(limit=50).records
    return next(each.fields for each in found if each.event == "OUTCOME" and each.fields["intent"] == intent)


def test_exactly_who_was_approved_is_reached_and_the_rest_is_counted(daemon: Daemon, tmp_path: Path) -> None:
    allowed = {(OUTSIDE4[0], "tcp", PORTS[0]), (OUTSIDE4[1], "udp", PORTS[1]), (OUTSIDE6[0], "tcp", PORTS[1])}
    cells = [
        (address, protocol, port)
        for address in (*OUTSIDE4[:2], *OUTSIDE6)
        for protocol in ("tcp", "udp")
        for port in PORTS
    ]
    wanted = [permission(address, port, protocol) for address, protocol, port in allowed]
    answer = approved(daemon, tmp_path, "speaks", SPEAKS, *wanted, payload=cells)
    assert answer["outcome"] == "ok", answer
    reached = {cell for cell, how in zip(cells, answer["output"], strict=True) if how == "ok"}
    assert reached == allowed
    assert "timeout" not in answer["output"], "what is refused fails at once"
    refused = {each["name"] for each in answer["violations"] if each["kind"] == "network"}
    shown = {f"[{a}]:{port}/{p}" if ":" in a else f"{a}:{port}/{p}" for a, p, port in set(cells) - allowed}
    assert refused == shown
    record = outcome(daemon.client(), answer["governance"]["audit_log"])
    assert record["network"]["connections"] == len(allowed)
    assert record["network"]["sent_bytes"] > 0
    assert record["network"]["received_bytes"] > 0
    assert {each["name"] for each in record["violations"] if each["kind"] == "network"} == shown


def test_a_page_of_the_web(daemon: Daemon, tmp_path: Path) -> None:
    code = (
        "import urllib.request\n"
        "def run(payload, context):\n"
        "    return urllib.request.urlopen(payload, timeout=5).read().decode()\n"
    )
    url = f"http://{OUTSIDE4[0]}:{HTTP_PORT}/"
    answer = approved(daemon, tmp_path, "reads_page", code, permission(OUTSIDE4[0], HTTP_PORT), payload=url)
    assert (answer["outcome"], answer["output"]) == ("ok", PAGE.decode())


def test_what_nobody_approved_or_nobody_may_have(daemon: Daemon, tmp_path: Path) -> None:
    none = approved(daemon, tmp_path, "asks_nothing", SPEAKS, payload=[[OUTSIDE4[0], "tcp", PORTS[0]]])
    assert (none["outcome"], none["output"]) == ("ok", ["EPERM"])
    assert [(each["kind"], each["name"]) for each in none["violations"]] == [("syscall", "socket")]
    two = approved(daemon, tmp_path, "of_tier_two", SPEAKS, permission(OUTSIDE4[0], PORTS[0]), payload=[], tier=2)
    assert two["decision"] == "deny"
    assert "PERMISSION_NOT_APPROVED" in {each["code"] for each in two["reasons"]}


@pytest.mark.parametrize("address", ["169.254.169.254", "127.0.0.1", "10.0.0.1", "::ffff:9.9.9.10", "fe80::1"])
def test_addresses_that_nobody_may_talk_to_deny_the_run(daemon: Daemon, tmp_path: Path, address: str) -> None:
    name = "asks_" + address.replace(".", "_").replace(":", "_")
    answer = approved(daemon, tmp_path, name, SPEAKS, permission(address, PORTS[0]), payload=[])
    assert answer["decision"] == "deny"
    (reason,) = answer["reasons"]
    assert (reason["code"], reason["rule"]) == ("PERMISSION_NOT_APPROVED", "network.addresses")
    assert address in reason["actual"]


def test_a_session_and_a_map_have_the_network_too(daemon: Daemon, tmp_path: Path) -> None:
    cell = [OUTSIDE4[0], "tcp", PORTS[0]]
    assert approved(daemon, tmp_path, "talks", SPEAKS, permission(*cell[::2]), payload=[cell])["output"] == ["ok"]
    client = daemon.client()
    with client.session("talks", stage=STAGE) as session:
        assert session.call_many([[cell], [[OUTSIDE4[1], "tcp", PORTS[0]]], [cell]]) == [
            ["ok"],
            ["ECONNREFUSED"],
            ["ok"],
        ]
    ended = outcome(client, session.close().audit_log)
    assert ended["network"]["connections"] == 2
    assert [each["name"] for each in ended["violations"]] == [f"{OUTSIDE4[1]}:{PORTS[0]}/tcp"]
    assert client.map("talks", [[cell], [cell]], stage=STAGE).outputs == [["ok"], ["ok"]]


def test_names_in_the_instance_are_those_of_its_hosts_file(daemon: Daemon, tmp_path: Path) -> None:
    code = (
        "import socket\n"
        "def run(payload, context):\n"
        "    try:\n"
        "        return [open('/etc/hosts').read(), socket.getaddrinfo('localhost', 1)[0][4][0],\n"
        "                socket.getaddrinfo('example.org', 1)]\n"
        "    except socket.gaierror as error:\n"
        "        return [open('/etc/hosts').read(), socket.getaddrinfo('localhost', 1)[0][4][0], str(error)]\n"
    )
    answer = approved(daemon, tmp_path, "looks_up", code, permission(OUTSIDE4[0], PORTS[0]))
    hosts, local, missing = answer["output"]
    assert hosts.splitlines()[:2] == ["127.0.0.1 localhost", "::1 localhost"]
    assert local in ("127.0.0.1", "::1")
    assert "Name or service not known" in missing or "Temporary failure" in missing
    assert [each for each in answer["violations"] if each["kind"] == "network"] == [], "it did not even ask"


FLOODS = f"""
import socket, time
def run(payload, context):
    if not payload:
        return 0
    sock = socket.socket()
    sock.connect(("{OUTSIDE4[0]}", payload))
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 26)
    sock.setblocking(False)
    data, sent = bytes(1 << 20), 0
    while True:
        try:
            sent += sock.send(data)
        except BlockingIOError:
            time.sleep(0.01)
"""


def test_after_a_kill_nothing_more_reaches_the_peer(daemon: Daemon, internet: Internet, tmp_path: Path) -> None:
    """What is queued is as much as the kernel takes; the peer reads a little of it, and then all that still comes."""
    with internet.listen(OUTSIDE4[0], 9001) as listening, ThreadPoolExecutor(1) as pool:
        assert approved(daemon, tmp_path, "floods", FLOODS, permission(OUTSIDE4[0], 9001), payload=0)["output"] == 0
        client = daemon.client()
        running = pool.submit(client.run, "floods", 9001, stage=STAGE)
        peer, _ = listening.accept()
        with peer:
            peer.settimeout(5)
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
