"""The synchronous client. Safe across fork: each process opens a channel of its own.

Source: DESIGN section 11, SPEC.md "Client".
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Final, Self, TypeVar

from plugind_client import wire
from plugind_client.channel import Connection, call
from plugind_client.errors import InvalidRequest, error_of
from plugind_client.records import Limits, Permission, Plugin, PluginVersion, RunningRun, RunResult, Submission
from plugind_proto.v1 import governance_pb2, registry_pb2, runtime_pb2

Request = TypeVar("Request")

DEFAULT_SOCKET: Final = "/run/plugind/run/plugind.sock"
SHORT_CALL_S: Final = 30.0
"""Deadline of calls that only look something up."""
SUBMIT_S: Final = 120.0
"""Deadline of Submit: up to 32 MiB are checked and written durably."""
GRACE_S: Final = 30.0
"""On top of a run's own time: waiting for its turn, setting up the jail, writing the audit ledger."""


class Client:
    """Runs plugins and keeps house in the registry, over the daemon's Unix socket.

    Threads may share one client, and forked children may go on using their parent's: they open a channel of their
    own. (gRPC itself does not survive a fork at the very moment when another thread is within a call.)
    """

    def __init__(self, socket: str | os.PathLike[str] | None = None) -> None:
        """`socket` is a path; without it PLUGIND_SOCKET, and then the system's own. Connects at the first call."""
        self.socket: Final = os.fspath(socket or os.environ.get("PLUGIND_SOCKET") or DEFAULT_SOCKET)
        # By pid. A parent's connection stays referenced and untouched in its children: closing it, or letting it be
        # collected, would use gRPC's state of a process that they are not.
        self._connections: Final[dict[int, Connection]] = {}
        self._closed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends calls in flight and this process's connection. Later calls raise InvalidRequest."""
        self._closed = True
        connection = self._connections.pop(os.getpid(), None)
        if connection is not None:
            connection.close()

    # --- running -------------------------------------------------------------------------------------------------

    def run(
        self,
        name: str,
        payload: object,
        *,
        version: str | None = None,
        stage: str | None = None,
        plan_id: str | None = None,
        sensitivity: str | None = None,
        timeout_ms: int | None = None,
    ) -> RunResult:
        """Runs a plugin once and returns its result.

        `name` is a name, an id or `plugin@version`; `payload` any JSON value. `timeout_ms` lowers the wall limit
        that was approved, and never raises it. An exception while waiting (Ctrl-C) ends the run.

        Raises:
            Denied: it never ran.
            PluginFailed, LimitExceeded, OutputInvalid, Violated, Killed, Canceled, Fault: it ran and did not end well.
            InvalidRequest, Unavailable: the call itself failed.
        """
        result = self.execute(
            name,
            payload,
            version=version,
            stage=stage,
            plan_id=plan_id,
            sensitivity=sensitivity,
            timeout_ms=timeout_ms,
        )
        error = error_of(result)
        if error is not None:
            raise error
        return result

    def execute(
        self,
        name: str,
        payload: object = None,
        *,
        input_json: bytes | None = None,
        version: str | None = None,
        stage: str | None = None,
        plan_id: str | None = None,
        sensitivity: str | None = None,
        timeout_ms: int | None = None,
    ) -> RunResult:
        """Like `run`, but denials and every outcome are returned and not raised.

        `input_json` takes the place of `payload` where the input already is JSON text; it is sent as it is.
        """
        plugin, version = _named(name, version)
        request = _request(
            runtime_pb2.RunRequest,
            plugin=plugin,
            version=version,
            input_json=wire.payload_json(payload) if input_json is None else input_json,
            stage=stage,
            plan_id=plan_id,
            sensitivity=sensitivity,
            timeout_ms=timeout_ms,
        )
        deadline_s = timeout_ms / 1000 + GRACE_S if timeout_ms else None
        return wire.run_result(call(self._connection().runtime.Run, request, deadline_s))

    def cancel(self, run_id: str) -> bool:
        """Ends a run of the caller's own (an operator: any). False: no such run is in flight."""
        request = _request(runtime_pb2.CancelRequest, run_id=run_id)
        return call(self._connection().runtime.Cancel, request, SHORT_CALL_S).found

    def runs(self) -> list[RunningRun]:
        """The runs in flight, oldest first: the caller's own (an operator: all)."""
        answer = call(self._connection().runtime.ListRuns, runtime_pb2.ListRunsRequest(), SHORT_CALL_S)
        return [wire.running_run(run) for run in answer.runs]

    # --- registry ------------------------------------------------------------------------------------------------

    def get(self, plugin: str) -> Plugin:
        """One plugin with all its versions, by name or id.

        Raises:
            NotFound: there is none.
        """
        request = _request(registry_pb2.GetRequest, plugin=plugin)
        return wire.plugin(call(self._connection().registry.Get, request, SHORT_CALL_S))

    def submit(
        self, bundle: bytes, attestations: bytes = b"", *, development_public_keys: Sequence[str] = ()
    ) -> Submission:
        """Hands in a bundle (the bytes of a .plugin.tar) with its attestations (.intoto.jsonl).

        Raises:
            InvalidRequest: the bundle is not valid; `reasons` tells everything that is wrong.
            Conflict: other bytes are stored under the same name and version.
        """
        request = _request(
            registry_pb2.SubmitRequest,
            bundle=bundle,
            attestations=attestations,
            development_public_keys=list(development_public_keys),
        )
        return wire.submission(call(self._connection().registry.Submit, request, SUBMIT_S))

    # --- governance ----------------------------------------------------------------------------------------------

    def approve(
        self,
        plugin: str,
        version: str,
        *,
        tier: int,
        reason: str,
        as_declared: bool = False,
        stages: Sequence[str] = (),
        permissions: Sequence[Permission] = (),
        limits: Limits | None = None,
    ) -> PluginVersion:
        """Approves what is named and nothing else; `as_declared` instead approves all that the manifest asks for.

        `tier` is the highest trust that the approval gives, `reason` is kept with it.

        Raises:
            NotFound, Conflict, InvalidRequest, NotAllowed: as the words say.
        """
        request = _request(
            governance_pb2.ApproveRequest,
            plugin=plugin,
            version=version,
            tier=tier,
            as_declared=as_declared,
            stages=list(stages),
            permissions=wire.permission_messages(permissions),
            limits=wire.limits_message(limits) if limits else None,
            reason=reason,
        )
        return wire.plugin_version(call(self._connection().governance.Approve, request, SHORT_CALL_S))

    def activate(self, plugin: str, version: str) -> PluginVersion:
        """Makes an approved version the active one.

        Raises:
            NotFound, Conflict, NotAllowed: as the words say.
        """
        request = _request(governance_pb2.ActivateRequest, plugin=plugin, version=version)
        return wire.plugin_version(call(self._connection().governance.Activate, request, SHORT_CALL_S))

    def _connection(self) -> Connection:
        """This process's connection. setdefault is atomic: of two threads that come first, one wins."""
        if self._closed:
            raise InvalidRequest("INVALID_REQUEST", detail="this Client is closed")
        pid = os.getpid()
        connection = self._connections.get(pid)
        if connection is None:
            opened = Connection(self.socket)
            connection = self._connections.setdefault(pid, opened)
            if connection is not opened:
                opened.close()
        return connection

    # Last, because within the class body the name then hides the builtin.
    def list(self) -> list[Plugin]:
        """All plugins with their versions, by id."""
        answer = call(self._connection().registry.List, registry_pb2.ListRequest(), SHORT_CALL_S)
        return [wire.plugin(plugin) for plugin in answer.plugins]


def _request(message: Callable[..., Request], **fields: object) -> Request:
    """A message, with Python's complaint about a wrong argument as InvalidRequest."""
    try:
        return message(**{name: value for name, value in fields.items() if value is not None})
    except (TypeError, ValueError) as error:
        raise InvalidRequest("INVALID_REQUEST", detail=str(error)) from None


def _named(name: str, version: str | None) -> tuple[str, str | None]:
    """A name and version out of "plugin@version".

    Raises:
        InvalidRequest: the name is empty, or the version is given twice and differs.
    """
    plugin, at, named = name.partition("@")
    if not plugin or (at and not named):
        raise InvalidRequest("INVALID_REQUEST", detail=f"a plugin is NAME or NAME@VERSION, got {name!r}")
    if named and version and named != version:
        raise InvalidRequest("INVALID_REQUEST", detail=f"{name!r} and version {version!r} contradict each other")
    return plugin, named or version
