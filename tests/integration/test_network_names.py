"""Names of peers, from the manifest to the instance: resolved by the daemon, judged, pinned; a name server of our own."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from plugind.policyfile import shipped_policy
from plugind.profiles import profiles_dir
from plugind.sandbox.network import namespaces
from plugind_client import Denied
from tests.escapes.attack import attack
from tests.support.daemon import Daemon, profiles_with
from tests.support.dns import DnsServer, fixed, nxdomain, servfail, silent
from tests.support.internet import OUTSIDE4, OUTSIDE6, Internet
from tests.support.networked import STAGE, approved, daemon_on, permission
from tests.support.servers import PORTS

pytestmark = pytest.mark.root

PORT = PORTS[0]
WILDCARD = '\n[network."*.wild.example"]\nhosts = ["one.wild.example"]\n'
PRIVATE = "10.9.9.9"
SPEAKS = """
import errno, socket

def speak(host, port):
    found = sorted({each[4][0] for each in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)})
    answers = []
    for address in found:
        with socket.create_connection((address, port), 2) as sock:
            sock.send(b"hello")
            answers.append([address, sock.recv(64) == b"hello"])
    return answers

def run(payload, context):
    answers = []
    for host, port in payload:
        try:
            answers.append(speak(host, port))
        except OSError as error:
            answers.append(errno.errorcode.get(error.errno, str(error)) if (error.errno or 0) > 0 else str(error))
    return [answers, open("/etc/hosts").read()]
