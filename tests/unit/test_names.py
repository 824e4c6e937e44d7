"""The resolver's loop against a real name server on loopback sockets: good answers, bad ones, none, and what is kept."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import struct
import time

import pytest

from plugind.sandbox.forked import Forked
from plugind.sandbox.network import lookup
from plugind.sandbox.network.cache import Cache
from plugind.sandbox.network.lookup import Lookup
from plugind.sandbox.network.questions import Answer
from plugind.sandbox.network.resolver import Resolver
from plugind.sandbox.network.resolving import MOST_REQUESTS, Resolving
from plugind.sandbox.network.servers import Server, Servers, parse
from tests.support import dns as names
from tests.support.dns import DnsServer, Reply, fixed

A, B, A6 = "93.184.215.14", "93.184.215.15", "2606:2800:21f:cb07::1"
NAME = "api.example.org"


@pytest.fixture
def server():
    with DnsServer() as running:
        yield running


@pytest.fixture
def quick(monkeypatch):
    """Deadlines that a test can wait for; their proportion stays."""
    monkeypatch.setattr(lookup, "DEADLINE_S", 0.5)
    monkeypatch.setattr(lookup, "_ATTEMPT_S", 0.15)


def find(server, name=NAME, *more):
    servers = [parse(text) for text in [*server.servers, *more]]

    async def once():
        return await Lookup(lambda: servers).find(name)

    return asyncio.run(once())


def say(server, *replies, name=NAME):
    server.names[name] = replies


def test_both_families_are_asked_for_and_the_shortest_time_to_live_holds(server):
    say(server, fixed(A, B, A6, ttl=30))
    found = find(server)
    assert (set(found.addresses), found.failed, found.ttl_s) == ({A, B, A6}, "", 30)
    assert server.asked == {(NAME, "A", "udp"): 1, (NAME, "AAAA", "udp"): 1}


def test_names_are_absolute_and_nobodys_hosts_file_is_read(server):
    assert find(server, "localhost.localdomain").failed == "no such name (NXDOMAIN)"
    assert find(server, os.uname().nodename.lower() or "x").failed == "no such name (NXDOMAIN)"
    assert {name for name, _, _ in server.asked} == {"localhost.localdomain", os.uname().nodename.lower() or "x"}


def test_a_name_server_of_ipv6_is_asked_too():
    with DnsServer(["::1"]) as server:
        say(server, fixed(A))
        assert server.servers == [f"[::1]:{server.port}"]
        assert find(server).addresses == (A,)


@pytest.mark.parametrize("reply, words", [
    (names.nxdomain(), "no such name (NXDOMAIN)"),
    (fixed(), "no address"),
    (names.servfail(), "SERVFAIL from 127.0.0.1:{port}"),
    (Reply(rcode="REFUSED"), "REFUSED from 127.0.0.1:{port}"),
    (Reply(rcode="FORMERR"), "FORMERR from 127.0.0.1:{port}"),
    (names.silent(), "no answer from 127.0.0.1:{port} within 0.5 s"),
    (names.of_another_name("victim.example", A), "no address"),
    (names.alias(NAME, NAME), "its aliases (CNAME) lead nowhere"),
    (Reply(aliases=((NAME, "b.example"), ("b.example", NAME))), "its aliases (CNAME) lead nowhere"),
    (names.alias(NAME, "printer.local"), "its alias (CNAME) is no name of the DNS"),
    (names.alias(NAME, "LOCALHOST"), "its alias (CNAME) is no name of the DNS"),
    (fixed(*(f"8.8.8.{number}" for number in range(17))), "more than 16 addresses"),
    (Reply((A,), change=names.wrong_number), "no proper answer from 127.0.0.1:{port} within 0.5 s"),
    (Reply((A,), change=names.wrong_question), "no proper answer from 127.0.0.1:{port} within 0.5 s"),
    (Reply((A,), rcode="NXDOMAIN"), "no such name (NXDOMAIN)"),
    (names.garbage(b""), "no proper answer from 127.0.0.1:{port} within 0.5 s"),
    (names.garbage(bytes(range(256)) * 4), "no proper answer from 127.0.0.1:{port} within 0.5 s"),
    (names.garbage(b"\0" * 60000), "no proper answer from 127.0.0.1:{port} within 0.5 s"),
])  # fmt: skip
def test_what_is_no_answer_is_said_in_words(server, quick, reply, words):
    say(server, reply)
    found = find(server)
    assert (found.addresses, found.failed) == ((), words.format(port=server.port))
    say(server, fixed(A))
    assert find(server).addresses == (A,), "and it lives on"


# What is wrong with an answer that has the right number and is about the right name.
def cut(wire):
    return [wire[:-3]]


def trailing(wire):
    return [wire + b"x"]


def compression_loop(wire):
    end = wire.index(b"\0", 12) + 5
    return [wire[:end] + struct.pack("!HHHIH", 0xC000 | end, 1, 1, 60, 4) + b"\x08\x08\x08\x08"]


def counts_that_lie(wire):
    return [wire[:6] + b"\xff\xff\xff\xff\xff\xff" + wire[12:]]


def a_request(wire):
    return [bytes([*wire[:2], wire[2] & 0x7F]) + wire[3:]]


def six_bytes_of_address(wire):
    return [wire[:-6] + b"\0\x06" + wire[-4:] + b"\0\0"]


@pytest.mark.parametrize(
    "change",
    [cut, trailing, compression_loop, counts_that_lie, a_request, six_bytes_of_address],
    ids=lambda f: f.__name__,
)
@pytest.mark.parametrize("over", ["udp", "tcp"])
def test_broken_messages_are_no_answers_and_the_next_server_is_asked(server, quick, change, over):
    say(server, names.changed(change, A, over=(over,)))
    assert "no proper answer" in find(server).failed
    with DnsServer() as other:
        say(other, fixed(B))
        assert find(server, NAME, *other.servers).addresses == (B,)


@pytest.mark.parametrize("change", [names.wrong_number, names.wrong_question, cut, lambda wire: [b""]])
def test_a_forged_answer_before_the_true_one_does_not_keep_it_out(server, change):
    say(server, names.twice(fixed(A), change))
    assert find(server).addresses == (A,)


def test_what_does_not_fit_comes_over_tcp(server):
    say(server, names.truncated(A, A6))
    assert set(find(server).addresses) == {A, A6}
    assert (server.count(NAME), server.count(NAME, transport="tcp")) == (1, 1)


@pytest.mark.parametrize("change, words", [
    (lambda wire: [wire + b"\0" * 9000], "no proper answer over TCP"),
    (lambda wire: [], "half an answer over TCP"),
    (cut, "no proper answer over TCP"),
])  # fmt: skip
def test_what_is_wrong_over_tcp_is_said(server, quick, change, words):
    say(server, names.changed(change, A, over=("tcp",)))
    assert find(server).failed == f"{words} from 127.0.0.1:{server.port}"


def test_a_server_that_is_not_there_is_passed_over_at_once(server):
    say(server, fixed(A))
    gone = DnsServer()
    gone.close()
    began = time.monotonic()
    assert find(gone).failed == f"127.0.0.1:{gone.port}: Connection refused"
    assert find(gone, NAME, *server.servers).addresses == (A,)
    assert time.monotonic() - began < 1.0


def test_a_silent_server_is_passed_over_in_time_and_a_lost_packet_is_sent_again(server, quick):
    with DnsServer() as other:
        say(other, names.silent())
        say(server, fixed(A))
        assert find(other, NAME, *server.servers).addresses == (A,)
    say(server, names.silent(), fixed(B))
    assert find(server).addresses == (B,)


def test_one_family_is_enough(server, quick):
    def ipv4_only(wire):
        return [wire] if b"\0\x01\0\x01" in wire[12:40] else []

    say(server, names.changed(ipv4_only, A, A6))
    assert find(server).addresses == (A,)


def test_aliases_are_followed_within_an_answer_and_beyond(server):
    say(server, names.alias(NAME, "b.example", A, ttl=7))
    assert (find(server).addresses, find(server).ttl_s) == ((A,), 7)
    say(server, names.alias(NAME, "b.example", ttl=9))
    say(server, names.alias("b.example", "c.example"), name="b.example")
    say(server, fixed(B), name="c.example")
    assert (find(server).addresses, find(server).ttl_s) == ((B,), 9)
    say(server, names.alias("c.example", NAME), name="c.example")
    assert find(server).failed == "its aliases (CNAME) lead nowhere"
    assert server.count("c.example") <= 8


def test_without_a_name_server_that_is_said(tmp_path):
    async def once():
        return await Lookup(Servers([], str(tmp_path / "none")).now).find(NAME)

    assert asyncio.run(once()).failed == "no name server is known"


# -- the loop


class Group:
    def remove(self):
        pass


class Clock:
    def __init__(self):
        self.now_s = 1000.0

    def __call__(self):
        return self.now_s


@contextlib.asynccontextmanager
async def resolving(*servers, cache=None, clock=None):
    """The launcher's end of a loop that runs in this process."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    theirs.setblocking(False)
    places = [parse(text) for text in servers]
    loop = Resolving(theirs, Lookup(lambda: places).find, cache or Cache(), *([clock] if clock else []))
    task = asyncio.create_task(loop.serve())
    try:
        yield Resolver(Forked(ours, 0, Group()))
    finally:
        ours.close()
        with contextlib.suppress(ConnectionError):
            await asyncio.wait_for(task, 10)
        for request in list(loop._requests):
            request.cancel()
        await asyncio.gather(*loop._requests, *loop._asking.values(), return_exceptions=True)
        theirs.close()


