"""Names to addresses: questions to name servers, over UDP, and over TCP what does not fit. In the resolver only.

dnspython reads and writes the messages; sockets and deadlines are our own. Whoever answers is not believed further than
that it answered: to a question with our number, from the address we asked, about the name we asked for.
Sources: RFC 1035, RFC 2181, RFC 5452, RFC 7766.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable, Sequence
from typing import Final

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdata
import dns.rdatatype

from plugind import addresses
from plugind.sandbox.network.cache import Found
from plugind.sandbox.network.servers import Server

DEADLINE_S: Final = 5.0
"""For one name, whatever it takes."""
_ATTEMPT_S: Final = 1.5
"""Until the next server is asked, or the same one again."""
_MOST_QUERIES: Final = 400
"""At one time; each has a descriptor."""
_MOST_PACKETS: Final = 64
"""That one attempt reads, of which one may be an answer."""
_MOST_STEPS: Final = 8
"""Questions that one name may lead to, from alias to alias."""
_MOST_BYTES: Final = 8192
"""Of one answer. Sixteen addresses and a chain of aliases have room."""
_NOWHERE: Final = (b"local", b"localhost")
_NO_ADDRESS: Final = "no address"
_LOOP: Final = "its aliases (CNAME) lead nowhere"

# What types there are is known before anybody's bytes are read: no module is looked for on their account.
dns.rdata.load_all_types()  # type: ignore[no-untyped-call]


class FailedError(Exception):
    """Why a question has no answer, in words."""


class Lookup:
    """Asks the servers that `servers` names at the time."""

    def __init__(self, servers: Callable[[], Sequence[Server]]) -> None:
        self._servers = servers
        self._slots = asyncio.Semaphore(_MOST_QUERIES)

    async def find(self, name: str) -> Found:
        """All addresses of an absolute name. Never takes longer than the deadline."""
        if not (servers := self._servers()):
            return Found(failed="no name server is known")
        asked = dns.name.from_text(f"{name}.", None)
        until_s = asyncio.get_running_loop().time() + DEADLINE_S
        kinds = (dns.rdatatype.A, dns.rdatatype.AAAA)
        return _together(await asyncio.gather(*(self._kind(servers, asked, kind, until_s) for kind in kinds)))

    async def _kind(
        self, servers: Sequence[Server], name: dns.name.Name, kind: dns.rdatatype.RdataType, until_s: float
    ) -> Found:
        try:
            return await self._follow(servers, name, kind, until_s)
        except FailedError as error:
            return Found(failed=str(error))
        except Exception as error:  # noqa: BLE001 - whatever those bytes made us do, the next name is asked for all the same
            return Found(failed=f"{type(error).__name__} in what a name server said")

    async def _follow(
        self, servers: Sequence[Server], name: dns.name.Name, kind: dns.rdatatype.RdataType, until_s: float
    ) -> Found:
        ttl_s = float("inf")
        for _ in range(_MOST_STEPS):
            response = await _Question(servers, name, kind, until_s, self._slots).ask()
            texts, name, holds_s = reached(response, name)
            ttl_s = min(ttl_s, holds_s)
            if texts:
                return Found(texts, ttl_s=ttl_s)
        raise FailedError(_LOOP)


def reached(response: dns.message.QueryMessage, name: dns.name.Name) -> tuple[tuple[str, ...], dns.name.Name, float]:
    """Where an answer about a name leads: to addresses, or to another name to ask about; and for how long that holds.

    Raises FailedError where it leads nowhere.
    """
    if response.rcode() == dns.rcode.NXDOMAIN:
        raise FailedError("no such name (NXDOMAIN)")
    try:
        chain = response.resolve_chaining()
    except dns.message.ChainTooLong as error:
        raise FailedError(_LOOP) from error
    target = chain.canonical_name
    if chain.answer is not None:
        texts = [str(addresses.parse(record.address)) for record in chain.answer]
        return tuple(dict.fromkeys(texts)), target, chain.minimum_ttl
    if target == name:
        raise FailedError(_NO_ADDRESS)
    if len(target) > 1 and target[-2].lower() in _NOWHERE:
        raise FailedError("its alias (CNAME) is no name of the DNS")
    return (), target, chain.minimum_ttl


def read(query: dns.message.QueryMessage, data: bytes) -> dns.message.QueryMessage | None:
    """The answer to a question, whatever its rcode; None for anything else. Never raises."""
    if len(data) > _MOST_BYTES or data[:2] != query.id.to_bytes(2):  # who only guesses costs no reading
        return None
    try:
        response = dns.message.from_wire(data)
        is_answer = query.is_response(response)
    except Exception:  # noqa: BLE001 - bytes of strangers, in a parser that is not ours
        return None
    # An error may come without the question. What answers two has not read ours.
    if not is_answer or len(response.question) > 1 or not isinstance(response, dns.message.QueryMessage):
        return None
    return response


def _together(found: Sequence[Found]) -> Found:
    """IPv4 and IPv6. One of them is enough, for many a server knows only one or is silent about the other."""
    texts = tuple(text for each in found for text in each.addresses)
    if len(texts) > addresses.MOST_ADDRESSES:
        return Found(failed=f"more than {addresses.MOST_ADDRESSES} addresses")
    if texts:
        return Found(texts, ttl_s=min(each.ttl_s for each in found if each.addresses))
    failed = [each.failed for each in found]
    return Found(failed=next((why for why in failed if why != _NO_ADDRESS), _NO_ADDRESS))


class _Question:
    """One question, and what its servers did with it so far."""

    def __init__(
        self,
        servers: Sequence[Server],
        name: dns.name.Name,
        kind: dns.rdatatype.RdataType,
        until_s: float,
        slots: asyncio.Semaphore,
    ) -> None:
        self._servers = list(servers)
        self._until_s = until_s
        self._slots = slots
        self._loop = asyncio.get_running_loop()
        self._query = dns.message.make_query(name, kind, id=int.from_bytes(os.urandom(2)))
        self._wire = self._query.to_wire()
        self._said: dict[Server, str] = {}

    async def ask(self) -> dns.message.QueryMessage:
        """An answer with addresses, without, or that there is no such name. Raises FailedError."""
        while self._servers:
            for server in tuple(self._servers):
                left_s = self._until_s - self._loop.time()
                if left_s <= 0:
                    raise self._failed()
                if (response := await self._attempt(server, min(left_s, _ATTEMPT_S))) is not None:
                    return response
        raise self._failed()

    def _failed(self) -> FailedError:
        return FailedError("; ".join(self._said.values())[:160])

    async def _attempt(self, server: Server, patience_s: float) -> dns.message.QueryMessage | None:
        """Whoever is merely silent is asked again; who says that it will not, or cannot, is not."""
        try:
            async with asyncio.timeout(patience_s), self._slots:
                response = await self._udp(server)
        except TimeoutError:
            self._said.setdefault(server, f"no answer from {server} within {DEADLINE_S:g} s")
            return None
        except EOFError as error:
            self._give_up(server, f"{error} from {server}")
            return None
        except OSError as error:
            self._give_up(server, f"{server}: {error.strerror}")
            return None
        if response.rcode() in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN):
            return response
        self._give_up(server, f"{dns.rcode.to_text(response.rcode())} from {server}")
        return None

    def _give_up(self, server: Server, why: str) -> None:
        self._said[server] = why
        self._servers.remove(server)

    async def _udp(self, server: Server) -> dns.message.QueryMessage:
        # A socket for each question: its port is one more thing that who cannot see the question has to guess.
        with socket.socket(server.family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sock:
            sock.connect(server.place)
            await self._loop.sock_sendall(sock, self._wire)
            for _ in range(_MOST_PACKETS):
                data = await self._loop.sock_recv(sock, _MOST_BYTES + 1)
                if self._is_truncated(data):
                    return await self._tcp(server)
                if (response := self._read(server, data)) is not None:
                    return response
        raise TimeoutError

    async def _tcp(self, server: Server) -> dns.message.QueryMessage:
        with socket.socket(server.family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as sock:
            await self._loop.sock_connect(sock, server.place)
            await self._loop.sock_sendall(sock, len(self._wire).to_bytes(2) + self._wire)
            length = int.from_bytes(await self._exactly(sock, 2))
            data = await self._exactly(sock, length) if length <= _MOST_BYTES else b""
            if (response := self._read(server, data)) is not None and not response.flags & dns.flags.TC:
                return response
        raise EOFError("no proper answer over TCP")

    async def _exactly(self, sock: socket.socket, count: int) -> bytes:
        data = b""
        while len(data) < count:
            if not (more := await self._loop.sock_recv(sock, count - len(data))):
                raise EOFError("half an answer over TCP")
            data += more
        return data

    def _is_truncated(self, data: bytes) -> bool:
        """An answer to this question, cut off: what is left of it need not be readable."""
        return len(data) >= 12 and data[:2] == self._wire[:2] and data[2] & 0x82 == 0x82

    def _read(self, server: Server, data: bytes) -> dns.message.QueryMessage | None:
        """The answer to this question; None for anything else, after which the true one may still come."""
        response = read(self._query, data)
        if response is None:
            self._said[server] = f"no proper answer from {server} within {DEADLINE_S:g} s"
        return response
