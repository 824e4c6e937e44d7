"""Whom an instance may be given to talk to: each address judged, and nothing that only looks like another one."""

from __future__ import annotations

import ipaddress
import socket
from ipaddress import IPv4Address, IPv6Address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plugind import addresses
from plugind.addresses import Endpoint, RefusedError, check, hosts_text, name_objection, objection, parse
from plugind.model import Wanted

EVERYTHING = (ip_network("0.0.0.0/0"), ip_network("::/0"))
PUBLIC, PUBLIC6, PRIVATE, ULA = "93.184.215.14", "2606:2800:21f:cb07::1", "10.1.2.3", "fd12:3456::1"
HERE = (ip_network("10.0.0.0/8"), ip_network("fd00::/8"))

fours = st.integers(0, 2**32 - 1).map(IPv4Address) | st.sampled_from(
    [network for network, _ in (*addresses._NEVER_RANGES, *addresses._PRIVATE_RANGES) if network.version == 4]
).flatmap(lambda network: st.integers(int(network[0]), int(network[-1])).map(IPv4Address))
sixes = st.integers(0, 2**128 - 1).map(IPv6Address) | st.sampled_from(
    [network for network, _ in (*addresses._NEVER_RANGES, *addresses._PRIVATE_RANGES) if network.version == 6]
).flatmap(lambda network: st.integers(int(network[0]), int(network[-1])).map(IPv6Address))

FORMS = {
    "IPv4-mapped": lambda four, any64: (0xFFFF << 32) | four,
    "IPv4-compatible": lambda four, any64: four,
    "IPv4-translated": lambda four, any64: (0xFFFF << 48) | four,
    "NAT64": lambda four, any64: (0x0064FF9B << 96) | four,
    "NAT64 of this network": lambda four, any64: (0x0064FF9B0001 << 80) | (any64 >> 16 << 32) | four,
    "6to4": lambda four, any64: (0x2002 << 112) | (four << 80) | any64,
    "Teredo": lambda four, any64: (0x20010000 << 96) | (any64 << 32) | (four ^ 0xFFFFFFFF),
    "ISATAP": lambda four, any64: (0x2606 << 112) | (any64 >> 16 << 64) | (0x5EFE << 32) | four,
    "ISATAP of the world": lambda four, any64: (0x2606 << 112) | (any64 >> 16 << 64) | (0x02005EFE << 32) | four,
}


@pytest.mark.parametrize("text, why", [
    ("0.0.0.0", "unspecified"),
    ("0.1.2.3", "this network"),
    ("127.0.0.1", "loopback"),
    ("127.255.1.2", "loopback"),
    ("169.254.169.254", "link-local (cloud metadata lives there)"),
    ("169.254.170.2", "link-local (cloud metadata lives there)"),
    ("100.100.100.200", "a cloud's metadata service"),
    ("168.63.129.16", "a cloud's metadata service"),
    ("fd00:ec2::254", "a cloud's metadata service"),
    ("fd20:ce::254", "a cloud's metadata service"),
    ("192.0.0.9", "for protocols of the network itself"),
    ("198.19.0.1", "plugind's own"),
    ("fd70:6c75:6769::1", "plugind's own"),
    ("224.0.0.251", "multicast"),
    ("255.255.255.255", "broadcast"),
    ("240.0.0.1", "reserved"),
    ("::", "unspecified"),
    ("::1", "loopback"),
    ("fe80::1", "link-local"),
    ("fec0::1", "site-local"),
    ("ff02::fb", "multicast"),
    ("100::1", "discarded by routers"),
    ("2001:20::1", "no address but a hash (ORCHID)"),
    ("5f00::1", "for segment routing"),
    ("4000::1", "reserved"),
    ("::ffff:10.0.0.1", "carries the IPv4 address 10.0.0.1 (IPv4-mapped)"),
    ("::ffff:169.254.169.254", "carries the IPv4 address 169.254.169.254 (IPv4-mapped)"),
    ("64:ff9b::a9fe:a9fe", "carries the IPv4 address 169.254.169.254 (NAT64)"),
    ("2002:7f00:1::", "carries the IPv4 address 127.0.0.1 (6to4)"),
    ("2001:0:4136:e378:8000:63bf:3fff:fdd2", "carries the IPv4 address 192.0.2.45 (Teredo)"),
])  # fmt: skip
def test_what_nobody_may_approve_is_refused_in_words(text, why):
    assert objection(parse(text), ()) == why
    assert objection(parse(text), EVERYTHING) == why


