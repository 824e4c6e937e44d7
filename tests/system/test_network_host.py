"""The keeper on its host: what it changes there, what it finds there, and that all of it goes, also after kill -9."""

from __future__ import annotations

import json
import os
import select
import signal
import time
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path

import pytest
from pyroute2 import IPRoute

from plugind.addresses import Endpoint
from plugind.errors import IsolationUnavailableError
from plugind.linux import nftables
from plugind.sandbox.network import foreign, keeper, namespaces, probing
from plugind.sandbox.network.words import Settings
from tests.support import internet
from tests.support.internet import (
    OUTSIDE4,
    OUTSIDE6,
    PORTS,
    Internet,
    inside,
    speak,
)
from tests.support.networks import (
    FakeGroup,
    has_table,
    host_state,
    release,
    take,
)

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


def test_on_the_host_only_ours_comes_and_all_of_it_goes(start_keeper, net, template) -> None:
    with namespaces.entered(net.host):
        nft = nftables.Nftables()
        nft.run(FOREIGN)
        namespaces.set_sysctl("net/ipv4/conf/all/accept_redirects", "0")  # which the kernel would set to 1
        namespaces.set_sysctl("net/ipv4/conf/lo/forwarding", "1")
    before = host_state(net)
    kept = start_keeper()
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
        given = take(
            kept, template, endpoints=[Endpoint(OUTSIDE6[0], protocol, PORTS[0]) for protocol in ("tcp", "udp")]
        )

        def tries():
            began = time.monotonic()
            found = [speak(OUTSIDE6[0], protocol, PORTS[0]) for protocol in ("tcp", "udp")]
            return found, time.monotonic() - began

        found, took_s = inside(template, given.namespace, tries)
        assert found == ["ECONNREFUSED", "EACCES"]
        assert took_s < 0.5
        assert [each.address for each in release(kept).refused] == [OUTSIDE6[0]] * 2
        assert host_state(net)[4] == "0"
    finally:
        with namespaces.entered(net.host):
            kept.end()
        net.close()


def test_after_kill_9_nothing_passes_and_the_next_start_sweeps(start_keeper, net, template, tmp_path) -> None:
    before = host_state(net)
    kept = start_keeper()
    given = take(kept, template, endpoints=[Endpoint(OUTSIDE4[0], "tcp", PORTS[0])])
    assert inside(template, given.namespace, lambda: speak(OUTSIDE4[0], "tcp", PORTS[0])) == "ok"
    os.kill(kept.process.pid, signal.SIGKILL)
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
    os.waitpid(kept.process.pid, 0)
    kept.sock.close()
    kept.process.group.remove()
    again = start_keeper()
    assert has_table(net)
    with namespaces.entered(net.host):
        again.end()
    assert host_state(net) == before


def test_the_launcher_sweeps_at_its_own_start_what_a_killed_keeper_left(start_keeper, net, tmp_path) -> None:
    before = host_state(net)
    kept = start_keeper()
    os.kill(kept.process.pid, signal.SIGKILL)
    kept.link.close()
    with namespaces.entered(net.host):
        keeper.sweep(kept._settings)
        assert host_state(net) == before
        keeper.sweep(kept._settings)
        kept.end()
    assert host_state(net) == before


def test_it_does_not_start_where_a_route_leads_into_its_range(start_keeper, net, tmp_path) -> None:
    before = host_state(net)
    with namespaces.entered(net.host), IPRoute() as ip:
        ip.route("add", dst="198.19.7.0/24", gateway=OUTSIDE4[0])
        try:
            with pytest.raises(IsolationUnavailableError, match=r"198\.19\.0\.0/16, found 198\.19\.7\.0/24 dev wan"):
                keeper.start(Settings(folder=tmp_path), FakeGroup())
        finally:
            ip.route("del", dst="198.19.7.0/24", gateway=OUTSIDE4[0])
    assert host_state(net) == before


def test_two_daemons_of_one_machine_need_two_names_and_two_ranges(start_keeper, net, template, tmp_path) -> None:
    before = host_state(net)
    first = start_keeper()
    with namespaces.entered(net.host), pytest.raises(IsolationUnavailableError, match="plugind0"):
        keeper.start(Settings(folder=tmp_path / "b", range4=IPv4Network("198.18.0.0/16")), FakeGroup())
    second = start_keeper(
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
    assert host_state(net)[3][0] == "1", "the second had found it so"
    with namespaces.entered(net.host):
        keeper.sweep(first._settings)
    assert host_state(net) == before


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


def test_what_the_machine_can_is_told_and_nothing_is_changed(net, start_keeper, tmp_path) -> None:
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
    start_keeper()
    with namespaces.entered(net.host):
        again = probing.facts(Settings(folder=tmp_path / "not"))
    assert again == found, "it says something else while a daemon runs"


def test_a_foreign_policy_of_drop_is_named_and_left_alone_and_its_command_mends_it(
    net, start_keeper, template, capfd
) -> None:
    with namespaces.entered(net.host):
        nft = nftables.Nftables()
        nft.run(DOCKER)
    try:
        kept = start_keeper()
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


def test_when_the_launcher_is_killed_the_keeper_takes_everything_back(net, tmp_path) -> None:
    before = host_state(net)
    reads, writes = os.pipe()

    def launch() -> None:
        namespaces.enter(net.host)
        kept = keeper.start(Settings(folder=tmp_path, most=2), FakeGroup())
        os.write(writes, str(kept.process.pid).encode())
        signal.pause()

    launcher = internet.forked(launch)
    pid = int(os.read(reads, 100))
    os.kill(pid, signal.SIGTERM)  # systemd's to all of a unit: the keeper ends when the launcher says so
    time.sleep(0.1)
    assert has_table(net)
    internet.end(launcher)
    deadline = time.monotonic() + 5
    while host_state(net) != before:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    while Path(f"/proc/{pid}").exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert not (tmp_path / "network.json").exists()
    os.close(reads)
    os.close(writes)


def test_what_cannot_be_set_up_is_taken_back_and_said(net, tmp_path) -> None:
    before = host_state(net)
    (tmp_path / "no-folder").write_text("")
    with namespaces.entered(net.host), pytest.raises(IsolationUnavailableError, match="no-folder"):
        keeper.start(Settings(folder=tmp_path / "no-folder", most=2), FakeGroup())
    assert host_state(net) == before
