"""The synchronous client. Safe across fork: each process opens a channel of its own.

Source: SPEC.md, "Client".
"""

from __future__ import annotations

import os
from collections.abc import Callable
from types import TracebackType
from typing import Any, Final, Self, TypeVar

import grpc

from plugind_client import loading
from plugind_client.audit import Audit
from plugind_client.calls import Call, Calls
from plugind_client.channel import Connection, call
from plugind_client.errors import InvalidRequest, NotFound
from plugind_client.loading import PluginModule, Use
from plugind_client.source import Source

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
            opened = Connection(self.socket, self._open_channel)
            connection = self._connections.setdefault(pid, opened)
            if connection is not opened:
                opened.channel.close()
        return connection

    def _leave(self) -> Connection | None:
        """This process's connection, to be closed: there is no other after it."""
        self._closed = True
        return self._connections.pop(os.getpid(), None)


class Client(Connected):
    """Runs plugins and keeps house in the registry, over the daemon's Unix socket.

    Threads may share one client, and forked children may go on using their parent's: they open a channel of their
    own. (gRPC itself does not survive a fork at the very moment when another thread is within a call.)
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
        connection = self._leave()
        if connection is not None:
            connection.channel.close()

    @property
    def audit(self) -> Audit:
        """The audit's own calls."""
        return Audit(self._connection)

    def load(
        self,
        name: str,
        *,
        version: str | None = None,
        stage: str | None = None,
        plan_id: str | None = None,
        sensitivity: str | None = None,
        timeout_ms: int | None = None,
    ) -> PluginModule:
        """A plugin with interface "functions" as a module; see `load_source` for what its functions do.

        Without a version it is the one that is active now, and stays that one: its signatures are.

        Raises:
            Denied: it may not run; `reasons` tell all that keeps it.
            Conflict: it has another interface.
            InvalidSource: its functions cannot all be called by name; `detail` tells which and where.
            InvalidRequest, Unavailable: as for `get`.
        """
        use = Use(stage, plan_id, sensitivity, timeout_ms)
        loading.require_runnable(self.explain(name, version=version, **use.explained))
        known = self.source(name, version=version)
        return self._module(loading.read(known), known.name, known.version, use)

    def load_source(
        self,
        path_or_text: str | os.PathLike[str],
        *,
        name: str | None = None,
        stage: str | None = None,
        plan_id: str | None = None,
        sensitivity: str | None = None,
        timeout_ms: int | None = None,
    ) -> PluginModule:
        """Hands in generated code, and gives it as a module whose functions run in the jail.

        `path_or_text` is the source, or its path: a path object, or one line that ends with .py. It is never imported
        here. `name` is the plugin's: without one it is made of the source, so that the same source has the same. Of two
        sources under one name the later retires the earlier. The plugin is for `stage`, or for all without one; what
        else is named goes with every run, as for `run`.

        Raises:
            InvalidSource: it cannot be made into a plugin; `detail` tells where and why.
            Denied: it may not run; `reasons` tell all that keeps it, above all that nobody has approved it yet.
            OSError: the file cannot be read.
            InvalidRequest, NotAllowed, Conflict, Unavailable: as for `submit`.
        """
        use = Use(stage, plan_id, sensitivity, timeout_ms)
        ready = loading.prepared(path_or_text, name, use)
        name, version = ready.made.name, ready.made.version
        if self.submit(ready.made.data).state == "approved":
            self.activate(name, version)
        loading.require_runnable(self.explain(name, version=version, **use.explained))
        return self._module(ready.source, name, version, use)

    def _module(self, source: Source, name: str, version: str, use: Use) -> PluginModule:
        def run(call: dict[str, Any]) -> Any:
            return loading.value_of(self.execute(name, call, version=version, **use.of_run))

        return loading.module_of(source, name, version, run)

    def answer(self, build: Callable[[], Call[Result]]) -> Result:
        """The answer to the call that `build` makes."""
        made = build()
        try:
            given = call(made.on(self._connection()), made.request, made.deadline_s)
        except NotFound as error:
            return made.missing(error)
        return made.read(given)
