"""The calls that run plugins, and those about runs.

Source: SPEC.md, "Client".
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from plugind_client import planfiles, wire, wire_many
from plugind_client.errors import InvalidRequest, error_of
from plugind_client.loading import PluginModule
from plugind_client.method import Call
from plugind_client.planfiles import Files, Folder, Received
from plugind_client.records import Denial, RunningRun, RunResult
from plugind_client.requests import message, named
from plugind_client.results import MapResult
from plugind_client.text import payload_json
from plugind_proto.v1 import runtime_pb2

GRACE_S: Final = 30.0
"""On top of a run's own time: waiting for its turn, setting up the jail, writing the audit ledger."""
AGAIN_S: Final = 10.0
"""For how long a request with an idempotency key is sent again while no daemon can be reached: a restart of it."""


def run(
    name: str,
    payload: object,
    *,
    version: str | None = None,
    stage: str | None = None,
    plan_id: str | None = None,
    plan_dir: Folder | None = None,
    sensitivity: str | None = None,
    timeout_ms: int | None = None,
    idempotency_key: str | None = None,
    files: Files | None = None,
) -> Call[RunResult]:
    """Runs a plugin once and gives its result.

    `name` is a name, an id or `plugin@version`; `payload` any JSON value. `timeout_ms` lowers the wall limit
    that was approved, and never raises it. What interrupts the waiting (Ctrl-C, canceling the task) ends the run.

    With an `idempotency_key` (1 to 128 printable characters of ASCII, no spaces) the same request, sent again, gives
    the answer of the first time, and nothing runs twice. So the client itself sends it again, for ten seconds, while no
    daemon can be reached. The daemon knows a key for a quarter of an hour, and forgets it when it is started again.

    `plan_dir` is the plan's folder, which the daemon opens as this caller; a plugin needs it that has a permission for
    files. Where the daemon cannot open it, as from a container, `files` sends the files instead: path within the plan →
    bytes, or the path object of a file; what the plugin wrote comes back as `content` of the result's `files`, and
    nothing is written by the daemon.

    Raises:
        Denied: it never ran.
        PluginFailed, LimitExceeded, OutputInvalid, Violated, Killed, Canceled, Fault: it ran and did not end well.
        InvalidRequest, Unavailable: the call itself failed.
        TypeError: both plan_dir and files. OSError: one of these cannot be read.
    """
    request = _run_request(
        name,
        input_json=payload_json(payload),
        version=version,
        stage=stage,
        plan_id=plan_id,
        plan_dir=planfiles.folder(plan_dir),
        sensitivity=sensitivity,
        timeout_ms=timeout_ms,
        idempotency_key=idempotency_key,
    )
    return _run_call(request, files, _good_result)


def execute(
    name: str,
    payload: object = None,
    *,
    input_json: bytes | None = None,
    version: str | None = None,
    stage: str | None = None,
    plan_id: str | None = None,
    plan_dir: Folder | None = None,
    sensitivity: str | None = None,
    timeout_ms: int | None = None,
    idempotency_key: str | None = None,
    files: Files | None = None,
    trial: bool = False,
    learn: bool = False,
) -> Call[RunResult]:
    """Like `run`, but denials and every outcome are given back and not raised.

    `input_json` takes the place of `payload` where the input already is JSON text; it is sent as it is.

    `trial`: generated code that starts in quarantine, tried by an operator with input made up for it, for no plan.

    `learn`: the plugin may read all of plan_dir, nothing that it writes is kept, and `opened` of the result tells what
    it tried to open. Development daemons only.
    """
    request = _run_request(
        name,
        input_json=payload_json(payload) if input_json is None else input_json,
        version=version,
        stage=stage,
        plan_id=plan_id,
        plan_dir=planfiles.folder(plan_dir),
        sensitivity=sensitivity,
        timeout_ms=timeout_ms,
        idempotency_key=idempotency_key,
        trial=trial or None,
        learn=learn or None,
    )
    return _run_call(request, files, wire.run_result)


