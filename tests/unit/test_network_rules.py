"""Rulesets as texts, the kernel's keys, and what is read out of libnftables' JSON."""

from __future__ import annotations

import ipaddress
import json
from ipaddress import IPv4Network
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plugind.addresses import Endpoint
from plugind.linux import sock_diag
from plugind.sandbox.network import foreign, rules
from plugind.sandbox.network.words import Caps, Refusal, Settings

META = {"metainfo": {"version": "1.0.6", "release_name": "Lester Gooch #5", "json_schema_version": 1}}


def listed(elements, **more):
    described = {"family": "inet", "name": "sent", "table": "plugind", "type": "ifname", "handle": 1, **more}
    if elements:
        described["elem"] = elements
    return json.dumps({"nftables": [META, {"set": described}]})


def element(value, packets, size_bytes):
    return {"elem": {"val": value, "counter": {"packets": packets, "bytes": size_bytes}}}


def test_a_slot_s_count_is_read_among_others() -> None:
    text = listed([element("s1", 1, 60), element("s12", 7, 4000), element("s2", 3, 180)])
    assert rules.count_of(text, 12) == (7, 4000)
    with pytest.raises(ValueError, match="s3"):
        rules.count_of(text, 3)


def test_refusals_are_read_with_protocols_by_name_or_number() -> None:
    text = listed(
        [
            element({"concat": ["192.0.2.1", "tcp", 443]}, 2, 120),
            element({"concat": ["192.0.2.1", 17, 53]}, 1, 60),
            element({"concat": ["2001:db8::1", "udp", 1]}, 5, 300),
        ]
    )
    assert rules.refusals(text) == [
        Refusal("192.0.2.1", "tcp", 443, 2),
        Refusal("192.0.2.1", "udp", 53, 1),
        Refusal("2001:db8::1", "udp", 1, 5),
    ]
    assert rules.refusals(listed([])) == []


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        "null",
        '{"nftables": []}',
        '{"nftables": [{"set": {"elem": 1}}]}',
        '{"nftables": [{"set": {}}, {"set": {}}]}',
        listed([{"elem": {"val": "s1"}}]),
        listed(["s1"]),
        listed([element("s1", -1, 0)]),
        listed([element("s1", "1", 0)]),
        listed([element("s1", True, 0)]),
    ],
)
def test_what_is_no_set_with_counters_is_a_value_error(text) -> None:
    with pytest.raises(ValueError, match=r"."):
        rules.count_of(text, 1)
    with pytest.raises(ValueError, match=r"."):
        rules.refusals(text)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                "nftables set elem val counter packets bytes concat table chain family name hook policy".split()
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=20,
)


@given(JSON)
def test_whatever_json_says_each_reader_takes_it_or_raises_a_value_error(value) -> None:
    text = json.dumps(value)
    for read in (
        rules.elements,
        lambda each: rules.count_of(each, 1),
        rules.refusals,
        rules.tables,
        lambda each: foreign.obstacles(each, "plugind0"),
    ):
        try:
            read(text)
        except ValueError:
            pass


@given(
    st.lists(
        st.tuples(
            st.ip_addresses(),
            st.sampled_from(["tcp", "udp"]),
            st.integers(0, 65535),
            st.integers(0, 2**63),
            st.integers(0),
        )
    )
)
def test_every_refusal_that_is_listed_is_read(cells) -> None:
    text = listed([element({"concat": [str(a), p, port]}, n, size) for a, p, port, n, size in cells])
    assert rules.refusals(text) == [Refusal(str(a), p, port, n) for a, p, port, n, _ in cells]


def test_keys_are_what_the_kernel_keeps() -> None:
    endpoints = [
        Endpoint("192.0.2.1", "tcp", 443),
        Endpoint("2001:db8::1", "udp", 53),
        Endpoint("192.0.2.1", "tcp", 443),
    ]
    assert rules.keys(7, endpoints) == {
        "allowed4": [b"s7" + bytes(14) + bytes([192, 0, 2, 1]) + b"\x06\0\0\0" + b"\x01\xbb\0\0"],
        "allowed6": [b"s7" + bytes(14) + ipaddress.ip_address("2001:db8::1").packed + b"\x11\0\0\0" + b"\0\x35\0\0"],
    }
    assert rules.keys(7, []) == {}


