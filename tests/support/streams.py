"""A session as it goes over the wire, message by message; and what a daemon has open, to be compared."""

from __future__ import annotations

import contextlib
import queue
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import grpc

from plugind_client import Client
from plugind_proto.v1 import runtime_pb2, runtime_pb2_grpc
from tests.support.daemon import Daemon
from tests.support.groups import groups_of_state
from tests.support.jail import descendants, living_instances
from tests.support.pace import stretched

PATIENCE_S = 20
Request = runtime_pb2.SessionRequest


class Stream:
    """Sends what a test wants, in any order, and hears what comes."""

    def __init__(self, daemon: Daemon, plugin: str = "", channel: grpc.Channel | None = None, **opened: Any) -> None:
        """Opens a session where a plugin is named. A channel of its own where none is given."""
        self._own = channel is None
        self._channel = channel or grpc.insecure_channel(f"unix:{daemon.socket}")
        self._queue: queue.SimpleQueue[Request | None] = queue.SimpleQueue()
        stub = runtime_pb2_grpc.RuntimeStub(self._channel)
        self.call = stub.Session(iter(self._queue.get, None))
        if plugin:
            idle_ms = opened.pop("idle_ms", 0)
            run = runtime_pb2.RunRequest(plugin=plugin, **opened)
            self.send(Request(open=runtime_pb2.SessionOpen(run=run, idle_ms=idle_ms)))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """As a client that is gone."""
        self.call.cancel()
        self._queue.put(None)
        if self._own:
            self._channel.close()

    def send(self, message: Request) -> None:
        self._queue.put(message)

    def give(self, text: bytes) -> None:
        """An input."""
        self.send(Request(input_json=text))

    def half_close(self) -> None:
        self._queue.put(None)

    def hear(self) -> runtime_pb2.SessionResponse:
        """The next message. Raises grpc.RpcError, and StopIteration after the last one."""
        return next(self.call)

    def opened(self) -> runtime_pb2.SessionOpened:
        message = self.hear()
        assert message.HasField("opened"), message
        return message.opened

    def answer(self) -> runtime_pb2.SessionAnswer:
        message = self.hear()
        assert message.HasField("answer"), message
        return message.answer

    def ended(self) -> runtime_pb2.SessionEnded:
        message = self.hear()
        assert message.HasField("ended"), message
        assert next(self.call, None) is None, "it is the last message"
        return message.ended

    def code(self) -> grpc.StatusCode:
        """With which error it ends; answers that come before it are passed over."""
        try:
            for _ in self.call:
                pass
        except grpc.RpcError as error:
            return error.code()
        return self.call.code()


def has(daemon: Daemon) -> dict[str, object]:
    """What a daemon that does nothing has: open descriptors of front and launcher, processes, groups, threads apart."""
    descriptors = [_descriptors(pid, daemon.state) for pid in daemon.pids]
    groups = len(groups_of_state(daemon.state))
    below = descendants(daemon.process.pid)
    return {"descriptors": descriptors, "groups": groups, "processes": sorted(below.values())}


def _descriptors(pid: int, state: Path) -> list[str]:
    """But for those of its own files, which it opens when it first needs them."""
    found = []
    for path in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # it was closed meanwhile
            found.append(str(path.readlink()).partition(":[")[0])
    return sorted(each for each in found if not each.startswith(str(state)))


@contextlib.contextmanager
def nothing_left(daemon: Daemon, client: Client) -> Iterator[None]:
    """Soon afterwards the daemon has what it had before: no run, instance, group or descriptor more."""
    client.runs()  # its connection is there before and afterwards
    before = settled(daemon)
    yield
    deadline = time.monotonic() + stretched(PATIENCE_S)
    while (now := has(daemon)) != before or client.runs() or living_instances(descendants(daemon.process.pid)):
        assert time.monotonic() < deadline, f"expected {before}, got {now}, runs {client.runs()}"
        time.sleep(0.02)


def settled(daemon: Daemon) -> dict[str, object]:
    """What it has when that has not changed for a moment: connections of before are closed by then."""
    last, since = has(daemon), time.monotonic()
    while time.monotonic() - since < 0.1:
        time.sleep(0.02)
        if (now := has(daemon)) != last:
            last, since = now, time.monotonic()
    return last