@pytest.mark.parametrize("text", [
    "10.0.0.1", "172.31.255.255", "192.168.1.1", "100.64.0.1", "198.18.0.1", "192.0.2.1", "198.51.100.1",
    "203.0.113.9", "fd12::1", "fc00::1", "2001:db8::1", "3fff::1",
])  # fmt: skip
def test_what_is_private_is_given_where_it_is_allowed_and_nowhere_else(text):
    address = parse(text)
    assert objection(address, ()).endswith("and in no range that is allowed here")
    assert objection(address, [ip_network(f"{text}/{address.max_prefixlen}")]) == ""
    neighbour = address + 1
    assert objection(address, [ip_network(f"{neighbour}/{address.max_prefixlen}")]) != ""


@pytest.mark.parametrize("text", ["1.1.1.1", "93.184.215.14", "172.32.0.1", "198.20.0.1", "2606:4700::1111", "2a00::1"])
def test_what_is_public_is_given(text):
    assert objection(parse(text), ()) == ""


# What our table refuses and Python calls global, each on purpose.
STRICTER = {
    "168.63.129.16/32": "Azure's services for its own machines, at a public address",
    "192.0.0.0/24": "PCP and TURN anycast: orders to the NAT of the network we are in",
    "192.88.99.0/24": "6to4 relays: given back (RFC 7526), newer Pythons agree",
    "224.0.0.0/4": "multicast counts as global there",
    "ff00::/8": "the same",
    "2001::/23": "anycast addresses of protocols, ORCHIDv2, drones' identities: none is a host's",
    "2002::/16": "6to4 carries an IPv4 address; newer Pythons agree",
    "64:ff9b::/96": "NAT64: what it carries is judged by nobody",
    "64:ff9b:1::/48": "the same, newer Pythons agree",
    "::ffff:0:0/96": "judged there by the address in it, refused here whatever it is",
    "3fff::/20": "documentation; older Pythons do not know it",
    "5f00::/16": "segment routing; older Pythons do not know it",
    "100:0:0:1::/64": "a dummy prefix; older Pythons do not know it",
}
STRICTER_NETWORKS = [ip_network(text) for text in STRICTER]


@given(fours | sixes)
def test_pythons_own_judgement_agrees_but_for_what_is_listed(address):
    ours = objection(address, ()) == ""
    if ours:
        assert address.is_global
    elif address.is_global:
        unassigned = address.version == 6 and address not in ip_network("2000::/3")
        isatap = address.version == 6 and (int(address) >> 32) & 0xFDFFFFFF == 0x5EFE
        assert unassigned or isatap or any(address in network for network in STRICTER_NETWORKS)


@given(st.sampled_from(sorted(FORMS)), fours, st.integers(0, 2**64 - 1))
def test_no_form_of_an_ipv4_address_in_an_ipv6_one_is_given(form, four, any64):
    address = IPv6Address(FORMS[form](int(four), any64))
    why = objection(address, EVERYTHING)
    assert why
    if int(address) > 1 and not form.startswith("NAT64 of"):
        assert f" {four} " in why


@pytest.mark.parametrize("text", [
    "2130706433", "0x7f000001", "0177.0.0.1", "127.1", "127.0.0.01", "0x7f.0.0.1", "1.2.3.4 ", " 1.2.3.4", "1.2.3.4\n",
    "fe80::1%eth0", "::1%0", "1.2.3", "1.2.3.4.5", "1.2.3.256", "::ffff:0x7f.0.0.1", "[::1]", "::1/128", "1.2.3.4/32",
    "١.2.3.4", "", 1, 2**32, b"\x7f\0\0\1", None, True,
])  # fmt: skip
def test_other_ways_to_write_an_address_are_none(text):
    with pytest.raises(ValueError):
        parse(text)


