"""Which name servers are asked: as they are written in the configuration, and in resolv.conf."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plugind.errors import ConfigError
from plugind.sandbox.network.servers import Server, Servers, of_resolv_conf, parse


@pytest.mark.parametrize("text, server", [
    ("192.0.2.53", Server("192.0.2.53", 53)),
    ("192.0.2.53:5353", Server("192.0.2.53", 5353)),
    ("2001:DB8::53", Server("2001:db8::53", 53)),
    ("[2001:db8::53]:5353", Server("2001:db8::53", 5353)),
    ("::1", Server("::1", 53)),
])  # fmt: skip
def test_servers(text, server):
    assert parse(text) == server
    assert parse(str(server)) == server


@pytest.mark.parametrize("text", [
    "", "dns.example", "192.0.2", "192.0.2.053", "192.0.2.53:", "192.0.2.53:0", "192.0.2.53:65536", "192.0.2.53:-1",
    "[192.0.2.53]:53", "[2001:db8::53]", "[2001:db8::53]:", "[::1%lo]:53", "fe80::1%lo", "192.0.2.53 ", "[]:53", "1:53",
    "192.0.2.53:53:53", "192.0.2.53:١",
])  # fmt: skip
def test_no_servers(text):
    with pytest.raises(ConfigError, match="name server: expected an address"):
        parse(text)


@given(st.text("0123456789.:[]%abf", max_size=30) | st.text(max_size=30))
def test_any_text_is_a_server_or_refused(text):
    try:
        server = parse(text)
    except ConfigError:
        return
    assert parse(str(server)) == server
    assert len(server.place) == (4 if ":" in server.address else 2)


def test_a_resolv_conf():
    text = (
        "# made by somebody\nsearch corp.example\nnameserver 192.0.2.1 # the first\n"
        " nameserver\t2001:db8::1\nnameserver\nnameserver dns.example\n;nameserver 192.0.2.9\nnameserver 192.0.2.01\n"
        "nameserver fe80::1%lo\nnameserver fe80::1%nowhere\noptions timeout:1\nnameserver 192.0.2.4\n"
    )
    assert of_resolv_conf(text) == (Server("192.0.2.1"), Server("2001:db8::1"), Server("fe80::1", 53, 1))
    assert of_resolv_conf("") == ()


@given(st.text(max_size=200) | st.lists(st.text(max_size=20)).map("nameserver ".join))
def test_any_resolv_conf_is_read(text):
    assert len(of_resolv_conf(text)) <= 3


def test_it_is_read_again_when_it_has_changed_and_what_is_given_counts_instead(tmp_path):
    path = tmp_path / "resolv.conf"
    servers = Servers([], str(path))
    assert servers.now() == ()
    path.write_text("nameserver 192.0.2.1\n")
    assert servers.now() == (Server("192.0.2.1"),)
    before = path.stat()
    path.write_text("nameserver 192.0.2.2\n")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    assert servers.now() == (Server("192.0.2.2"),)
    other = tmp_path / "other"
    other.write_text("nameserver 192.0.2.3\n")
    other.rename(path)
    assert servers.now() == (Server("192.0.2.3"),)
    path.unlink()
    assert servers.now() == ()
    path.write_text("nameserver 192.0.2.4\n")
    assert Servers([Server("192.0.2.9")], str(path)).now() == (Server("192.0.2.9"),)
