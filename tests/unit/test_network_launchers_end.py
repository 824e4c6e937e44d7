"""The launcher's end of the keeper of networks: a keeper is believed what it may say, and nothing else."""

from __future__ import annotations

import array
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plugind.addresses import Endpoint
from plugind.linux import netlink
from plugind.sandbox.forked import Forked
from plugind.sandbox.network import keeper, words
from plugind.sandbox.network.words import Caps, Failed, Given, Settings, Used, encode
from tests.support.descriptors import opened


@pytest.fixture
def ends():
    before = opened()
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    link, other = socket.socketpair()
    yield keeper.Keeper(Forked(ours, 1, None), link, Settings(folder=Path("/nowhere"))), theirs
    for sock in (ours, theirs, link, other):
        sock.close()
    assert opened() <= before


def say(sock, data, descriptors=0):
    opened = [os.open("/dev/null", os.O_RDONLY) for _ in range(descriptors)]
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", opened))] if opened else []
    sock.sendmsg([data], rights)
    for each in opened:
        os.close(each)


def test_what_it_may_say_is_heard(ends) -> None:
    kept, theirs = ends
    assert kept.receive() is None
    say(theirs, encode(Given("a", 3)), 1)
    heard = kept.receive()
    assert (heard.run, heard.ifindex) == ("a", 3)
    os.close(heard.namespace)
    for message in (Failed("a", "all networks are in use"), Used("a", 1, 2, 3, (), 0)):
        say(theirs, encode(message))
        assert kept.receive() == message


@pytest.mark.parametrize(
    ("data", "descriptors"),
    [
        (encode(Given("a", 3)), 0),
        (encode(Given("a", 3)), 2),
        (encode(Used("a", 1, 2, 3, (), 0)), 1),
        (encode(words.Release("a")), 0),
        (b'{"op":"given","run":"a","ifindex":3,"namespace":0}', 1),
        (b"{}", 0),
        (b"\xff", 1),
        (b"[" * 100_000, 0),
        (encode(Failed("a", "x")) + b" " * words.MAX_MESSAGE_BYTES, 0),
    ],
)
def test_anything_else_is_its_end_and_gives_its_router_up(ends, data, descriptors) -> None:
    kept, theirs = ends
    theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
    say(theirs, data, descriptors)
    with pytest.raises(EOFError):
        kept.receive()
    assert kept.link.fileno() == -1


def test_its_end_is_noticed_also_with_messages_it_never_read(ends) -> None:
    kept, theirs = ends
    kept.release("a")
    theirs.close()
    with pytest.raises(EOFError, match="gone"):
        kept.receive()
    assert kept.link.fileno() == -1


def test_one_that_does_not_read_does_not_hold_the_launcher_up(ends) -> None:
    kept, _ = ends
    endpoints = [Endpoint("192.0.2.1", "tcp", port) for port in range(1, 257)]
    with pytest.raises(BlockingIOError):
        for number in range(1000):
            kept.take(f"r{number}", "k", kept.sock.fileno(), "d", endpoints, Caps(1000, 5))


@given(st.binary(max_size=200))
def test_netlink_messages_and_attributes_of_any_bytes_end(data) -> None:
    for read in (netlink.split, netlink.attributes):
        try:
            found = list(read(data))
        except ValueError:
            continue
        assert sum(len(value) for _, value in found) <= len(data)


def test_netlink_attributes_come_out_as_they_went_in() -> None:
    packed = netlink.attribute(3 | 0x8000, b"abcde") + netlink.attribute(4, b"")
    assert list(netlink.attributes(packed)) == [(3, b"abcde"), (4, b"")]
    assert list(netlink.split(netlink.message(16, 1, packed))) == [(16, packed)]


def test_the_launcher_loads_neither_pyroute2_nor_libnftables() -> None:
    asked = "import sys; from plugind.sandbox.network import keeper, probing; print(*sorted(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=True).stdout.split()
    assert "plugind.sandbox.network.keeper" in loaded
    assert not {"pyroute2", "asyncio", "plugind.linux.nftables", "plugind.sandbox.network.router"} & set(loaded)
