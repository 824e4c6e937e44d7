"""One gRPC channel a process, calls that can be interrupted, and the one map from gRPC status to errors."""

from __future__ import annotations

import contextlib
import json
import os
import urllib.parse
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final, TypeVar, cast

import grpc

from plugind_client.errors import (
    Canceled,
    Conflict,
    Denied,
    Fault,
    InvalidRequest,
    NotAllowed,
    NotFound,
    PlugindError,
    Unavailable,
)
from plugind_client.records import Reason
from plugind_proto.v1.audit_pb2_grpc import AuditStub
from plugind_proto.v1.governance_pb2_grpc import GovernanceStub
from plugind_proto.v1.registry_pb2_grpc import RegistryStub
from plugind_proto.v1.runtime_pb2_grpc import RuntimeStub

Request = TypeVar("Request")
Answer = TypeVar("Answer")

REASONS_KEY: Final = "plugind-reasons-bin"
"""Trailing metadata of a refusal: a JSON list of {code, rule, expected, actual, remedy}."""

PATH_BYTES: Final = 107
"""Longest path of a Unix socket: unix(7), sun_path less its end. gRPC fails noisily on a longer one."""

REASON_FIELDS: Final = ("code", "rule", "expected", "actual", "remedy")

OPTIONS: Final[tuple[tuple[str, str | int], ...]] = (
    # Subchannels are shared within a process by address, so a forked child would write to its parent's connection:
    # of 60 forked children 13 lost a call so, and with this option none did.
    ("grpc.use_local_subchannel_pool", 1),
    # The daemon caps what it takes and a tier caps what it gives; a limit in between would only hide which.
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    # A local daemon that was restarted is there again soon.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
    ("grpc.enable_http_proxy", 0),
)

STATUS: Final[Mapping[grpc.StatusCode, tuple[type[PlugindError], str]]] = MappingProxyType(
    {
        grpc.StatusCode.ABORTED: (Conflict, "CONFLICT"),
        grpc.StatusCode.ALREADY_EXISTS: (Conflict, "CONFLICT"),
        grpc.StatusCode.CANCELLED: (Canceled, "canceled"),
        grpc.StatusCode.DATA_LOSS: (Fault, "FAULT"),
        grpc.StatusCode.DEADLINE_EXCEEDED: (Unavailable, "NO_ANSWER"),
        grpc.StatusCode.FAILED_PRECONDITION: (Conflict, "CONFLICT"),
        grpc.StatusCode.INTERNAL: (Fault, "FAULT"),
        grpc.StatusCode.INVALID_ARGUMENT: (InvalidRequest, "INVALID_REQUEST"),
        grpc.StatusCode.NOT_FOUND: (NotFound, "NOT_FOUND"),
        grpc.StatusCode.OUT_OF_RANGE: (InvalidRequest, "INVALID_REQUEST"),
        grpc.StatusCode.PERMISSION_DENIED: (NotAllowed, "NOT_ALLOWED"),
        grpc.StatusCode.RESOURCE_EXHAUSTED: (InvalidRequest, "REQUEST_TOO_LARGE"),
        grpc.StatusCode.UNAUTHENTICATED: (NotAllowed, "NOT_ALLOWED"),
        grpc.StatusCode.UNAVAILABLE: (Unavailable, "UNAVAILABLE"),
        grpc.StatusCode.UNIMPLEMENTED: (Fault, "UNSUPPORTED"),
        grpc.StatusCode.UNKNOWN: (Fault, "FAULT"),
    }
)
"""What each gRPC status means; every status but OK is here."""


class Connection:
    """A channel to one socket with the stubs on it. Belongs to the process that made it."""

    def __init__(self, socket: str, open_channel: Callable[..., Any] = grpc.insecure_channel) -> None:
        """`open_channel` is grpc's, or grpc.aio's: the stubs are the same, and what their calls give is not."""
        path = os.path.abspath(socket)  # noqa: PTH100 - text in, text out
        length = len(os.fsencode(path))
        if length > PATH_BYTES:
            detail = f"{path}: expected a socket's path of at most {PATH_BYTES} bytes, got {length}"
            raise Unavailable("UNAVAILABLE", detail=detail)
        # The path is part of a URI: a percent sign in it would be decoded.
        self.channel = open_channel("unix:" + urllib.parse.quote(path), options=OPTIONS)
        self.runtime = RuntimeStub(self.channel)
        self.registry = RegistryStub(self.channel)
        self.governance = GovernanceStub(self.channel)
        self.audit = AuditStub(self.channel)


def call(method: grpc.UnaryUnaryMultiCallable[Request, Answer], request: Request, deadline_s: float | None) -> Answer:
    """One call. Whatever interrupts the waiting, KeyboardInterrupt too, cancels it, and the daemon ends the run.

    A future and not a blocking call: that would notice a signal only every 0.2 s and leave the call running.
    """
    try:
        future = method.future(request, timeout=deadline_s)
    except ValueError as error:  # grpc's way to say that the channel was closed
        raise Unavailable("UNAVAILABLE", detail=str(error)) from None
    try:
        return future.result()
    except grpc.RpcError as error:
        raise translated(error) from None
    except grpc.FutureCancelledError:
        raise Canceled("canceled", detail="the call was canceled in this process") from None
    except BaseException:
        future.cancel()
        raise


def translated(error: grpc.RpcError) -> PlugindError:
    """The typed error for a failed call."""
    failed = cast("grpc.Call", error)  # what a call raises is the call itself
    kind, code = STATUS.get(failed.code(), (Fault, "FAULT"))
    reasons = _reasons(failed)
    if kind is Unavailable and reasons:  # the daemon is there and says why it refuses
        kind, code = Denied, reasons[0].code
    return kind(code, detail=failed.details() or "", reasons=reasons)


def _reasons(error: grpc.Call) -> tuple[Reason, ...]:
    """The reasons in the trailing metadata; what cannot be read is left out, the status still stands."""
    for key, value in error.trailing_metadata() or ():
        if key == REASONS_KEY:
            with contextlib.suppress(ValueError, TypeError, KeyError):
                return tuple(Reason(**{name: str(item[name]) for name in REASON_FIELDS}) for item in json.loads(value))
    return ()
