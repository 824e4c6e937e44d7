"""The door: accepts on the public socket, asks the kernel who is there, and passes the bytes on to grpc.

grpc cannot see SO_PEERCRED. So the connection to grpc's own socket, in a folder that only we can enter, comes from
an abstract name with a random nonce, and `context.peer()` gives that name back: it stands for exactly one caller.
"""

from __future__ import annotations

import asyncio
import dataclasses
import secrets
import socket
import struct
import time
from collections import Counter
from collections.abc import Callable
from typing import Final, cast

from plugind.api.roles import Admission, groups_of
from plugind.config import log
from plugind.errors import NotAllowedError
from plugind.model import Caller

PEER_PREFIX: Final = "unix-abstract:"
_UCRED = struct.Struct("3i")
_RETRY_S = 0.1


def peer_of(sock: socket.socket) -> Caller:
    """The process at the other end as it was when it connected. Source: unix(7), SO_PEERCRED."""
    # First: a process that is there now, and no sooner, may have come by the pid of one that has ended meanwhile.
    since_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    pid, uid, gid = _UCRED.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
    return Caller(uid=uid, gid=gid, pid=pid, since_ns=since_ns)


class Callers:
    """Who is behind each connection to grpc's own socket, by the name that the connection came from."""

    def __init__(self) -> None:
        self._by_name: dict[str, Caller] = {}

    def enter(self, name: str, caller: Caller) -> None:
        """A connection of that name is about to be made."""
        self._by_name[name] = caller

    def leave(self, name: str) -> None:
        """It is closed."""
        del self._by_name[name]

    def __len__(self) -> int:
        return len(self._by_name)

    def behind(self, peer: str) -> Caller:
        """Who is behind a `context.peer()`. Raises NotAllowedError for one that did not come through a door."""
        caller = self._by_name.get(peer.removeprefix(PEER_PREFIX))
        if caller is None or not peer.startswith(PEER_PREFIX):
            raise NotAllowedError("this connection did not come through the daemon's socket")
        return caller


class Door:
    """One public socket, with an admission of its own; several doors may share the `callers`."""

    def __init__(
        self,
        listener: socket.socket,
        backend: str,
        callers: Callers,
        admission: Admission,
        connections_per_uid: int,
    ) -> None:
        self._listener = listener
        self._backend = backend
        self._callers = callers
        self._admission = admission
        self._connections_per_uid = connections_per_uid
        self._open: Counter[int] = Counter()
        self._pairs: set[_Pair] = set()
        self._task: asyncio.Task[None] | None = None

    def open(self) -> None:
        """Begin to accept."""
        self._listener.setblocking(False)
        self._task = asyncio.get_running_loop().create_task(self._accept())

    async def close(self) -> None:
        """Accept nobody any more; connections that are there stay."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        self._listener.close()

    async def hang_up(self) -> None:
        """End every connection."""
        for pair in list(self._pairs):
            pair.abort()
        await asyncio.sleep(0)

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                sock, _ = await loop.sock_accept(self._listener)
            except OSError as error:  # EMFILE, ECONNABORTED: the next one may work again
                log(f"a connection could not be accepted: {error}")
                await asyncio.sleep(_RETRY_S)
                continue
            try:
                await self._enter(sock)
            except OSError as error:
                log(f"a connection could not be passed on: {error}")
                sock.close()

    async def _enter(self, sock: socket.socket) -> None:
        caller = peer_of(sock)
        try:
            self._check_crowd(caller)
            caller = dataclasses.replace(caller, roles=self._admission.admit(caller, lambda: groups_of(sock)))
        except NotAllowedError as error:
            log(f"refused a connection of uid {caller.uid} (pid {caller.pid}): {error}")
            sock.close()
            return
        name = f"plugind-{secrets.token_hex(16)}-{caller.uid}-{caller.gid}-{caller.pid}"
        behind = self._connect(name)
        self._callers.enter(name, caller)
        self._open[caller.uid] += 1

        def left(pair: _Pair) -> None:
            self._pairs.discard(pair)
            self._callers.leave(name)
            self._open[caller.uid] -= 1

        pair = _Pair(left)
        self._pairs.add(pair)
        await pair.join(sock, behind)

    def _check_crowd(self, caller: Caller) -> None:
        if self._open[caller.uid] >= self._connections_per_uid:
            raise NotAllowedError(f"it has {self._connections_per_uid} connections already (connections_per_uid)")

    def _connect(self, name: str) -> socket.socket:
        sock = socket.socket(socket.AF_UNIX)
        try:
            sock.bind(b"\0" + name.encode())
            sock.setblocking(False)
            sock.connect(self._backend)  # on this machine it works at once or not at all
        except OSError:
            sock.close()
            raise
        return sock


class _Pair:
    """The two ends of one connection. `left` is called when both are gone."""

    def __init__(self, left: Callable[[_Pair], None]) -> None:
        self.public = _Half(self._lost)
        self.behind = _Half(self._lost)
        self.public.other, self.behind.other = self.behind, self.public
        self._left = left

    async def join(self, public: socket.socket, behind: socket.socket) -> None:
        """Begin to pass bytes on. Raises OSError."""
        loop = asyncio.get_running_loop()
        await loop.create_connection(lambda: self.behind, sock=behind)
        await loop.connect_accepted_socket(lambda: self.public, sock=public)

    def abort(self) -> None:
        """Hang up at once, without sending what is buffered."""
        self.public.abort()
        self.behind.abort()

    def _lost(self) -> None:
        if self.public.lost and self.behind.lost:
            self._left(self)
            self.public.let_go()
            self.behind.let_go()


class _Half(asyncio.Protocol):
    """One end: what arrives here leaves at the other, at the pace of the slower one."""

    other: _Half

    def __init__(self, on_lost: Callable[[], None]) -> None:
        self.lost = False
        self._on_lost = on_lost
        self.transport: asyncio.Transport | None = None
        self._early: list[bytes] = []
        self.at_end = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.transport.writelines(self._early)
        self._early.clear()
        if self.other.lost:
            self.transport.abort()

    def data_received(self, data: bytes) -> None:
        self.other.send(data)

    def send(self, data: bytes) -> None:
        """Send on, or keep until this end is connected (a turn of the loop)."""
        if self.transport is None:
            self._early.append(data)
        else:
            self.transport.write(data)

    def pause_writing(self) -> None:
        if self.other.transport is not None:
            self.other.transport.pause_reading()

    def resume_writing(self) -> None:
        if self.other.transport is not None:
            self.other.transport.resume_reading()

    def eof_received(self) -> bool:
        self.at_end = True
        self.other.finish()
        return not self.other.at_end  # true keeps this end open for what still comes the other way

    def finish(self) -> None:
        """Nothing more will be sent here; or, when nothing comes from here either, the end."""
        if self.transport is None:
            return
        if self.at_end:
            self.transport.close()
        elif self.transport.can_write_eof():
            self.transport.write_eof()

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True
        if exc is not None:
            self.other.abort()  # what is buffered there may wait for a reader that waits for this end
        elif self.other.transport is not None:
            self.other.transport.close()
        self._on_lost()

    def let_go(self) -> None:
        """Both ends are lost. They lead to each other: without that they are gone now, and not when garbage is."""
        del self.other, self._on_lost
        self.transport = None

    def abort(self) -> None:
        """Hang up."""
        if self.transport is not None:
            self.transport.abort()
