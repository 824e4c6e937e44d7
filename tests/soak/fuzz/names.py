"""What name servers say to the resolver, what the resolver says to the launcher, and who is asked."""

from __future__ import annotations

import ipaddress

import dns.message
import dns.rrset

from plugind import addresses
from plugind.errors import ConfigError
from plugind.sandbox.network import lookup, questions, servers
from tests.soak.fuzz.parsers import JSON_WORDS
from tests.soak.fuzz.target import Target

QUERY = dns.message.make_query("api.example.org", "A", id=7)
NAME = QUERY.question[0].name
ASKED = {"run": frozenset({"a.example", "b.example"})}


def dns_answer(data: bytes) -> None:
    """Whatever comes in, addresses that can be read come out, or nothing."""
    response = lookup.read(QUERY, data)
    if response is None or response.rcode() not in (0, 3):
        return
    try:
        texts, name, ttl_s = lookup.reached(response, NAME)
    except lookup.FailedError:
        return
    assert all(str(ipaddress.IPv4Address(text)) == text for text in texts)
    assert texts or name != NAME
    assert ttl_s >= 0


def resolver_answer(data: bytes) -> None:
    """Nothing but what was asked for, in its form."""
    try:
        answer = questions.decode_answer(data, ASKED)
    except ValueError:
        return
    if answer is not None:
        assert answer.addresses.keys() | answer.failed.keys() == ASKED[answer.token]
        for texts in answer.addresses.values():
            assert all(str(addresses.parse(text)) == text for text in texts)
            assert isinstance(addresses.objection(addresses.parse(texts[0]), ()), str)
        addresses.hosts_text(answer.addresses)


def name_servers(data: bytes) -> None:
    """A line of the configuration, and resolv.conf."""
    text = data.decode(errors="replace")
    assert len(servers.of_resolv_conf(text)) <= servers.MOST
    try:
        server = servers.parse(text)
    except ConfigError:
        return
    assert servers.parse(str(server)) == server


def _dns_seeds() -> list[bytes]:
    found = []
    for records in (
        [("api.example.org.", "A", "8.8.8.8", "9.9.9.9")],
        [("api.example.org.", "CNAME", "b.example."), ("b.example.", "A", "8.8.8.8")],
        [("api.example.org.", "CNAME", "b.example.")],
        [],
    ):
        response = dns.message.make_response(QUERY)
        response.answer = [dns.rrset.from_text(owner, 60, "IN", kind, *texts) for owner, kind, *texts in records]
        found.append(response.to_wire())
    return found


def _answer_seeds() -> list[bytes]:
    good = questions.Answer("run", {"a.example": ("8.8.8.8", "2606::1")}, {"b.example": "no address"})
    return [questions.encode_answer(good), questions.encode_answer(questions.Answer("other", {}, {"c": "no"}))]


NAMES = (
    Target("dns_answer", dns_answer, _dns_seeds, (b"\xc0\x0c", b"\x00\x01\x00\x01", b"\x00\x05", b"\x00\x29"), 2048),
    Target("resolver_answer", resolver_answer, _answer_seeds, (*JSON_WORDS, b'"addresses"', b'"failed"', b'"run"')),
    Target(
        "name_servers",
        name_servers,
        lambda: [b"nameserver 192.0.2.1\nnameserver fe80::1%lo\n", b"192.0.2.53:5353", b"[2001:db8::53]:5353"],
        (b"nameserver ", b"[", b"]:", b"%lo"),
        share=5,
    ),
)
