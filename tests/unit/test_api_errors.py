"""Every error has its status, and reasons travel in the trailing metadata."""

from __future__ import annotations

import json

import grpc
import pytest

from plugind import errors
from plugind.__main__ import EXIT_CODES
from plugind.api.errors import STATUS, abort, encode_reasons, reasons_of, status_of
from plugind.errors import InvalidBundleError, IsolationUnavailableError, PlugindError


def classes(kind):
    yield kind
    for below in kind.__subclasses__():
        yield from classes(below)


ERRORS = [kind for kind in classes(PlugindError) if kind.__module__ == errors.__name__ and kind is not PlugindError]


@pytest.mark.parametrize("kind", ERRORS)
def test_every_error_is_mapped(kind):
    assert kind in STATUS


def test_nothing_else_is_mapped():
    assert set(STATUS) == set(ERRORS)
    assert set(EXIT_CODES) <= set(ERRORS)


def test_an_error_of_a_later_day_has_the_status_of_the_class_above():
    class NewError(errors.ConflictError):
        pass

    assert status_of(NewError("x")) is grpc.StatusCode.FAILED_PRECONDITION
    assert status_of(PlugindError("x")) is grpc.StatusCode.INTERNAL


class Context:
    async def abort(self, code, details, trailing_metadata):
        self.told = code, details, trailing_metadata
        raise grpc.aio.AbortError


async def told(error):
    context = Context()
    with pytest.raises(grpc.aio.AbortError):
        await abort(context, error)
    return context.told


async def test_all_problems_of_a_bundle_are_reasons():
    code, details, metadata = await told(InvalidBundleError("plugin.toml: name: missing", "code.py: not listed"))
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert details == "plugin.toml: name: missing; code.py: not listed"
    ((key, value),) = metadata
    assert key == "plugind-reasons-bin"
    first, second = json.loads(value)
    assert set(first) == {"code", "rule", "expected", "actual", "remedy"}
    assert (first["actual"], second["actual"]) == ("plugin.toml: name: missing", "code.py: not listed")


async def test_an_error_without_reasons_has_no_metadata():
    assert await told(errors.NotFoundError("no plugin x")) == (grpc.StatusCode.NOT_FOUND, "no plugin x", ())


def test_a_step_of_the_jail_is_named():
    (reason,) = reasons_of(IsolationUnavailableError("seccomp", "EPERM"))
    assert (reason["code"], reason["rule"]) == ("ISOLATION_UNAVAILABLE", "seccomp")


def test_reasons_fit_into_metadata():
    many = [{"code": "X", "actual": "y" * 100} for _ in range(1000)]
    data = encode_reasons(many)
    assert len(data) <= 6 * 1024
    assert json.loads(data) == many[: len(json.loads(data))]
    assert json.loads(encode_reasons([{"code": "x" * 10000}])) == []
