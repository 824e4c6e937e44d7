"""What every call of the API has in common: who calls, whether they may, and what becomes of an error."""

from __future__ import annotations

import functools
import re
import time
import traceback
from collections.abc import Awaitable, Callable
from typing import Final, Protocol, TypeVar, cast

import grpc

from plugind.api.accept import Callers
from plugind.api.errors import Context, abort
from plugind.api.roles import Role, require
from plugind.config import log
from plugind.errors import InvalidRequestError, PlugindError
from plugind.model import Caller

LINE: Final = re.compile(r"[^\x00-\x1f\x7f]{1,500}")
PLUGIN: Final = re.compile(r"[a-z][a-z0-9_]{1,62}|plug_[1-9][0-9]{0,17}")
VERSION: Final = re.compile(r"[0-9A-Za-z.+-]{1,64}")
STAGE: Final = re.compile(r"[a-z0-9_]{1,64}")
LOG_ID: Final = re.compile(r"log_(0|[1-9][0-9]{0,17})")
RUN_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")


class Refusals(Protocol):
    """Where a call is recorded that somebody made without the role for it."""

    async def refused(self, caller: Caller, call: str, role: str) -> None:
        """Returns when it is recorded, or cannot be."""


class Service(Protocol):
    """What a servicer has for `call` to work with."""

    callers: Callers
    refusals: Refusals


ServiceT = TypeVar("ServiceT", bound=Service)
RequestT = TypeVar("RequestT")
AnswerT = TypeVar("AnswerT")


def call(
    role: Role,
) -> Callable[
    [Callable[[ServiceT, RequestT, Caller], Awaitable[AnswerT]]],
    Callable[[ServiceT, RequestT, Context], Awaitable[AnswerT]],
]:
    """Makes a method `(request, caller) -> answer` a gRPC method for callers with `role`."""

    def decorate(
        method: Callable[[ServiceT, RequestT, Caller], Awaitable[AnswerT]],
    ) -> Callable[[ServiceT, RequestT, Context], Awaitable[AnswerT]]:
        @call_until(role)
        @functools.wraps(method)
        async def answer(self: ServiceT, request: RequestT, caller: Caller, deadline: float | None) -> AnswerT:
            del deadline  # gRPC itself ends the call
            return await method(self, request, caller)

        return answer

    return decorate


def call_until(
    role: Role,
) -> Callable[
    [Callable[[ServiceT, RequestT, Caller, float | None], Awaitable[AnswerT]]],
    Callable[[ServiceT, RequestT, Context], Awaitable[AnswerT]],
]:
    """As `call`, for a method that is also told when its caller stops waiting, as `deadline_of` does."""

    def decorate(
        method: Callable[[ServiceT, RequestT, Caller, float | None], Awaitable[AnswerT]],
    ) -> Callable[[ServiceT, RequestT, Context], Awaitable[AnswerT]]:
        @functools.wraps(method)
        async def answer(self: ServiceT, request: RequestT, context: Context) -> AnswerT:
            try:
                deadline = deadline_of(context)
                caller = await admitted(self, context, role, method.__name__)
                return await method(self, request, caller, deadline)
            except PlugindError as error:
                await abort(context, error)
            except Exception:  # noqa: BLE001 - a fault of ours: told in the log, and never with its inside to a caller
                log(f"fault in {method.__name__}:\n{traceback.format_exc()}")
                await context.abort(grpc.StatusCode.INTERNAL, f"a fault of plugind in {method.__name__}; see its log")
            raise AssertionError("abort() does not return")

        return answer

    return decorate


def deadline_of(context: Context) -> float | None:
    """When the caller stops waiting for the answer, time.monotonic() seconds; None: never."""
    left_s = cast("float | None", context.time_remaining())  # its types know no None, its text does
    return None if left_s is None else time.monotonic() + left_s


async def admitted(service: Service, context: Context, role: Role, call: str) -> Caller:
    """Who calls. Raises NotAllowedError for one without the role, which is recorded first."""
    caller = service.callers.behind(context.peer())
    if role not in caller.roles:
        await service.refusals.refused(caller, call, role)
    require(caller, role, call)
    return caller


def matching(field: str, value: str, pattern: re.Pattern[str], expected: str) -> str:
    """The value. Raises InvalidRequestError when the whole of it does not match."""
    if pattern.fullmatch(value) is None:
        raise InvalidRequestError(f"{field}: expected {expected}, got {value[:80]!r}")
    return value


def reason_text(value: str) -> str:
    """The required field `reason`: why somebody does something."""
    return matching("reason", value.strip(), LINE, "why, in 1 to 500 characters on one line")


def now_ms() -> int:
    """Milliseconds since the epoch."""
    return time.time_ns() // 1_000_000


def plugin_name(value: str) -> str:
    """The required field `plugin`."""
    return matching("plugin", value, PLUGIN, "a name like cost_breakdown or an id like plug_1")


def version_text(value: str, *, required: bool) -> str:
    """The field `version`."""
    return matching("version", value, VERSION, "a version like 1.2.0") if value or required else ""