@given(st.text("0123456789abcdefx.:%", max_size=20))
def test_what_is_neither_address_nor_name_is_nothing_and_a_name_is_no_address_to_anybody(text):
    try:
        address = parse(text)
    except ValueError:
        if name_objection(text) == "":
            with pytest.raises(OSError):
                socket.inet_aton(text)  # what programs inside would make of it
    else:
        assert parse(str(address)) == address
        assert name_objection(text) or address.version == 4 or ":" in text


@given(fours | sixes)
def test_an_address_is_read_as_it_is_written(address):
    assert parse(str(address)) == address
    assert name_objection(str(address))


@pytest.mark.parametrize(
    "name", ["a", "api.example.org", "xn--bcher-kva.example", "a-b.c1", "1.2.3.x", "0x.y", "a" * 63]
)
def test_names(name):
    assert name_objection(name) == ""


@pytest.mark.parametrize("name", [
    "", ".", "a.", ".a", "a..b", "-a", "a-", "A", "a_b", "a b", "a\n", "ä", "*.example.org", "a" * 64, "a.b/c",
    "localhost", "api.localhost", "printer.local", "local", "127.0.0.1", "a.1", "0x7f000001", "1.0x7f", "a." * 126 + "bc",
])  # fmt: skip
def test_no_names(name):
    assert name_objection(name)


# -- a run's endpoints


def test_a_run_gets_what_it_wants_once_and_in_order():
    wanted = [
        Wanted("b.example", 443, "tcp"),
        Wanted("a.example", 53, "udp"),
        Wanted(PUBLIC, 443, "tcp"),
        Wanted("a.example", 443, "tcp"),
    ]
    answers = {"a.example": [PUBLIC6, PUBLIC], "b.example": [PUBLIC], "unasked.example": ["127.0.0.1"]}
    expected = (
        Endpoint(PUBLIC, "tcp", 443),
        Endpoint(PUBLIC, "udp", 53),
        Endpoint(PUBLIC6, "tcp", 443),
        Endpoint(PUBLIC6, "udp", 53),
    )
    assert check(wanted, answers, ()) == expected
    assert check(wanted[::-1], answers, ()) == expected
    assert check([], {}, ()) == ()


def refused(wanted, answers, allowed=()):
    with pytest.raises(RefusedError) as caught:
        check(wanted, answers, allowed)
    assert str(caught.value) == "; ".join(caught.value.objections)
    return caught.value.objections


def test_one_bad_answer_refuses_the_run_and_every_objection_is_said():
    wanted = [Wanted("a.example", 443, "tcp"), Wanted("b.example", 80, "tcp"), Wanted("10.0.0.9", 1, "udp")]
    answers = {"a.example": [PUBLIC, "127.0.0.1", "64:ff9b::808:808"], "b.example": [PRIVATE]}
    assert refused(wanted, answers) == (
        "a.example port 443/tcp: 127.0.0.1: loopback",
        "a.example port 443/tcp: 64:ff9b::808:808: carries the IPv4 address 8.8.8.8 (NAT64)",
        "b.example port 80/tcp: 10.1.2.3: private, and in no range that is allowed here",
        "10.0.0.9 port 1/udp: private, and in no range that is allowed here",
    )


@pytest.mark.parametrize("private", [PRIVATE, ULA])
def test_a_private_answer_needs_a_permission_for_that_address(private):
    want = Wanted("db.example", 5432, "tcp")
    answers = {"db.example": [private]}
    assert "for that address itself" in refused([want], answers, HERE)[0]
    others = [Wanted(private, 5433, "tcp"), Wanted(private, 5432, "udp"), Wanted(str(parse(private) + 1), 5432, "tcp")]
    assert "for that address itself" in refused([want, *others], answers, HERE)[0]
    approved = Wanted(private, 5432, "tcp")
    assert check([want, approved], answers, HERE) == (Endpoint(private, "tcp", 5432),)
    assert len(refused([want, approved], answers, ())) == 2, "approved, but in no range of this machine"
    assert refused([want, approved], {"db.example": [private, "169.254.169.254"]}, HERE)


