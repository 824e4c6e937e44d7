"""A name server for tests: real sockets, UDP and TCP, and for each name what a test wants it to say, good or bad.

Sockets are made where the server is made: in the network namespace of the thread that makes it, at addresses it has.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Self

import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import dns.rrset


@dataclass(frozen=True)
class Reply:
    """What is said to one question."""

    addresses: tuple[str, ...] = ()
    """Those of the family that is asked for."""
    ttl: int = 60
    aliases: tuple[tuple[str, str], ...] = ()
    """Records of CNAME, before the addresses, which the last of them has."""
    rcode: str = "NOERROR"
    delay_s: float = 0.0
    silent: bool = False
    over: tuple[str, ...] = ("udp", "tcp")
    """Asked any other way, it says that the answer was cut off."""
    change: Callable[[bytes], Sequence[bytes]] = lambda wire: [wire]
    """What is sent in the place of the proper bytes, if not that they were cut off."""


def fixed(*addresses: str, ttl: int = 60) -> Reply:
    return Reply(addresses, ttl)


def rebinding(first: str, then: str, ttl: int = 0) -> tuple[Reply, Reply]:
    """One address at first, another one from then on."""
    return fixed(first, ttl=ttl), fixed(then, ttl=ttl)


def slow(seconds: float, *addresses: str) -> Reply:
    return Reply(addresses, delay_s=seconds)


def silent() -> Reply:
    return Reply(silent=True)


def nxdomain() -> Reply:
    return Reply(rcode="NXDOMAIN")


def servfail() -> Reply:
    return Reply(rcode="SERVFAIL")


def alias(owner: str, target: str, *addresses: str, ttl: int = 60) -> Reply:
    """A CNAME, with the addresses of what it stands for, if any are given."""
    return Reply(addresses, ttl, aliases=((owner, target),))


def truncated(*addresses: str) -> Reply:
    """Over TCP only."""
    return Reply(addresses, over=("tcp",))


def garbage(*packets: bytes) -> Reply:
    return Reply(change=lambda wire: packets)


def changed(
    change: Callable[[bytes], Sequence[bytes]], *addresses: str, over: tuple[str, ...] = ("udp", "tcp")
) -> Reply:
    return Reply(addresses, change=change, over=over)


def of_another_name(name: str, *addresses: str) -> Reply:
    """Addresses of somebody who was not asked about."""
    return Reply(addresses, aliases=((name, f"other.{name}"),))


class DnsServer:
    """Serves until it is closed. `names` are answers by name, one or several in turn, of which the last one stays."""

    def __init__(self, addresses: Sequence[str] = ("127.0.0.1",), port: int = 0) -> None:
        self.names: dict[str, Reply | Sequence[Reply]] = {}
        self.asked: Counter[tuple[str, str, str]] = Counter()
        """How often, by name, type and transport."""
        self.addresses = tuple(addresses)
        self._sockets: list[socket.socket] = []
        self._tasks: set[asyncio.Task] = set()
        self.port = port
        for address in addresses:
            self._bind(address)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="dns", daemon=True)
        self._thread.start()

    @property
    def servers(self) -> list[str]:
        """As the resolver takes them."""
        return [f"[{each}]:{self.port}" if ":" in each else f"{each}:{self.port}" for each in self.addresses]

    def count(self, name: str, kind: str = "A", transport: str = "udp") -> int:
        return self.asked[name, kind, transport]

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        for task in self._tasks:
            task.cancel()
        self._loop.run_until_complete(asyncio.gather(*self._tasks, return_exceptions=True))
        self._loop.close()
        for sock in self._sockets:
            sock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _bind(self, address: str) -> None:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
            sock = socket.socket(family, kind | socket.SOCK_NONBLOCK)
            self._sockets.append(sock)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            sock.bind((address, self.port))
            self.port = self.port or sock.getsockname()[1]
            if kind == socket.SOCK_STREAM:
                sock.listen(16)

    def _run(self) -> None:
        for sock in self._sockets:
            self._spawn(self._datagrams(sock) if sock.type == socket.SOCK_DGRAM else self._connections(sock))
        self._loop.run_forever()

    def _spawn(self, coroutine) -> None:
        task = self._loop.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _datagrams(self, sock: socket.socket) -> None:
        async def answer(data, peer):
            for packet in await self._packets(data, "udp"):
                with contextlib.suppress(OSError):
                    await self._loop.sock_sendto(sock, packet, peer)

        while True:
            self._spawn(answer(*await self._loop.sock_recvfrom(sock, 4096)))

    async def _connections(self, sock: socket.socket) -> None:
        async def answer(connection):
            with connection, contextlib.suppress(OSError):
                data = await self._loop.sock_recv(connection, 4096)
                for packet in await self._packets(data[2:], "tcp"):
                    await self._loop.sock_sendall(connection, len(packet).to_bytes(2, "big") + packet)

        while True:
            connection, _ = await self._loop.sock_accept(sock)
            self._spawn(answer(connection))

    async def _packets(self, data: bytes, transport: str) -> Sequence[bytes]:
        query = dns.message.from_wire(data)
        question = query.question[0]
        name, kind = question.name.to_text(omit_final_dot=True), dns.rdatatype.to_text(question.rdtype)
        reply = self._reply(name, kind)
        self.asked[name, kind, transport] += 1
        if reply.silent:
            return []
        await asyncio.sleep(reply.delay_s)
        response = dns.message.make_response(query)
        response.set_rcode(dns.rcode.from_text(reply.rcode))
        response.flags |= dns.flags.RA
        if transport in reply.over:
            self._fill(response, question, reply)
        else:
            response.flags |= dns.flags.TC
        wire = response.to_wire(max_size=65535)
        return reply.change(wire) if transport in reply.over else [wire]

    def _reply(self, name: str, kind: str) -> Reply:
        replies = self.names.get(name, nxdomain())
        if isinstance(replies, Reply):
            return replies
        before = sum(self.asked[name, kind, transport] for transport in ("udp", "tcp"))
        return replies[min(before, len(replies) - 1)]

    @staticmethod
    def _fill(response: dns.message.Message, question: dns.rrset.RRset, reply: Reply) -> None:
        owner = question.name
        for name, target in reply.aliases:
            response.answer.append(dns.rrset.from_text(f"{name}.", reply.ttl, "IN", "CNAME", f"{target}."))
            owner = dns.name.from_text(target)
        version = 4 if question.rdtype == dns.rdatatype.A else 6
        texts = [text for text in reply.addresses if ipaddress.ip_address(text).version == version]
        if texts and question.rdtype in (dns.rdatatype.A, dns.rdatatype.AAAA):
            response.answer.append(dns.rrset.from_text(owner, reply.ttl, "IN", question.rdtype, *texts))


def wrong_number(wire: bytes) -> list[bytes]:
    return [bytes([wire[0] ^ 1]) + wire[1:]]


def wrong_question(wire: bytes) -> list[bytes]:
    message = dns.message.from_wire(wire)
    message.question[0].name = dns.name.from_text("somebody.else.example")
    return [message.to_wire()]


def twice(reply: Reply, change: Callable[[bytes], Sequence[bytes]]) -> Reply:
    """What is wrong first, and the true answer right behind it."""
    return replace(reply, change=lambda wire: [*change(wire), wire])
