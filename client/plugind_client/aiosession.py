"""A session for asyncio: as in session.py, awaited."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Any, Protocol, Self

from plugind_client.errors import PlugindError
from plugind_client.results import SessionResult
from plugind_client.session import Talk
from plugind_client.text import payload_json
from plugind_proto.v1 import runtime_pb2


class AsyncStream(Protocol):
    """As session.Stream."""

    async def send(self, request: runtime_pb2.SessionRequest) -> None:
        """Sends a message, or lets `receive` tell why it could not."""

    async def receive(self) -> runtime_pb2.SessionResponse | None:
        """Waits for the next message. None: there is none after the last."""

    async def finish(self) -> None:
        """Half-closes it: nothing more will be sent."""

    def cancel(self) -> None:
        """Ends it and the instance. Nothing where it has ended already."""

    def lost(self) -> bool:
        """Whether it is known, without waiting, that nothing would be answered any more."""


class AsyncSession(Talk):
    """One instance of a plugin that gets input after input: `async with client.session(…) as s: await s.call(…)`.

    As Session; tasks that share one take turns. Canceling the task that awaits an answer kills the instance.
    """

    def __init__(
        self, open_stream: Callable[[runtime_pb2.SessionRequest], AsyncStream], request: runtime_pb2.SessionRequest
    ) -> None:
        """Made by `AsyncClient.session`."""
        super().__init__(request)
        self._open_stream = open_stream
        self._turn = asyncio.Lock()
        self._stream: AsyncStream | None = None

    async def __aenter__(self) -> Self:
        self._require_own_process()
        async with self._turn:
            await self._ready()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._pid != os.getpid():
            return
        if kind is None and self._end is None:
            await self.close()
        else:
            self.cancel()

    async def call(self, payload: object) -> Any:
        """As Session.call."""
        request = runtime_pb2.SessionRequest(input_json=payload_json(payload))
        self._require_own_process()
        async with self._turn:
            stream = await self._ready()
            try:
                await stream.send(request)
                response = await stream.receive()
            except BaseException as error:
                self._broken(error)
                stream.cancel()
                raise
            return self._value(response)

    async def call_many(self, payloads: Iterable[object]) -> list[Any]:
        """As Session.call_many, but each is sent when the one before was answered.

        gRPC for asyncio forgets what it has received and was not read yet when a message cannot be sent any more: sent
        ahead, an input could cost the answers of those before it, and the word of how the session ended.
        """
        requests = [runtime_pb2.SessionRequest(input_json=payload_json(payload)) for payload in payloads]
        self._require_own_process()
        async with self._turn:
            stream = await self._ready()
            results: list[Any] = []
            try:
                for request in requests:
                    await stream.send(request)
                    results.append(self._result(await stream.receive(), results))
            except BaseException as error:
                self._broken(error)
                stream.cancel()
                raise
            return results

    async def close(self) -> SessionResult:
        """As Session.close."""
        self._require_own_process()
        async with self._turn:
            if self.result is not None:
                return self.result
            stream = await self._ready()
            try:
                await stream.finish()
                response = await stream.receive()
            except BaseException as error:
                self._broken(error)
                stream.cancel()
                raise
            result = self._closed(response)
            with contextlib.suppress(PlugindError):
                await stream.receive()  # until the daemon has let go: what is closed then interrupts nothing there
            return result

    def cancel(self) -> None:
        """Kills the instance, also while another task waits for an answer. Nothing when it is over."""
        if self._canceled() and self._stream is not None:
            self._stream.cancel()

    @property
    def usable(self) -> bool:
        """As of Session."""
        return self._end is None and self._stream is not None and not self._stream.lost()

    async def _ready(self) -> AsyncStream:
        self._require_open()
        if self._stream is None:
            self._pid = os.getpid()
            stream = self._stream = self._open_stream(self._request)
            try:
                self._taken_up(await stream.receive())
            except BaseException as error:
                self._broken(error)
                stream.cancel()
                raise
        return self._stream
