"""The synchronous client. Safe across fork: each process opens a channel of its own.

Source: SPEC.md, "Client".
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, Final, Self, TypeVar

import grpc

from plugind_client.afterfork import is_usable
from plugind_client.audit import Audit
from plugind_client.calls import Calls
from plugind_client.channel import Connection, call, translated
from plugind_client.errors import InvalidRequest, NotFound, Unavailable
from plugind_client.method import Call, pauses
from plugind_client.modules import LoadsModules
from plugind_client.planfiles import Sent
from plugind_client.session import Stream
from plugind_client.streams import Exchange, GrpcStream
from plugind_proto.v1 import monitor_pb2, runtime_pb2

Result = TypeVar("Result")

DEFAULT_SOCKET: Final = "/run/plugind/run/plugind.sock"


class Connected(Calls):
    """What both clients are: the calls, and one connection a process to the daemon's socket."""

    _open_channel: Callable[..., Any]
    """grpc's or grpc.aio's."""

    def __init__(self, socket: str | os.PathLike[str] | None = None) -> None:
        """`socket` is a path; without it PLUGIND_SOCKET, and then the system's own. Connects at the first call."""
        self.socket: Final = os.fspath(socket or os.environ.get("PLUGIND_SOCKET") or DEFAULT_SOCKET)
        # By pid. A parent's connection stays referenced and untouched in its children: closing it, or letting it be
        # collected, would use gRPC's state of a process that they are not.
        self._connections: Final[dict[int, Connection]] = {}
        self._closed = False

    def _connection(self) -> Connection:
        """This process's connection. setdefault is atomic: of two threads that come first, one wins."""
        if self._closed:
            raise InvalidRequest("INVALID_REQUEST", detail=f"this {type(self).__name__} is closed")
        pid = os.getpid()
        connection = self._connections.get(pid)
        if connection is None:
            if not is_usable():
                raise InvalidRequest(
                    "INVALID_REQUEST",
                    detail="this process was forked while its parent had a session open, which gRPC does not survive:"
                    " close sessions before the fork, or start the process by other means (spawn)",
                )
            opened = Connection(self.socket, self._open_channel)
            connection = self._connections.setdefault(pid, opened)
            if connection is not opened:
                opened.channel.close()
        return connection

    def _leave(self) -> Connection | None:
        """This process's connection, to be closed: there is no other after it."""
        self._closed = True
        return self._connections.pop(os.getpid(), None)


class Client(Connected, LoadsModules):
    """Runs plugins and keeps house in the registry, over the daemon's Unix socket.

    Threads may share one client, and forked children may go on using their parent's: they open a channel of their
    own. gRPC does not survive a fork while a call is under way: a child that is forked while a session is open here
    gets InvalidRequest for whatever it asks, and one that is forked at the very moment when another thread is within
    any other call may crash.
    """

    _open_channel = staticmethod(grpc.insecure_channel)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends calls in flight and this process's connection. Later calls raise InvalidRequest."""
        self._close_pools()
        connection = self._leave()
        if connection is not None:
            connection.channel.close()

    @property
    def audit(self) -> Audit:
        """The audit's own calls."""
        return Audit(self._connection)

    def answer(self, build: Callable[[], Call[Result]]) -> Result:
        """The answer to the call that `build` makes."""
        made = build()
        try:
            given = self._sent(made)
        except NotFound as error:
            return made.missing(error)
        return made.read(given)

    def _stream(self, request: runtime_pb2.SessionRequest) -> Stream:
        return GrpcStream(self._connection(), request)

    def _drilling(self, request: monitor_pb2.DrillRequest) -> Iterator[monitor_pb2.DrillStep]:
        try:
            steps = self._connection().governance.Drill(request)
        except ValueError as error:  # the channel was closed
            raise Unavailable("UNAVAILABLE", detail=str(error)) from None
        try:
            yield from steps
        except grpc.RpcError as error:
            raise translated(error) from None
        finally:
            steps.cancel()

    def _sent(self, made: Call[Any]) -> Any:
        left = pauses(made)
        while True:
            try:
                if isinstance(made.request, Sent):
                    return Exchange(self._connection(), made.request, made.deadline_s).wait()
                return call(made.on(self._connection()), made.request, made.deadline_s)
            except Unavailable as error:
                pause_s = next(left, None) if error.code == "UNAVAILABLE" else None
                if pause_s is None:
                    raise
                time.sleep(pause_s)
