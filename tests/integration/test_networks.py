"""Plugins with the permission `network`, through the daemon, on an internet of our own: who is reached, and what is told."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.daemon import Daemon
from tests.support.internet import OUTSIDE4, OUTSIDE6, Internet
from tests.support.networked import SPEAKS, STAGE, approved, daemon_on, leave_nothing, outcome, permission
from tests.support.servers import HTTP_PORT, PAGE, PORTS

pytestmark = pytest.mark.root


@pytest.fixture(scope="module")
def internet() -> Iterator[Internet]:
    made = Internet()
    made.serve()
    yield made
    made.close()


@pytest.fixture(scope="module")
def daemon(internet: Internet) -> Iterator[Daemon]:
    with daemon_on(internet) as running:
        yield running


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


def test_runs_leave_nothing(daemon: Daemon, internet: Internet, tmp_path: Path) -> None:
    """tests/soak has five thousand of them."""
    leave_nothing(daemon, internet, tmp_path, 200)
