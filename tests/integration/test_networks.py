"""Plugins with the permission `network`, through the daemon, on an internet of our own: who is reached, and what is told."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from plugind_client import Client, Killed
from tests.support.daemon import Daemon
from tests.support.internet import HTTP_PORT, OUTSIDE4, OUTSIDE6, PAGE, PORTS, Internet
from tests.support.plugins import folder

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
