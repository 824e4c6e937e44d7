"""The resolver's loop: requests of the launcher, many at one time, and what is known already."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Awaitable, Callable
from typing import Final

from plugind.sandbox.network.cache import Cache, Found
from plugind.sandbox.network.questions import MAX_MESSAGE_BYTES, Answer, decode_request, encode_answer

MOST_REQUESTS: Final = 128
"""At one time. Further ones wait in the socket, until that is full and the launcher is told so."""


def boottime_s() -> float:
    """A clock that also counts while the machine sleeps: what has expired meanwhile has expired."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Resolving:
    """Answers the launcher, whose socket does not block."""

    def __init__(
        self,
        launcher: socket.socket,
        find: Callable[[str], Awaitable[Found]],
        cache: Cache,
        now_s: Callable[[], float] = boottime_s,
    ) -> None:
        self._launcher = launcher
        self._find = find
        self._cache = cache
        self._now_s = now_s
        self._asking: dict[str, asyncio.Task[Found]] = {}
        self._requests: set[asyncio.Task[None]] = set()
        self._places = asyncio.Semaphore(MOST_REQUESTS)
        self._sending = asyncio.Lock()

    async def serve(self) -> None:
        """Until the launcher is gone. Raises OSError, ValueError for what it would never say."""
        loop = asyncio.get_running_loop()
        while True:
            await self._places.acquire()
            data = await loop.sock_recv(self._launcher, MAX_MESSAGE_BYTES)
            if not data:
                return
            token, names = decode_request(data)
            task = loop.create_task(self._answer(token, names))
            self._requests.add(task)  # the loop itself does not keep it alive
            task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._requests.discard(task)
        self._places.release()

    async def _answer(self, token: str, names: list[str]) -> None:
        found = dict(zip(names, await asyncio.gather(*map(self._of, names)), strict=True))
        answer = Answer(
            token,
            {name: each.addresses for name, each in found.items() if not each.failed},
            {name: each.failed for name, each in found.items() if each.failed},
        )
        async with self._sending:  # of two that wait for room in one socket the loop would forget the first
            await asyncio.get_running_loop().sock_sendall(self._launcher, encode_answer(answer))

    async def _of(self, name: str) -> Found:
        """What is known and holds; else what is found out, once for all who want to know."""
        if (known := self._cache.get(name, self._now_s())) is not None:
            return known
        if name not in self._asking:
            self._asking[name] = asyncio.get_running_loop().create_task(self._look_up(name))
        return await self._asking[name]

    async def _look_up(self, name: str) -> Found:
        asked_s = self._now_s()  # from when it was asked for: what was on its way has aged
        try:
            found = await self._find(name)
        except Exception as error:  # noqa: BLE001 - whoever asked is to be told, and not to wait for nothing
            found = Found(failed=f"the resolver itself failed: {type(error).__name__}")
        del self._asking[name]
        self._cache.put(name, found, asked_s)
        return found