def test_what_is_allowed_is_what_is_taken_back() -> None:
    endpoints = [Endpoint("192.0.2.1", "tcp", 443), Endpoint("2001:db8::1", "udp", 53), Endpoint("192.0.2.2", "tcp", 1)]
    assert rules.allow_no_more(7, endpoints) == (
        'delete element inet plugind allowed4 { "s7" . 192.0.2.1 . 6 . 443, "s7" . 192.0.2.2 . 6 . 1 }\n'
        'delete element inet plugind allowed6 { "s7" . 2001:db8::1 . 17 . 53 }'
    )
    assert rules.allow_no_more(7, []) == ""


def test_both_ways_drop_by_policy_and_caps_are_in_what_is_made_ready() -> None:
    for hook in ("input", "output", "forward"):
        assert f"hook {hook} priority filter; policy drop;" in rules.ROUTER
    text = rules.ready(3, 9, Caps(4000, 5))
    assert text.count("limit rate 4000 bytes/second") == 2
    assert "ct count over 5 goto refuse" in text


def test_the_host_s_table_names_the_ranges_and_the_uplink() -> None:
    text = rules.host(Settings(folder=Path("/run"), suffix="b", range4=IPv4Network("198.18.0.0/16")))
    assert "table inet plugind_b {" in text
    assert 'iifname "plugind-b" jump leaving' in text
    assert "ip saddr 198.18.0.0/16 masquerade" in text


def chain(table, name, family="ip", **more):
    return {"chain": {"family": family, "table": table, "name": name, "handle": 1, **more}}


DROPS = {"type": "filter", "hook": "forward", "prio": 0, "policy": "drop"}


@pytest.mark.parametrize(
    ("chains", "who", "command"),
    [
        (
            [chain("filter", "DOCKER-USER"), chain("filter", "FORWARD", **DROPS)],
            "Docker",
            "iptables -I DOCKER-USER -i up -j",
        ),
        (
            [chain("filter", "ufw-before-forward"), chain("filter", "FORWARD", **DROPS)],
            "ufw",
            "ufw route allow in on up",
        ),
        ([chain("filter", "FORWARD", "ip6", **DROPS)], "iptables", "ip6tables -I FORWARD -i up -j ACCEPT"),
        (
            [chain("firewalld", "filter_FORWARD", "inet", **{**DROPS, "policy": "accept"})],
            "firewalld",
            "firewall-cmd --zone=trusted --add-interface=up",
        ),
        ([chain("walls", "f", "inet", **DROPS)], "a firewall", "nft insert rule inet walls f iifname up accept"),
    ],
)
def test_who_drops_what_is_forwarded_is_named_with_what_lets_it_pass(chains, who, command) -> None:
    (found,) = foreign.obstacles(json.dumps({"nftables": [META, *chains]}), "up")
    assert found.who == who
    assert found.command.startswith(f"sudo {command}")


def test_who_accepts_or_drops_elsewhere_is_no_obstacle() -> None:
    chains = [
        chain("filter", "FORWARD", **{**DROPS, "policy": "accept"}),
        chain("filter", "INPUT", **{**DROPS, "hook": "input"}),
        chain("b", "f", "bridge", **DROPS),
        chain("filter", "DOCKER-USER"),
    ]
    assert foreign.obstacles(json.dumps({"nftables": [META, *chains]}), "up") == []


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("sockets: used 1\nTCP: inuse 0 orphan 3 tw 0 alloc 35 mem 9\nUDP: inuse 0 mem 4\n", False),
        ("sockets: used 2\nTCP: inuse 0 orphan 0 tw 0 alloc 0 mem 0\n", True),
        ("sockets: used 1\nTCP: inuse 1 orphan 0 tw 0 alloc 0 mem 0\n", True),
        ("sockets: used 1\nTCP: inuse 0 orphan 0 tw 1 alloc 0 mem 0\n", True),
        ("TCP6: inuse 0\nUDP6: inuse 1\nRAW6: inuse 0\n", True),
        ("TCP6: inuse 0\nUDP6: inuse 0\nRAW6: inuse 0\nFRAG6: inuse 0 memory 0\n", False),
    ],
)
def test_sockets_of_the_namespace_are_told_from_those_of_the_machine(text, left) -> None:
    assert sock_diag.has_sockets(text) == left
