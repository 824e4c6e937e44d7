"""Streams over gRPC, of a session and of a run with its files: waiting can be interrupted, and nothing outlives it.

gRPC itself has a thread for each stream that waits for what is to be sent; it ends with `finish` or `cancel`.
"""

from __future__ import annotations

import atexit
import os
import queue
from typing import Any, Final, cast

import grpc

from plugind_client.afterfork import OPEN
from plugind_client.channel import Connection, translated
from plugind_client.errors import Unavailable
from plugind_client.planfiles import Received, Receiving, Sent
from plugind_proto.v1 import runtime_pb2


class GrpcStream:
    """One call of Session."""

    def __init__(self, connection: Connection, request: runtime_pb2.SessionRequest) -> None:
        """`request` is the first message."""
        requests: queue.SimpleQueue[runtime_pb2.SessionRequest | None] = queue.SimpleQueue()
        requests.put(request)
        self.pid: Final = os.getpid()
        self._requests: Final = requests
        self.send: Final = requests.put
        # The iterator holds the queue and not this object, which can so be collected while gRPC's thread waits.
        try:
            self.kept: Final = connection.runtime.Session(iter(requests.get, None))
        except ValueError as error:  # grpc's way to say that the channel was closed
            raise Unavailable("UNAVAILABLE", detail=str(error)) from None
        OPEN.add(self)

    def __del__(self) -> None:
        """Nobody can reach the session any more."""
        if hasattr(self, "kept"):
            self.cancel()

    def receive(self) -> runtime_pb2.SessionResponse | None:
        """Waits for the next message. KeyboardInterrupt comes through at once: gRPC waits on a lock, in short turns."""
        try:
            return cast("runtime_pb2.SessionResponse | None", next(self.kept, None))
        except grpc.RpcError as error:
            raise translated(error) from None

    def finish(self) -> None:
        """Half-closes it."""
        self._requests.put(None)

    def cancel(self) -> None:
        """Ends it, in the process that opened it: a child's gRPC would write to its parent's connection."""
        if self.pid == os.getpid():
            self.kept.cancel()
            self._requests.put(None)

    def lost(self) -> bool:
        """Whether the call has failed. That it has ended well stands behind a message that was not read."""
        return bool(self.kept.done())


class Exchange:
    """One call of RunFiles."""

    def __init__(self, connection: Connection, sent: Sent, deadline_s: float | None) -> None:
        """Raises Unavailable: the channel was closed."""
        self.pid: Final = os.getpid()
        try:
            self.kept: Final[Any] = connection.runtime.RunFiles(sent.messages(), timeout=deadline_s)
        except ValueError as error:  # as above
            raise Unavailable("UNAVAILABLE", detail=str(error)) from None
        OPEN.add(self)

    def wait(self) -> Received:
        """What comes back. Whatever interrupts the waiting, KeyboardInterrupt too, cancels the call: the run is ended.

        Raises:
            PlugindError: as for any call; Fault: what came back does not fit together.
        """
        receiving = Receiving()
        try:
            for message in self.kept:
                receiving.take(message)
        except grpc.RpcError as error:
            raise translated(error) from None
        finally:
            self.cancel()  # nothing, once it has ended
        return receiving.all()

    def cancel(self) -> None:
        """Ends it, in the process that began it."""
        if self.pid == os.getpid():
            self.kept.cancel()

    def lost(self) -> bool:
        """Whether it has ended."""
        return bool(self.kept.done())


def _cancel_all() -> None:
    """Before the interpreter ends: while all of gRPC is still there."""
    for stream in list(OPEN):
        if isinstance(stream, GrpcStream):
            stream.cancel()


atexit.register(_cancel_all)
