"""The FastAPI example without a daemon: what it answers, and which HTTP status an error of plugind becomes."""

import contextlib
from types import SimpleNamespace

import httpx
import pytest

from plugind_client import (
    Canceled,
    Conflict,
    Denied,
    Fault,
    InvalidRequest,
    InvalidSource,
    Killed,
    LimitExceeded,
    NotAllowed,
    NotFound,
    OutputInvalid,
    PluginFailed,
    Unavailable,
    Violated,
)
from plugind_client.testing import AsyncFakeClient
from tests.support.planexe_example import module_of, service

SOURCE = """
def total(price: float, count: float = 2) -> float:
    return price * count

def left(budget: float, total: float) -> float:
    return budget - total

def share(total: float, visitors: float) -> float:
    return total / visitors
"""


def evaluated(call):
    return getattr(module_of(SOURCE), call["function"])(**call["arguments"])


@contextlib.asynccontextmanager
async def served(fake):
    app = service.create_app(lambda: fake)
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://service") as http,
    ):
        yield http


async def loaded():
    """A fake that answers as the functions of SOURCE."""
    fake = AsyncFakeClient()
    module = await fake.load_source(SOURCE, stage="premortem")
    fake.answers(f"{module.__name__}@{module.__version__}", evaluated)
    return fake, f"{module.__name__}@{module.__version__}"


async def posted(fake, source=SOURCE, **inputs):
    async with served(fake) as http:
        return await http.post("/napkin", json={"source": source, "inputs": inputs})


async def test_figures_feed_each_other_and_what_lacks_an_input_is_named():
    fake, plugin = await loaded()
    answer = await posted(fake, price=3, budget=10)
    assert answer.status_code == 200
    assert answer.json() == {"outputs": {"total": 6, "left": 4}, "missing": {"share": ["visitors"]}, "plugin": plugin}


async def test_what_a_function_raises_is_422_with_its_name():
    fake, _ = await loaded()
    answer = await posted(fake, price=3, visitors=0)
    assert answer.status_code == 422
    assert answer.json() == {
        "code": "failed",
        "function": "share",
        "type": "ZeroDivisionError",
        "message": "division by zero",
    }


async def test_source_that_is_none_is_422_with_its_place():
    answer = await posted(AsyncFakeClient(), source="def f(:\n    pass\n")
    assert answer.status_code == 422
    assert answer.json()["code"] == "INVALID_SOURCE"
    assert "1:" in answer.json()["detail"]


async def test_a_denial_is_403_with_every_reason():
    fake, plugin = await loaded()
    fake.denies(plugin, "NOT_APPROVED", "STAGE_NOT_ALLOWED")
    answer = await posted(fake, price=3)
    assert answer.status_code == 403
    assert [reason["code"] for reason in answer.json()["reasons"]] == ["NOT_APPROVED", "STAGE_NOT_ALLOWED"]
    assert answer.json()["audit_log"].startswith("log_")


async def test_what_passes_by_itself_is_503_with_a_time():
    fake, plugin = await loaded()
    fake.denies(plugin, "BUSY")
    answer = await posted(fake, price=3)
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "2")
    fake, _ = await loaded()
    fake.goes_away()
    async with served(fake) as http:
        answer = await http.get("/status")
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "2")
    assert answer.json()["code"] == "UNAVAILABLE"


async def test_where_the_daemon_knows_when_it_is_that_time():
    error = Denied("BUSY")
    error.result = SimpleNamespace(retry_after_ms=4200, audit_log="log_1", governance=None)
    answer = await service.plugind_failed(None, error)
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "5")


async def test_an_exception_of_its_own_type_and_a_limit_are_422():
    fake, plugin = await loaded()

    class NapkinError(Exception):
        pass

    fake.answers(plugin, NapkinError("of its own"))
    answer = await posted(fake, price=3)
    assert answer.status_code == 422
    assert (answer.json()["type"], answer.json()["message"]) == ("NapkinError", "of its own")

    fake, plugin = await loaded()
    fake.ends(plugin, "cpu_exceeded")
    answer = await posted(fake, price=3)
    assert (answer.status_code, answer.json()["code"]) == (422, "cpu_exceeded")
    assert "Retry-After" not in answer.headers


@pytest.mark.parametrize(
    "error,expected",
    [
        (Denied("KILLED"), 403),
        (Denied("INPUT_INVALID"), 422),
        (Denied("INPUT_TOO_LARGE"), 413),
        (Denied("ISOLATION_UNAVAILABLE"), 503),
        (Denied("AUDIT_UNAVAILABLE"), 500),
        (NotAllowed("NOT_ALLOWED"), 403),
        (Killed("killed"), 403),
        (Violated("violation"), 403),
        (PluginFailed("failed"), 422),
        (OutputInvalid("output_invalid"), 422),
        (LimitExceeded("timeout"), 422),
        (InvalidSource("INVALID_SOURCE"), 422),
        (InvalidRequest("INVALID_REQUEST"), 400),
        (InvalidRequest("REQUEST_TOO_LARGE"), 413),
        (NotFound("NOT_FOUND"), 404),
        (Conflict("CONFLICT"), 409),
        (Unavailable("NO_ANSWER"), 503),
        (Fault("fault"), 503),
        (Fault("BAD_ANSWER"), 500),
        (Canceled("canceled"), 500),
    ],
    ids=lambda value: getattr(value, "code", value),
)
def test_the_status_of_every_error(error, expected):
    assert service.status_of(error) == expected


async def test_the_client_is_closed_with_the_service():
    fake, _ = await loaded()
    async with served(fake) as http:
        answer = await http.get("/status")
        assert answer.status_code == 200
        assert (answer.json()["mode"], answer.json()["problems"]) == ("dev", [])
    with pytest.raises(InvalidRequest):
        await fake.status()
