"""Wildcards in network permissions are worth what the policy lists under them, and nothing without it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plugind import addresses
from plugind.model import Limits, Permission, Wanted
from plugind.policy.facts import Grant
from plugind.policy.network import listed, unlisted
from plugind.provenance.manifest import canonical_entry

LISTED = {"*.example.org": ("a.example.org", "b.example.org")}
READ = Permission("file_read", canonical_entry({"path": "*.example.org"}))


def net(host, port=443, protocol="tcp"):
    return Permission("network", canonical_entry({"host": host, "port": port, "protocol": protocol}))


def test_the_names_stand_in_the_place_of_a_wildcard_once_each():
    permissions = [net("*.example.org"), net("a.example.org"), net("*.example.org", 53, "udp"), net("10.0.0.1"), READ]
    assert unlisted(permissions, LISTED) == []
    granted = tuple(listed(permissions, LISTED))
    assert granted == (
        net("a.example.org"),
        net("b.example.org"),
        net("a.example.org", 53, "udp"),
        net("b.example.org", 53, "udp"),
        net("10.0.0.1"),
        READ,
    )
    assert Grant(1, Limits(), granted, "", "internal").network == (
        Wanted("a.example.org", 443, "tcp"),
        Wanted("b.example.org", 443, "tcp"),
        Wanted("a.example.org", 53, "udp"),
        Wanted("b.example.org", 53, "udp"),
        Wanted("10.0.0.1", 443, "tcp"),
    )


def test_what_nobody_listed_is_named_and_never_granted():
    permissions = [net("*.example.net"), net("*.example.net", 80), net("*.example.org")]
    assert unlisted(permissions, LISTED) == ["*.example.net"]
    with pytest.raises(KeyError):
        list(listed(permissions, LISTED))


def test_another_wildcard_is_another_table():
    assert unlisted([net("*.a.example.org")], LISTED) == ["*.a.example.org"]


@given(st.text("abc.*-", max_size=20), st.text("abc.*-", max_size=20))
def test_what_a_wildcard_can_stand_for_is_a_name_below_it(wildcard, name):
    if addresses.is_wildcard(wildcard):
        assert addresses.name_objection(wildcard)
        assert wildcard.count(".") >= 2
        if addresses.is_below(name, wildcard):
            assert addresses.name_objection(name) == ""
            assert name.endswith(wildcard[1:])
            assert name != wildcard[2:]


@pytest.mark.parametrize(
    "host", ["*", "*.", "*.org", "*.*.org", "**.a.org", "a.*.org", "*a.b.org", "*.A.org", "*.1.2", "*.a.local"]
)
def test_no_wildcards(host):
    assert not addresses.is_wildcard(host)