def test_a_name_without_an_answer_or_with_nonsense_refuses_the_run():
    want = Wanted("a.example", 443, "tcp")
    assert refused([want], {}) == ("a.example: it has no address",)
    assert refused([want], {"a.example": []}) == ("a.example: it has no address",)
    assert refused([want], {"a.example": [PUBLIC, "0x7f000001"]}) == ("a.example: '0x7f000001' is no address",)
    assert refused([Wanted("fe80::1%eth0", 1, "tcp")], {}) == ("'fe80::1%eth0': no host name in lower case",)
    assert refused([Wanted("localhost", 1, "tcp")], {"localhost": [PUBLIC]}) == ("'localhost': the instance itself",)


def test_there_are_limits_and_they_are_said():
    many = [str(IPv4Address("8.0.0.0") + number) for number in range(17)]
    want = Wanted("a.example", 443, "tcp")
    assert check([want], {"a.example": many[:16]}, ())
    assert refused([want], {"a.example": many}) == ("a.example: expected at most 16 addresses, got 17",)
    ports = [Wanted("a.example", port, "tcp") for port in range(1, 6)]
    assert len(check(ports[:4], {"a.example": many[:16]}, ())) == 64
    assert refused(ports, {"a.example": many[:16]}) == ("expected at most 64 endpoints in all, got 80",)
    names = [Wanted(f"n{number}.example", 1, "tcp") for number in range(33)]
    assert refused(names, {}) == ("expected at most 32 names, got 33",)


@given(
    st.lists(st.sampled_from(["a.example", "b.example", PRIVATE, PUBLIC, "127.0.0.1"]), max_size=5),
    st.dictionaries(st.sampled_from(["a.example", "b.example"]), st.lists((fours | sixes).map(str), max_size=4)),
    st.sampled_from([(), HERE]),
)
def test_nothing_comes_out_that_is_not_without_objection(hosts, answers, allowed):
    wanted = [Wanted(host, 443, "tcp") for host in hosts]
    try:
        endpoints = check(wanted, answers, allowed)
    except RefusedError:
        return
    for endpoint in endpoints:
        address = parse(endpoint.address)
        assert objection(address, allowed) == ""
        assert str(address) == endpoint.address
        assert not addresses.private(address) or endpoint.address in hosts
    found = {endpoint.address for endpoint in endpoints}
    for host in hosts:
        assert set(answers.get(host, [host])) <= found


# -- /etc/hosts


def test_the_hosts_file_has_the_instance_itself_and_each_name():
    text = hosts_text({"b.example": [PUBLIC], "a.example": [PUBLIC6, PUBLIC]})
    assert text == (
        "127.0.0.1 localhost\n::1 localhost\n"
        f"{PUBLIC6} a.example\n{PUBLIC} a.example\n{PUBLIC} b.example\n"
    )  # fmt: skip
    assert hosts_text({}) == "127.0.0.1 localhost\n::1 localhost\n"


@pytest.mark.parametrize("answers", [
    {"a.example\n127.0.0.1 b": [PUBLIC]},
    {"a.example": [f"{PUBLIC} x"]},
    {"a.example": ["\n"]},
    {"localhost": [PUBLIC]},
])  # fmt: skip
def test_the_hosts_file_takes_nothing_that_is_no_name_or_address(answers):
    with pytest.raises(ValueError):
        hosts_text(answers)


def test_the_registries_are_written_as_networks_that_do_not_repeat():
    texts = [*addresses._NEVER, *addresses._PRIVATE, *(text for text, _, _ in addresses._CARRIERS)]
    assert len(set(texts)) == len(texts)
    assert all(str(ipaddress.ip_network(text)) == text for text in texts)
