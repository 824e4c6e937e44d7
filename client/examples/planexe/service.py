"""A FastAPI service as PlanExe's: generated calculations in, figures out, and plugind in between.

    PLUGIND_SOCKET=PATH uvicorn service:app --app-dir client/examples/planexe

One AsyncClient for the whole service, made and closed with it. How errors become HTTP:

| error | status | why |
|-|-|-|
| Denied, NotAllowed, Killed, Violated | 403 | a rule or a person is against it; `reasons` say which, and what to do |
| any with `retryable` (BUSY, UNAVAILABLE, …) | 503 with Retry-After | the same request may pass in a moment |
| InvalidSource, PluginFailed, OutputInvalid, Denied INPUT_INVALID | 422 | the code or its inputs are wrong |
| LimitExceeded | 422 | the code used more than it may, and would again: no 504, which makes proxies send it once more |
| too large | 413 | |
| NotFound, Conflict | 404, 409 | |
| all else (AUDIT_UNAVAILABLE, a fault) | 500 | somebody has to look at plugind |
"""

from __future__ import annotations

import math
import inspect
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field

from plugind_client import (
    AsyncClient,
    Conflict,
    Denied,
    InvalidRequest,
    InvalidSource,
    Killed,
    LimitExceeded,
    NotAllowed,
    NotFound,
    OutputInvalid,
    PlugindError,
    PluginFailed,
    Violated,
)

RETRY_AFTER_S = 2
TOO_LARGE = {"INPUT_TOO_LARGE", "REQUEST_TOO_LARGE"}
NOT_A_MATTER_OF_RULES = {"AUDIT_UNAVAILABLE", "POLICY_ERROR"}
STATUSES: tuple[tuple[type[PlugindError], int], ...] = (
    (Denied, 403),
    (NotAllowed, 403),
    (Killed, 403),
    (Violated, 403),
    (InvalidSource, 422),
    (PluginFailed, 422),
    (OutputInvalid, 422),
    (LimitExceeded, 422),
    (InvalidRequest, 400),
    (NotFound, 404),
    (Conflict, 409),
)


class Napkin(BaseModel):
    """One evaluation of generated calculations."""

    source: str = Field(description="Python source: public functions, as the text of calculations.py")
    inputs: dict[str, Any] = Field(description="Values by name; a function's parameters are named after them")
    stage: str = "premortem"
    plan_id: str | None = None


class Figures(BaseModel):
    """What the calculations gave."""

    outputs: dict[str, Any] = Field(
        description="By the function's name, in the order of the source; null: no finite number"
    )
    missing: dict[str, list[str]] = Field(description="Functions that were not called, and which inputs they lack")
    plugin: str = Field(description="What to ask plugind about: plugindctl show NAME@VERSION")


class CalculationFailed(Exception):
    """A calculation raised a builtin exception, as it would have in this process."""

    def __init__(self, function: str, error: Exception) -> None:
        super().__init__(function)
        self.body = {"code": "failed", "function": function, "type": type(error).__name__, "message": str(error)}


def create_app(make_client: Callable[[], AsyncClient] = AsyncClient) -> FastAPI:
    """The service. `make_client` is called when it starts; a test gives a fake."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with make_client() as client:  # for one event loop: made in it, closed in it
            app.state.client = client
            yield

    app = FastAPI(title="Napkin maths in a jail", lifespan=lifespan)
    app.post("/napkin")(napkin)
    app.get("/status")(status)
    app.add_exception_handler(PlugindError, plugind_failed)
    app.add_exception_handler(CalculationFailed, calculation_failed)
    return app


async def napkin(given: Napkin, request: Request) -> Figures:
    """Each function once, with the inputs and what the functions before it gave."""
    client: AsyncClient = request.app.state.client
    module = await client.load_source(given.source, stage=given.stage, plan_id=given.plan_id)
    pool, outputs, missing = dict(given.inputs), {}, {}
    for name in module.__all__:
        function = getattr(module, name)
        parameters = inspect.signature(function).parameters.values()
        lacking = [each.name for each in parameters if each.default is each.empty and each.name not in pool]
        if lacking:
            missing[name] = lacking
            continue
        arguments = {each.name: pool[each.name] for each in parameters if each.name in pool}
        try:
            outputs[name] = pool[name] = await function(**arguments)
        except PlugindError:
            raise
        except Exception as error:
            raise CalculationFailed(name, error) from error
    return Figures(outputs=outputs, missing=missing, plugin=f"{module.__name__}@{module.__version__}")


async def status(request: Request) -> dict[str, Any]:
    """How plugind is. 503 where it is not there."""
    client: AsyncClient = request.app.state.client
    found = await client.status()
    return {
        "plugind": found.daemon_version,
        "mode": found.mode,
        "runs_in_flight": found.runs_in_flight,
        "plugins": found.plugins,
        "tiers_that_cannot_run": found.unavailable_tiers,
        "problems": [problem for problem in (found.launcher_problem, found.ledger_problem) if problem],
    }


def status_of(error: PlugindError) -> int:
    """The HTTP status; the table is in the module's docstring."""
    if error.retryable:
        return 503
    if error.code in TOO_LARGE:
        return 413
    if error.code == "INPUT_INVALID":
        return 422
    if error.code in NOT_A_MATTER_OF_RULES:
        return 500
    return next((status for kind, status in STATUSES if isinstance(error, kind)), 500)


async def plugind_failed(request: Request, error: Exception) -> JSONResponse:
    """Any error of the client. What it says is for people: tell them all of it."""
    assert isinstance(error, PlugindError)
    body: dict[str, Any] = {
        "code": error.code,
        "message": str(error),
        "detail": error.detail,
        "audit_log": error.audit_log,
        "reasons": [
            {
                "code": each.code,
                "rule": each.rule,
                "expected": each.expected,
                "actual": each.actual,
                "remedy": each.remedy,
            }
            for each in error.reasons
        ],
    }
    if isinstance(error, PluginFailed):
        body |= {"type": error.type, "message": error.message}
    status = status_of(error)
    # The daemon's estimate, where it has one; whole seconds, RFC 9110.
    after_s = max(RETRY_AFTER_S, math.ceil(error.retry_after_ms / 1000))
    return JSONResponse(body, status, {"Retry-After": str(after_s)} if status == 503 else None)


async def calculation_failed(request: Request, error: Exception) -> JSONResponse:
    """What a generated function raised."""
    assert isinstance(error, CalculationFailed)
    return JSONResponse(error.body, 422)


app = create_app()
