"""The one map from plugind's errors to gRPC status codes, and how reasons travel with them.

A denial of a run is an answer and no error; these are refusals of everything else, and faults.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any, Final, NoReturn, TypeAlias

import grpc

from plugind import errors
from plugind.errors import (
    AuditUnavailableError,
    InvalidBundleError,
    IsolationUnavailableError,
    LauncherGoneError,
    PlugindError,
)
from plugind.model import Reason
from plugind.policy.file import InvalidPolicyError

REASONS_KEY: Final = "plugind-reasons-bin"
"""Trailing metadata: a JSON list of {code, rule, expected, actual, remedy}."""
_REASONS_BYTES: Final = 6 * 1024  # grpc refuses more than 8 KiB of metadata
_MESSAGE_CHARS: Final = 2000

STATUS: Final[Mapping[type[PlugindError], grpc.StatusCode]] = {
    errors.ConfigError: grpc.StatusCode.FAILED_PRECONDITION,
    errors.AlreadyRunningError: grpc.StatusCode.INTERNAL,
    errors.InvalidRequestError: grpc.StatusCode.INVALID_ARGUMENT,
    errors.InvalidBundleError: grpc.StatusCode.INVALID_ARGUMENT,
    errors.InvalidJsonError: grpc.StatusCode.INVALID_ARGUMENT,
    errors.InvalidSchemaError: grpc.StatusCode.INVALID_ARGUMENT,
    errors.InvalidEnvironmentError: grpc.StatusCode.FAILED_PRECONDITION,
    errors.NotFoundError: grpc.StatusCode.NOT_FOUND,
    errors.ConflictError: grpc.StatusCode.FAILED_PRECONDITION,
    errors.NotAllowedError: grpc.StatusCode.PERMISSION_DENIED,
    errors.IsolationUnavailableError: grpc.StatusCode.UNAVAILABLE,
    errors.LauncherGoneError: grpc.StatusCode.UNAVAILABLE,
    errors.PlanError: grpc.StatusCode.FAILED_PRECONDITION,
    errors.AuditUnavailableError: grpc.StatusCode.UNAVAILABLE,
    errors.StateError: grpc.StatusCode.DATA_LOSS,
}

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"


def status_of(error: PlugindError) -> grpc.StatusCode:
    """The code of this error's class, or of the nearest class above it."""
    for kind in type(error).__mro__:
        if code := STATUS.get(kind):
            return code
    return grpc.StatusCode.INTERNAL


def reasons_of(error: PlugindError) -> list[dict[str, str]]:
    """The findings that an error carries, as reasons. Their code is the error's own where no denial code fits."""
    if isinstance(error, InvalidBundleError):
        return [_reason("INVALID_BUNDLE", "bundle", problem) for problem in error.problems]
    if isinstance(error, InvalidPolicyError):
        return [_reason("INVALID_POLICY", "policy", problem) for problem in error.problems]
    if isinstance(error, IsolationUnavailableError):
        return [_reason("ISOLATION_UNAVAILABLE", error.step, str(error))]
    if isinstance(error, LauncherGoneError):
        return [_reason("ISOLATION_UNAVAILABLE", "launcher", str(error))]
    if isinstance(error, AuditUnavailableError):
        return [_reason("AUDIT_UNAVAILABLE", "audit", str(error))]
    carried: Sequence[Reason] = getattr(error, "reasons", ())
    return [{**dataclasses.asdict(reason), "code": str(reason.code)} for reason in carried]


def _reason(code: str, rule: str, actual: str) -> dict[str, str]:
    return {"code": code, "rule": rule, "expected": "", "actual": actual, "remedy": ""}


def encode_reasons(reasons: Sequence[Mapping[str, str]]) -> bytes:
    """As many of the reasons as fit into the metadata, in their order."""
    kept = list(reasons)
    while True:
        data = json.dumps(kept, separators=(",", ":")).encode()
        if len(data) <= _REASONS_BYTES or not kept:
            return data
        kept.pop()


async def abort(context: Context, error: PlugindError) -> NoReturn:
    """End the call with the error's status, its message and its reasons."""
    reasons = reasons_of(error)
    metadata = ((REASONS_KEY, encode_reasons(reasons)),) if reasons else ()
    await context.abort(status_of(error), str(error)[:_MESSAGE_CHARS], metadata)
    raise AssertionError("abort() does not return")
