"""Calls that are declared and not built yet: grpc answers UNIMPLEMENTED. Goes when the last of them is there."""

from __future__ import annotations

from typing import NoReturn

import grpc

from plugind.api.errors import Context


async def _pending(self: object, request: object, context: Context) -> NoReturn:
    del self, request
    await context.abort(grpc.StatusCode.UNIMPLEMENTED, "not built yet")
    raise AssertionError("abort() does not return")


class PendingCalls:
    """Replaced by QuarantineCalls."""

    Quarantine = ListQuarantine = GetQuarantine = Release = ListAnomalies = _pending