"""


@pytest.fixture(scope="module")
def internet() -> Iterator[Internet]:
    made = Internet(also=(PRIVATE,))
    made.serve()
    yield made
    made.close()


@pytest.fixture(scope="module")
def dns(internet: Internet) -> Iterator[DnsServer]:
    with namespaces.entered(internet.outside):
        server = DnsServer([OUTSIDE4[0]], port=53)
    with server:
        yield server


@pytest.fixture(scope="module")
def daemon(internet: Internet, dns: DnsServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    folder = tmp_path_factory.mktemp("configured")
    folder.chmod(0o755)
    profiles = profiles_with(folder, parked=2)
    tier1 = profiles / "tier1.toml"
    tier1.write_text(re.sub(r"(?m)^private = \[\]", 'private = ["10.9.0.0/16"]', tier1.read_text()))
    config = folder / "plugind.toml"
    policy = folder / "policy.toml"
    policy.write_text(shipped_policy().read_text() + WILDCARD)
    config.write_text(f'nameservers = "{OUTSIDE4[0]}"\nprofiles = "{profiles}"\npolicy = "{policy}"\n')
    with daemon_on(internet, "--config", str(config)) as running:
        yield running


def test_a_name_has_the_addresses_that_were_found_and_no_other_name_has_any(
    daemon: Daemon, dns: DnsServer, tmp_path: Path
) -> None:
    dns.names["api.example.com"] = fixed(OUTSIDE4[0], OUTSIDE4[1], OUTSIDE6[0])
    dns.names["other.example.com"] = fixed(OUTSIDE4[2])
    payload = [["api.example.com", PORT], ["other.example.com", PORT]]
    answer = approved(daemon, tmp_path, "calls", SPEAKS, permission("api.example.com", PORT), payload=payload)
    (found, other), hosts = answer["output"]
    assert found == [[address, True] for address in sorted((OUTSIDE4[0], OUTSIDE4[1], OUTSIDE6[0]))]
    assert "not known" in other or "resolution" in other
    lines = hosts.splitlines()
    assert f"{OUTSIDE4[1]} api.example.com" in lines
    assert not any("other" in line for line in lines)
    assert dns.count("other.example.com") == 0
    asked = dns.count("api.example.com")
    result = daemon.client().run("calls", payload, stage=STAGE)
    assert result.output[0][0] == found
    assert dns.count("api.example.com") == asked, "its answer holds for a minute"


@pytest.mark.parametrize(
    ("name", "reply", "told"),
    [
        ("gone", nxdomain(), "no such name"),
        ("broken", servfail(), "SERVFAIL"),
        ("empty", fixed(), "no address"),
    ],
)
def test_a_name_without_an_address_denies_the_run(
    daemon: Daemon, dns: DnsServer, tmp_path: Path, name: str, reply: Any, told: str
) -> None:
    dns.names[f"{name}.example.com"] = reply
    answer = approved(daemon, tmp_path, f"calls_{name}", SPEAKS, permission(f"{name}.example.com", PORT), payload=[])
    (reason,) = answer["reasons"]
    assert (reason["code"], reason["rule"]) == ("ISOLATION_UNAVAILABLE", "network.names")
    assert f"{name}.example.com" in reason["actual"]
    assert told in reason["actual"]


def test_a_silent_name_server_holds_up_nobody_else(daemon: Daemon, dns: DnsServer, tmp_path: Path) -> None:
    dns.names["quick.example.com"] = fixed(OUTSIDE4[0])
    dns.names["silent.example.com"] = silent()
    approved(daemon, tmp_path, "quick", SPEAKS, permission("quick.example.com", PORT), payload=[])
    with ThreadPoolExecutor(1) as pool:
        client, begun = daemon.client(), time.monotonic()
        waits = pool.submit(
            approved, daemon, tmp_path, "waits", SPEAKS, permission("silent.example.com", PORT), payload=[]
        )
        others = 0
        while not waits.done():
            client.run("quick", [], stage=STAGE)
            others += 1
        (reason,) = waits.result()["reasons"]
        took_s = time.monotonic() - begun
    assert reason["rule"] == "network.names"
    assert "no answer" in reason["actual"]
    assert others > 10
    assert took_s > 3, "it was waited for"


@attack(
    37,
    "an approved name that is made to mean something else: rebinding to private and metadata addresses, mapped forms",
    "every answer is judged, of each start anew when its time is over; an instance keeps what it began with",
)
@pytest.mark.parametrize("evil", ["169.254.169.254", PRIVATE, "127.0.0.1", "::ffff:a09:909", "64:ff9b::a09:909"])
@pytest.mark.parametrize("beside", [True, False], ids=["beside a good one", "alone"])
def test_rebinding(daemon: Daemon, dns: DnsServer, tmp_path: Path, evil: str, beside: bool) -> None:
    name = f"rebinds{abs(hash((evil, beside)))}.example.com"
    dns.names[name] = fixed(*([OUTSIDE4[0]] if beside else []), evil)
    plugin = f"rebinds_{abs(hash((evil, beside)))}"
    answer = approved(daemon, tmp_path, plugin, SPEAKS, permission(name, PORT), payload=[[name, PORT]])
    assert answer["decision"] == "deny"
    (reason,) = answer["reasons"]
    assert (reason["code"], reason["rule"]) == ("PERMISSION_NOT_APPROVED", "network.addresses")
    assert evil in reason["actual"]
    with pytest.raises(Denied):
        daemon.client().run(plugin, [[name, PORT]], stage=STAGE)


def test_a_name_that_changes_is_asked_for_again_and_nothing_changes_for_who_has_begun(
    daemon: Daemon, dns: DnsServer, tmp_path: Path
) -> None:
    name, payload = "turns.example.com", [["turns.example.com", PORT]]
    dns.names[name] = fixed(OUTSIDE4[0], ttl=0)
    assert approved(daemon, tmp_path, "turns", SPEAKS, permission(name, PORT), payload=payload)["outcome"] == "ok"
    client = daemon.client()
    with client.session("turns", stage=STAGE) as session:
        assert session.call(payload)[0] == [[[OUTSIDE4[0], True]]]
        dns.names[name] = fixed(PRIVATE, ttl=0)
        time.sleep(5.5)  # longer than any answer without a time of its own is kept
        with pytest.raises(Denied) as caught:
            client.run("turns", payload, stage=STAGE)
        assert PRIVATE in caught.value.reasons[0].actual
        assert session.call(payload)[0] == [[[OUTSIDE4[0], True]]]


def test_a_wildcard_is_the_hosts_that_the_policy_lists(daemon: Daemon, dns: DnsServer, tmp_path: Path) -> None:
    dns.names["one.wild.example"] = dns.names["two.wild.example"] = fixed(OUTSIDE4[0])
    payload = [["one.wild.example", PORT], ["two.wild.example", PORT]]
    answer = approved(daemon, tmp_path, "wild", SPEAKS, permission("*.wild.example", PORT), payload=payload)
    one, two = answer["output"][0]
    assert one == [[OUTSIDE4[0], True]]
    assert isinstance(two, str), "nobody listed it"
    answer = approved(daemon, tmp_path, "wilder", SPEAKS, permission("*.example.com", PORT), payload=[])
    assert [each["rule"] for each in answer["reasons"]] == ['network."*.example.com"']


def test_a_private_address_is_reached_only_where_it_was_approved_as_such(
    daemon: Daemon, dns: DnsServer, tmp_path: Path
) -> None:
    dns.names["inside.example.com"] = fixed(PRIVATE)
    both = (permission("inside.example.com", PORT), permission(PRIVATE, PORT))
    payload = [["inside.example.com", PORT]]
    answer = approved(daemon, tmp_path, "inside", SPEAKS, *both, payload=payload)
    assert answer["output"][0] == [[[PRIVATE, True]]]
    other_port = (permission("inside.example.com", PORT), permission(PRIVATE, PORT + 1))
    answer = approved(daemon, tmp_path, "inside_other", SPEAKS, *other_port, payload=payload)
    assert [each["rule"] for each in answer["reasons"]] == ["network.addresses"]
    outside_of_range = permission("10.8.0.1", PORT)
    answer = approved(daemon, tmp_path, "outside_range", SPEAKS, outside_of_range, payload=[])
    assert "in no range that is allowed here" in answer["reasons"][0]["actual"]


@attack(37, "ask name servers from inside", "no peer that was not approved; the hosts file is all there is")
def test_no_dns_leaves_an_instance(daemon: Daemon, dns: DnsServer, tmp_path: Path) -> None:
    code = (
        "import socket\n"
        "def run(payload, context):\n"
        "    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:\n"
        "        sock.settimeout(1)\n"
        "        try:\n"
        "            sock.connect((payload, 53))\n"
        "            sock.send(bytes(12))\n"
        "            return len(sock.recv(512))\n"
        "        except OSError as error:\n"
        "            return str(error)\n"
    )
    before = sum(dns.asked.values())
    answer = approved(daemon, tmp_path, "asks_dns", code, permission(OUTSIDE4[0], PORT), payload=OUTSIDE4[0])
    assert not isinstance(answer["output"], int)
    assert [each["name"] for each in answer["violations"]] == [f"{OUTSIDE4[0]}:53/udp"]
    assert sum(dns.asked.values()) == before


def test_the_profiles_as_shipped_allow_no_private_range() -> None:
    for tier in (0, 1):
        assert "\nprivate = []" in (profiles_dir() / f"tier{tier}.toml").read_text()
