"""What the launcher and the keeper of networks say to each other: it comes out as it went in, and nothing else does."""

from __future__ import annotations

import json
from ipaddress import IPv4Network
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plugind.sandbox.network import words
from plugind.sandbox.network.words import Caps, Endpoint, Refusal, Settings, decode, encode

RUNS = st.from_regex(r"[!-~]{1,128}", fullmatch=True)
KEYS = st.from_regex(r"[ -~]{1,256}", fullmatch=True)
COUNTS = st.integers(0, 2**63 - 1)
ADDRESSES = st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6).filter(lambda each: each.ipv4_mapped is None)).map(str)
PROTOCOLS = st.sampled_from(["tcp", "udp"])
ENDPOINTS = st.builds(Endpoint, ADDRESSES, PROTOCOLS, st.integers(1, 65535))
CAPS = st.builds(Caps, st.integers(1, 10**10), st.integers(1, 65535))
REFUSALS = st.builds(Refusal, ADDRESSES, PROTOCOLS, st.integers(0, 65535), COUNTS)
MESSAGES = st.one_of(
    st.builds(words.Expect, KEYS),
    st.builds(words.Take, RUNS, KEYS, KEYS, st.lists(ENDPOINTS, max_size=20).map(tuple), CAPS),
    st.builds(words.Release, RUNS),
    st.builds(words.Forget, KEYS),
    st.just(words.End()),
    st.builds(words.Given, RUNS, COUNTS),
    st.builds(words.Used, RUNS, COUNTS, COUNTS, COUNTS, st.lists(REFUSALS, max_size=20).map(tuple), COUNTS),
    st.builds(
        words.Failed, RUNS, st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=1000)
    ),
)


@given(MESSAGES)
def test_what_is_said_is_what_is_heard(message) -> None:
    assert decode(encode(message)) == message


@given(st.binary(max_size=300))
def test_bytes_are_a_message_or_a_value_error(data) -> None:
    try:
        message = decode(data)
    except ValueError:
        return
    assert decode(encode(message)) == message


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@given(MESSAGES, st.data())
def test_a_field_of_another_form_is_a_value_error_or_a_message_that_holds(message, data) -> None:
    values = json.loads(encode(message))
    name = data.draw(st.sampled_from(sorted(values)))
    values[name] = data.draw(JSON)
    try:
        heard = decode(json.dumps(values).encode())
    except ValueError:
        return
    assert decode(encode(heard)) == heard


@pytest.mark.parametrize(
    "address",
    [
        "",
        "1.2.3",
        "1.2.3.4/8",
        "01.2.3.4",
        "::ffff:1.2.3.4",
        "fe80::1%eth0",
        "2001:DB8::1",
        "a.example",
        '1.2.3.4" drop',
    ],
)
def test_an_endpoint_is_one_address_in_its_usual_form(address) -> None:
    with pytest.raises(ValueError, match=r"."):
        Endpoint(address, "tcp", 443)


@pytest.mark.parametrize(("protocol", "port"), [("icmp", 1), ("TCP", 1), ("tcp", 0), ("tcp", 65536), ("tcp", True)])
def test_an_endpoint_is_tcp_or_udp_and_a_port(protocol, port) -> None:
    with pytest.raises(ValueError, match=r"expected"):
        Endpoint("192.0.2.1", protocol, port)


@pytest.mark.parametrize(("rate", "connections"), [(0, 1), (1, 0), (10**11, 1), (1, 65536), (1.5, 1)])
def test_caps_are_whole_and_not_nothing(rate, connections) -> None:
    with pytest.raises(ValueError, match=r"expected"):
        Caps(rate, connections)


def test_more_endpoints_than_there_may_be_are_refused() -> None:
    endpoints = tuple(Endpoint("192.0.2.1", "tcp", port) for port in range(1, words.MOST_ENDPOINTS + 2))
    with pytest.raises(ValueError, match="at most 256"):
        decode(encode(words.Take("r", "k", "d", endpoints, Caps(1, 1))))
    assert decode(encode(words.Take("r", "k", "d", endpoints[1:], Caps(1, 1)))).endpoints == endpoints[1:]


def test_everything_that_may_have_been_refused_fits_into_one_message() -> None:
    long = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:"
    refused = tuple(Refusal(f"{long}{number + 4096:x}", "udp", 65535, 2**63 - 1) for number in range(2 * 256))
    used = words.Used("r" * 128, 2**63 - 1, 2**63 - 1, 2**63 - 1, refused, 2**63 - 1)
    assert decode(encode(used)) == used


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"suffix": "eight888"}, "suffix"),
        ({"suffix": "A"}, "suffix"),
        ({"most": 0}, "1 to 16383"),
        ({"most": 4, "range4": IPv4Network("192.0.2.0/28")}, "1 to 3"),
        ({"spare": 65}, "spare"),
    ],
)
def test_settings_that_cannot_be_are_refused(change, said) -> None:
    with pytest.raises(ValueError, match=said):
        Settings(folder=Path("/run"), **change)


def test_names_fit_into_a_link_s_and_no_two_slots_share_an_address() -> None:
    settings = Settings(folder=Path("/run"), suffix="1234567")
    assert len(settings.uplink) <= 15
    assert (settings.uplink, settings.table) == ("plugind-1234567", "plugind_1234567")
    assert (Settings(folder=Path("/run")).uplink, Settings(folder=Path("/run")).table) == ("plugind0", "plugind")
    seen = [
        address
        for number in range(settings.most + 1)
        for each in [settings.addresses(number)]
        for address in (each.near4, each.far4, each.near6, each.far6)
    ]
    assert len(set(seen)) == len(seen)