async def answer(resolver, within_s=10.0):
    until = time.monotonic() + within_s
    while (said := resolver.receive()) is None:
        assert time.monotonic() < until
        await asyncio.sleep(0.002)
    return said


async def test_each_name_of_a_request_has_addresses_or_a_reason(server):
    say(server, fixed(A, A6))
    async with resolving(*server.servers) as resolver:
        assert resolver.due_ns() == 2**63 - 1
        resolver.ask("run_1", [NAME, "none.example"])
        assert 7e9 < resolver.due_ns() - time.monotonic_ns() <= 8e9
        said = await answer(resolver)
        assert said.token == "run_1"
        assert {name: set(found) for name, found in said.addresses.items()} == {NAME: {A, A6}}
        assert said.failed == {"none.example": "no such name (NXDOMAIN)"}
        assert resolver.due_ns() == 2**63 - 1


async def test_a_slow_name_holds_up_nobody_else(server):
    say(server, names.slow(0.5, A))
    say(server, fixed(B), name="quick.example")
    async with resolving(*server.servers) as resolver:
        resolver.ask("slow", [NAME])
        for number in range(20):
            resolver.ask(f"quick_{number}", ["quick.example", f"none{number}.example"])
        order = [(await answer(resolver)).token for _ in range(21)]
        assert order[-1] == "slow"