def _run_call(request: runtime_pb2.RunRequest, files: Files | None, read: Callable[..., RunResult]) -> Call[RunResult]:
    """The call of one run: where files go along, another one. `read` takes the response and what came back."""
    if files is None:
        return Call("runtime.Run", request, read, **_patience(request))
    if request.plan_dir:
        raise TypeError(
            "plan_dir, files: expected one of them, got both: the daemon opens plan_dir, or is sent the files"
        )

    def received(answer: Received) -> RunResult:
        return read(answer.run, answer.contents)

    return Call("runtime.RunFiles", planfiles.sent(request, files), received, **_patience(request))


def map_payloads(
    plugin: str | PluginModule,
    payloads: Iterable[object],
    *,
    version: str | None = None,
    stage: str | None = None,
    plan_id: str | None = None,
    plan_dir: Folder | None = None,
    sensitivity: str | None = None,
    timeout_ms: int | None = None,
    idempotency_key: str | None = None,
) -> Call[MapResult]:
    """Gives many payloads to one instance, one after the other, as one execution.

    A payload is any JSON value, or `Columns`: many calls of one function. One that fails is an error in its place of
    the result and stops nothing. `plugin` is as for `run`, or a module of `load` or `load_source`; then version, stage
    and all else are the module's unless they are given. `timeout_ms` is for all of it.

    Raises:
        Denied: it never ran.
        PluginFailed, LimitExceeded, OutputInvalid, Violated, Killed, Canceled, Fault: the whole did not end well.
        InvalidRequest, Unavailable: the call itself failed; there has to be a payload.
    """
    given = tuple(payloads)
    if not given:
        raise InvalidRequest("INVALID_REQUEST", detail="payloads: expected at least one, got nothing")
    run = _run_request(
        plugin,
        version=version,
        stage=stage,
        plan_id=plan_id,
        plan_dir=planfiles.folder(plan_dir),
        sensitivity=sensitivity,
        timeout_ms=timeout_ms,
        idempotency_key=idempotency_key,
    )
    request = runtime_pb2.MapRequest(run=run, items=wire_many.map_items(given))
    read = functools.partial(wire_many.map_result, sent=request.items)
    return Call("runtime.Map", request, read, **_patience(run), used_up={"payloads": given})


def session_request(plugin: str | PluginModule, *, idle_ms: int | None, **fields: Any) -> runtime_pb2.SessionRequest:
    """The message that opens a session.

    Raises:
        InvalidRequest: the arguments do not make one.
    """
    run = _run_request(plugin, **fields)
    return runtime_pb2.SessionRequest(open=message(runtime_pb2.SessionOpen, run=run, idle_ms=idle_ms))


def _run_request(plugin: str | PluginModule, **fields: Any) -> runtime_pb2.RunRequest:
    """What a run is asked for; what is None, a module says or nobody."""
    if isinstance(plugin, PluginModule):
        said = {**plugin.__use__.of_run, "version": plugin.__version__}
        fields = {**said, **{name: value for name, value in fields.items() if value is not None}}
        plugin = plugin.__name__
    name, version = named(plugin, fields.pop("version"))
    return message(runtime_pb2.RunRequest, plugin=name, version=version, **fields)


def _patience(request: runtime_pb2.RunRequest) -> dict[str, Any]:
    """How long the call may take, which is no matter unless the caller named a limit; and whether to send it again."""
    return {
        "deadline_s": request.timeout_ms / 1000 + GRACE_S if request.timeout_ms else None,
        "again_s": AGAIN_S if request.idempotency_key else 0.0,
    }


def _good_result(answer: runtime_pb2.RunResponse, contents: Mapping[str, bytes] | None = None) -> RunResult:
    result = wire.run_result(answer, contents)
    error = error_of(result)
    if error is not None:
        raise error
    return result


def cancel(run_id: str) -> Call[bool]:
    """Ends a run of the caller's own (an operator: any). False: no such run is in flight."""
    return Call("runtime.Cancel", message(runtime_pb2.CancelRequest, run_id=run_id), lambda answer: answer.found)


def runs() -> Call[list[RunningRun]]:
    """The runs in flight, oldest first: the caller's own (an operator: all)."""
    return Call("runtime.ListRuns", runtime_pb2.ListRunsRequest(), wire.running_runs)


def why() -> Call[Denial | None]:
    """The last denial of this caller since the daemon started, with all its reasons. None: there was none."""
    return Call("runtime.Why", runtime_pb2.WhyRequest(), wire.denial, missing=lambda _: None)
