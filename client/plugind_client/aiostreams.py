"""The stream of a session over grpc.aio."""

from __future__ import annotations

import asyncio
import contextlib
import os
from typing import Any, Final

import grpc
import grpc.aio

from plugind_client.afterfork import OPEN
from plugind_client.channel import Connection, translated
from plugind_client.errors import Canceled
from plugind_proto.v1 import runtime_pb2


class AioStream:
    """One call of Session."""

    def __init__(self, connection: Connection, request: runtime_pb2.SessionRequest) -> None:
        """`request` is the first message. Needs a running loop."""
        self.pid: Final = os.getpid()
        self.kept: Final[Any] = connection.runtime.Session()
        # The next message is always waited for, also while nothing was sent. gRPC gives up a stream when a message
        # cannot be sent, and then what the daemon said last could not be read any more.
        self._next = asyncio.ensure_future(self._opened(request))
        self._next.add_done_callback(_seen)
        OPEN.add(self)

    def __del__(self) -> None:
        """Nobody can reach the session any more."""
        if hasattr(self, "_next"):
            self.cancel()

    async def _opened(self, request: runtime_pb2.SessionRequest) -> Any:
        await self.kept.write(request)
        return await self.kept.read()

    async def send(self, request: runtime_pb2.SessionRequest) -> None:
        """Sends a message."""
        try:
            await self.kept.write(request)
        except (grpc.RpcError, asyncio.InvalidStateError):
            pass  # the stream has ended, and the message that says how is there, or its status

    async def receive(self) -> runtime_pb2.SessionResponse | None:
        """Waits for the next message."""
        try:
            message = await self._next
        except grpc.RpcError as error:
            raise translated(error) from None
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            raise Canceled("canceled", detail="the session was canceled in this process") from None
        if message is grpc.aio.EOF:
            return None
        self._next = asyncio.ensure_future(self.kept.read())
        self._next.add_done_callback(_seen)
        return message  # type: ignore[no-any-return]

    async def finish(self) -> None:
        """Half-closes it."""
        with contextlib.suppress(Exception):  # Cython's own: the stream has ended, and `receive` tells how
            await self.kept.done_writing()

    def cancel(self) -> None:
        """Ends it, in the process that opened it."""
        if self.pid == os.getpid():
            self.kept.cancel()

    def lost(self) -> bool:
        """Whether the daemon ended it, or it failed."""
        return self._next.done()


def _seen(done: asyncio.Future[Any]) -> None:
    """Nobody may ever ask how the last wait went; asyncio need not complain about that."""
    if not done.cancelled():
        done.exception()