async def test_who_asks_for_the_same_name_at_the_same_time_shares_one_question(server):
    say(server, names.slow(0.1, A))
    async with resolving(*server.servers) as resolver:
        for number in range(MOST_REQUESTS + 50):
            resolver.ask(f"run_{number}", [NAME])
        said = [await answer(resolver) for _ in range(MOST_REQUESTS + 50)]
    assert {each.addresses[NAME] for each in said} == {(A,)}
    assert server.count(NAME) == 1


async def test_what_has_expired_is_asked_for_again_and_never_served(server):
    clock = Clock()
    say(server, *names.rebinding(A, "10.0.0.1", ttl=60))
    async with resolving(*server.servers, clock=clock) as resolver:
        seen = []
        for later_s in (0, 59, 1, 0):
            clock.now_s += later_s
            resolver.ask("run", [NAME])
            seen.append((await answer(resolver)).addresses[NAME])
        assert seen == [(A,), (A,), ("10.0.0.1",), ("10.0.0.1",)]
        assert server.count(NAME) == 2


@pytest.mark.parametrize("ttl, holds_s", [(0, 5), (1, 5), (6, 6), (2**31 - 1, 3600)])
async def test_times_to_live_have_bounds(server, ttl, holds_s):
    clock = Clock()
    say(server, fixed(A, ttl=ttl))
    async with resolving(*server.servers, clock=clock) as resolver:
        for later_s, asked in ((0, 1), (holds_s - 0.1, 1), (0.1, 2)):
            clock.now_s += later_s
            resolver.ask("run", [NAME])
            assert (await answer(resolver)).addresses[NAME] == (A,)
            assert server.count(NAME) == asked


async def test_what_failed_is_not_asked_for_at_once_again_but_soon(server):
    clock = Clock()
    say(server, names.servfail(), fixed(A))
    async with resolving(*server.servers, clock=clock) as resolver:
        for later_s, failed in ((0, True), (4.9, True), (0.1, False)):
            clock.now_s += later_s
            resolver.ask("run", [NAME])
            assert bool((await answer(resolver)).failed) == failed


async def test_a_launcher_that_does_not_read_is_waited_for_and_loses_nothing(server):
    say(server, fixed(*(f"8.8.8.{number}" for number in range(16))))
    many = 600
    async with resolving(*server.servers) as resolver:
        resolver.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        seen, asked = set(), 0
        while asked < many:
            try:
                resolver.ask(f"run_{asked}", [NAME])
            except BlockingIOError:
                await asyncio.sleep(0)
                seen.add((await answer(resolver)).token)
            else:
                asked += 1
        while len(seen) < many:
            seen.add((await answer(resolver)).token)
    assert server.count(NAME) == 1


def test_the_cache_is_bounded_and_who_came_first_makes_room():
    cache = Cache(most=3)
    for number in range(5):
        cache.put(f"n{number}", lookup.Found((A,), ttl_s=100), 0.0)
    assert [number for number in range(5) if cache.get(f"n{number}", 1.0)] == [2, 3, 4]
    assert cache.get("n4", 100.0) is None
    assert "n4" not in cache._known


# -- an answer that is too much for one message


async def test_more_than_fits_into_a_message_fails_in_words(server):
    many = [f"2001:db8:aaaa:bbbb:cccc:dddd:eeee:{number:x}" for number in range(0x1000, 0x1010)]
    asked = [f"{'n' * 60}.{number}.{'m' * 60}.example" for number in range(30)]
    for name in asked:
        say(server, fixed(*many), name=name)
    async with resolving(*server.servers) as resolver:
        resolver.ask("run", asked)
        said = await answer(resolver)
    assert said == Answer("run", {}, dict.fromkeys(asked, "more addresses than one run may have"))


def test_a_server_shows_itself_as_it_was_written():
    for text in ("192.0.2.53", "192.0.2.53:5353", "2001:db8::53", "[2001:db8::53]:5353"):
        assert str(parse(text)) == text
    assert Server("fe80::1", 53, 7).place == ("fe80::1", 53, 0, 7)
