"""The client for asyncio: the same calls as Client's, awaited."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Any, Self, TypeVar

import grpc
import grpc.aio

from plugind_client.aiosession import AsyncStream
from plugind_client.aiostreams import AioStream
from plugind_client.channel import Connection, translated
from plugind_client.client import Connected
from plugind_client.errors import Canceled, NotFound, Unavailable
from plugind_client.method import Call, pauses
from plugind_client.modules import AwaitsModules
from plugind_client.planfiles import Received, Sent
from plugind_client.streams import Exchange
from plugind_proto.v1 import monitor_pb2, runtime_pb2

Result = TypeVar("Result")


class AsyncClient(Connected, AwaitsModules):
    """Runs plugins and keeps house in the registry, over the daemon's Unix socket. For one event loop.

    Canceling the task that awaits a run ends the run.
    """

    _open_channel = staticmethod(grpc.aio.insecure_channel)

    @functools.cached_property
    def _exchanges(self) -> set[Exchange]:
        """Calls with files that are under way."""
        return set()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Ends calls in flight and this process's connection. Later calls raise InvalidRequest."""
        await self._close_pools()
        for exchange in list(self._exchanges):
            exchange.cancel()
        connection = self._leave()
        if connection is not None:
            await connection.channel.close()

    async def answer(self, build: Callable[[], Call[Result]]) -> Result:
        """The answer to the call that `build` makes."""
        made = build()
        try:
            given = await self._sent(made)
        except NotFound as error:
            return made.missing(error)
        return made.read(given)

    def _stream(self, request: runtime_pb2.SessionRequest) -> AsyncStream:
        return AioStream(self._connection(), request)

    async def _drilling(self, request: monitor_pb2.DrillRequest) -> AsyncIterator[monitor_pb2.DrillStep]:
        steps = self._connection().governance.Drill(request)
        try:
            async for step in steps:
                yield step
        except grpc.RpcError as error:
            raise translated(error) from None
        finally:
            steps.cancel()

    async def _exchanged(self, sent: Sent, deadline_s: float | None) -> Received:
        """A call of RunFiles, by gRPC's other API in a thread of its own.

        grpc.aio gives up a call when a message cannot be sent, and then nobody is told why the daemon refused the files
        that it did not want any more.
        """
        connection = Connection(self.socket)
        exchange = Exchange(connection, sent, deadline_s)
        self._exchanges.add(exchange)
        thread = ThreadPoolExecutor(1, "plugind-files")
        try:
            return await asyncio.get_running_loop().run_in_executor(thread, exchange.wait)
        finally:
            self._exchanges.discard(exchange)
            exchange.cancel()
            thread.shutdown(wait=False)
            connection.channel.close()

    async def _sent(self, made: Call[Any]) -> Any:
        left = pauses(made)
        while True:
            method = made.on(self._connection())
            try:
                if isinstance(made.request, Sent):
                    return await _awaited(self._exchanged(made.request, made.deadline_s))
                return await _awaited(method(made.request, timeout=made.deadline_s))
            except Unavailable as error:
                pause_s = next(left, None) if error.code == "UNAVAILABLE" else None
                if pause_s is None:
                    raise
                await asyncio.sleep(pause_s)


async def _awaited(call: Any) -> Any:
    """What a call gives. When this task is canceled, so is the call, and the daemon ends the run."""
    try:
        return await call
    except grpc.RpcError as error:
        raise translated(error) from None
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise
        # Nobody canceled this task: the client was closed under it.
        raise Canceled("canceled", detail="the call was canceled in this process") from None
