"""Many payloads in one call: what is sent, what each gives, and columns that come back bit for bit."""

import copy
import json
import math
import pickle
import struct
from array import array

import numpy as np
import pytest

from plugind_client import (
    AsyncClient,
    Client,
    ColumnResult,
    Columns,
    Denied,
    Fault,
    InvalidRequest,
    LimitExceeded,
    MapResult,
    OutputInvalid,
    PluginFailed,
    columns,
)
from plugind_proto.v1 import runtime_pb2
from tests.support.fake_daemon import FakeDaemon, allowed, denied, ended
from tests.unit.test_client_calls import Awaited

ZERO_DIVISION = runtime_pb2.PluginError(type="ZeroDivisionError", message="division by zero", traceback="tb")
BITS = [
    0x7FF8000000000000,  # NaN as Python makes it
    0xFFF8000000000ABC,  # NaN with a sign and a payload
    0x7FF0000000000001,  # a signaling NaN
    0x8000000000000000,  # -0.0
    0x0000000000000001,  # the smallest subnormal
    0x7FF0000000000000,  # infinity
    0x3FB999999999999A,  # 0.1
]


def double(bits):
    return struct.unpack("<d", struct.pack("<Q", bits))[0]


@pytest.fixture
def daemon(tmp_path):
    with FakeDaemon(str(tmp_path / "d.sock")) as daemon:
        yield daemon


@pytest.fixture(params=[Client, Awaited], ids=["sync", "async"])
def client(daemon, request):
    with request.param(daemon.socket) as client:
        yield client


def by_input(answers):
    """Answers by the input's text; anything else comes back as it is."""
    return lambda request, _: answers.get(request.input_json, allowed(request.input_json))


# --- payloads ------------------------------------------------------------------------------------------------------


def test_outputs_come_in_order_with_what_is_known_of_the_whole(daemon, client):
    result = client.map("echo", ({"n": number} for number in range(1000)), stage="durations", timeout_ms=700)
    assert type(result) is MapResult
    assert (len(result), result[3], result[-1]) == (1000, {"n": 3}, {"n": 999})
    assert result.outputs == list(result) == [{"n": number} for number in range(1000)]
    assert result[:2] == [{"n": 0}, {"n": 1}]
    assert (result.errors, result.outcome, result.run_id, result.version) == ({}, "ok", "r1", "1.0.0")
    assert (result.audit_log, result.governance.plugin_id, result.usage.wall_ms) == ("log_7", "plug_1", 12)
    assert (result.violations, result.stdout, result.stderr, result.run.output) == ((), "", "", None)
    sent = daemon.last("MapRequest")
    assert sent.run == runtime_pb2.RunRequest(plugin="echo", stage="durations", timeout_ms=700)
    assert [item.input_json for item in sent.items[:2]] == [b'{"n":0}', b'{"n":1}']


def test_each_failed_payload_has_its_own_error_and_stops_nothing(daemon, client):
    daemon.answers["p"] = by_input(
        {
            b"1": ended("failed", error=ZERO_DIVISION),
            b"2": ended("output_invalid", "no number"),
            b"3": denied("INPUT_INVALID", "INPUT_TOO_LARGE"),
        }
    )
    result = client.map("p", range(5))
    assert (result[0], result[4]) == (0, 4)
    with pytest.raises(PluginFailed) as failed:
        result[1]
    assert (failed.value.type, failed.value.message, failed.value.traceback) == (
        "ZeroDivisionError",
        "division by zero",
        "tb",
    )
    assert (failed.value.code, failed.value.audit_log, failed.value.result) == ("failed", "log_7", result.run)
    with pytest.raises(OutputInvalid) as invalid:
        result[2]
    assert invalid.value.detail == "no number"
    with pytest.raises(Denied) as refused:
        result[-2]
    assert [reason.code for reason in refused.value.reasons] == ["INPUT_INVALID", "INPUT_TOO_LARGE"]
    assert {index: type(error) for index, error in result.errors.items()} == {
        1: PluginFailed,
        2: OutputInvalid,
        3: Denied,
    }
    for _ in range(2):
        with pytest.raises(PluginFailed) as first:
            _ = result.outputs
        assert len(first.traceback) < 6  # not one more each time
    with pytest.raises(PluginFailed):
        result[:2]
    again = pickle.loads(pickle.dumps(result))
    assert (again[0], again.errors[1].type, vars(again.errors[1])) == (0, "ZeroDivisionError", vars(result.errors[1]))


@pytest.mark.parametrize(
    "answer,kind",
    [
        (denied("NOT_APPROVED"), Denied),
        (ended("timeout", "5 s"), LimitExceeded),
        (ended("failed", "exit 3"), PluginFailed),
    ],
)
def test_bad_end_of_the_whole_is_raised_as_run_raises_it(daemon, client, answer, kind):
    daemon.answers["p"] = by_input({b"1": answer})
    with pytest.raises(kind) as raised:
        client.map("p", [0, 1, 2])
    assert raised.value.result.governance.audit_log == "log_7"


@pytest.mark.parametrize("payloads", [[], (), iter(())])
def test_no_payload_is_refused_before_anything_is_sent(daemon, client, payloads):
    with pytest.raises(InvalidRequest) as raised:
        client.map("echo", payloads)
    assert "at least one" in raised.value.detail
    assert daemon.requests == []


def test_payload_that_json_cannot_say_is_refused_before_anything_is_sent(daemon, client):
    with pytest.raises(InvalidRequest) as raised:
        client.map("echo", [1, {2}])
    assert (raised.value.code, daemon.requests) == ("PAYLOAD_NOT_JSON", [])


@pytest.mark.parametrize(
    "results",
    [
        [],
        [runtime_pb2.MapResult()],
        [runtime_pb2.MapResult(output_json=b"1")] * 2,
        [runtime_pb2.MapResult(output_json=b"{")],
    ],
    ids=["none", "empty", "too many", "no JSON"],
)
def test_answer_that_does_not_fit_is_a_fault(daemon, client, results):
    daemon.maps["p"] = lambda *_: runtime_pb2.MapResponse(run=allowed(b""), results=results)
    with pytest.raises(Fault) as raised:
        client.map("p", [1])[0]
    assert raised.value.code == "BAD_ANSWER"


# --- modules -------------------------------------------------------------------------------------------------------

TEXT = "def half(x: float, by: float = 2.0) -> float:\n    return x / by\n"


def test_module_gives_its_version_and_what_it_was_loaded_for(daemon):
    daemon.runs_synthesized = True
    daemon.answers["halves"] = by_input({})
    with Client(daemon.socket) as client:
        module = client.load_source(TEXT, name="halves", stage="premortem", plan_id="p1", timeout_ms=300)
        client.map(module, [1])
        sent = daemon.last("MapRequest").run
        assert (sent.plugin, sent.version, sent.stage) == ("halves", module.__version__, "premortem")
        assert (sent.plan_id, sent.timeout_ms, sent.sensitivity) == ("p1", 300, "")
        client.map(module, [1], stage="other", sensitivity="public", timeout_ms=5000)
        sent = daemon.last("MapRequest").run
        assert (sent.stage, sent.plan_id, sent.sensitivity, sent.timeout_ms) == ("other", "p1", "public", 5000)
    assert copy.deepcopy(module) is module


# --- columns -------------------------------------------------------------------------------------------------------


def calls(daemon):
    """The columns that were sent last, by name: kind and content."""
    sent = daemon.last("MapRequest").items[0].columns
    return {
        name: (column.WhichOneof("kind"), getattr(column, column.WhichOneof("kind")))
        for name, column in sent.arguments.items()
    }


def of_arguments(compute):
    """A function plugin: what it computes of a call's arguments, or the exception that it raises."""

    def answer(request, _):
        try:
            return allowed(json.dumps(compute(**json.loads(request.input_json)["arguments"])).encode())
        except ArithmeticError as error:
            told = runtime_pb2.PluginError(type=type(error).__name__, message=str(error))
            return ended("failed", error=told)

    return answer


FLOATS = [1.5, -2.25, 1e300]


@pytest.mark.parametrize(
    "column,kind,content",
    [
        (FLOATS, "float64", struct.pack("<3d", *FLOATS)),
        (tuple(FLOATS), "float64", struct.pack("<3d", *FLOATS)),
        (array("d", FLOATS), "float64", struct.pack("<3d", *FLOATS)),
        (memoryview(array("d", FLOATS)), "float64", struct.pack("<3d", *FLOATS)),
        (np.array(FLOATS), "float64", struct.pack("<3d", *FLOATS)),
        (np.array([*FLOATS, *FLOATS])[::2], "float64", struct.pack("<3d", FLOATS[0], FLOATS[2], FLOATS[1])),
        (np.array(FLOATS, dtype=">f8"), "float64", struct.pack("<3d", *FLOATS)),
        (np.array([0.5, 2, 3], dtype=np.float32), "float64", struct.pack("<3d", 0.5, 2, 3)),
        (np.array([1, 2, 3]), "values_json", b"[1,2,3]"),
        (np.array([True, False, True]), "values_json", b"[true,false,true]"),
        (array("q", [1, 2, 2**62]), "values_json", b"[1,2,4611686018427387904]"),
        ([1.0, 2, 3.0], "values_json", b"[1.0,2,3.0]"),
        ([1.0, True, 3.0], "values_json", b"[1.0,true,3.0]"),
        ([1.0, None, "a"], "values_json", b'[1.0,null,"a"]'),
        ([[1], {}, []], "values_json", b"[[1],{},[]]"),
        ([np.float64(1.5), 2.5, 3.5], "values_json", b"[1.5,2.5,3.5]"),
        ("abc", "constant_json", b'"abc"'),
        (2.5, "constant_json", b"2.5"),
        (np.float64(2.5), "constant_json", b"2.5"),
        (True, "constant_json", b"true"),
        (None, "constant_json", b"null"),
        ({"a": [1, 2, 3]}, "constant_json", b'{"a":[1,2,3]}'),
    ],
    ids=lambda value: "memoryview" if isinstance(value, memoryview) else repr(value),  # its repr is never the same
)
def test_what_is_a_column_and_how_it_is_sent(daemon, client, column, kind, content):
    daemon.answers["p"] = of_arguments(lambda **_: 1.0)
    given = Columns("f", {"x": column, "rows": [0, 0, 0]})
    assert given.rows == 3
    assert client.map("p", [given]).outputs[0].values == array("d", [1.0] * 3)
    assert calls(daemon)["x"] == (kind, content)
    sent = daemon.last("MapRequest").items[0].columns
    assert (sent.function, sent.rows) == ("f", 3)


@pytest.mark.parametrize(
    "make", [list, tuple, lambda x: array("d", x), np.array], ids=["list", "tuple", "array", "numpy"]
)
def test_floats_come_back_bit_for_bit(daemon, client, make):
    def echoed(request, context):
        """What is given, without a detour over JSON: as the daemon does with doubles."""
        daemon.requests.append(request)
        column = request.items[0].columns.arguments["x"]
        result = runtime_pb2.MapResult(columns=runtime_pb2.ColumnResults(values=column))
        return runtime_pb2.MapResponse(run=allowed(b""), results=[result])

    daemon.maps["p"] = echoed
    (result,) = client.map("p", [Columns("same", {"x": make([double(bits) for bits in BITS])})])
    assert type(result) is ColumnResult
    assert isinstance(result.values, array)
    assert [struct.unpack("<Q", struct.pack("<d", value))[0] for value in result.values] == BITS
    assert list(struct.unpack(f"<{len(BITS)}Q", calls(daemon)["x"][1])) == BITS


def test_rows_that_fail_have_their_errors_and_the_others_their_values(daemon, client):
    daemon.answers["p"] = of_arguments(lambda a, b: a / b)
    (result,) = client.map("p", [Columns("divide", {"a": [1.0, 2.0, 3.0, 4.0], "b": [2.0, 0.0, 4.0, 0.0]})])
    assert (len(result), result[0], result[2], result[-2]) == (4, 0.5, 0.75, 0.75)
    assert math.isnan(result.values[1])
    assert {row: error.type for row, error in result.errors.items()} == dict.fromkeys((1, 3), "ZeroDivisionError")
    for row in (1, -1, slice(0, 2)):
        with pytest.raises(PluginFailed) as failed:
            result[row]
        assert (failed.value.type, failed.value.audit_log) == ("ZeroDivisionError", "log_7")
    assert result[::2] == [0.5, 0.75]
    with pytest.raises(IndexError):
        result[4]


def test_results_that_are_not_all_floats_are_a_list(daemon, client):
    daemon.answers["p"] = of_arguments(lambda a: [a] if a > 1 else 1 // a)
    (result,) = client.map("p", [Columns("f", {"a": [1, 0, 2]})])
    assert result.values == [1, None, [2]]
    assert (list(result.errors), result[2]) == ([1], [2])


def test_columns_and_payloads_may_be_mixed(daemon, client):
    daemon.answers["p"] = of_arguments(lambda x: x)
    one = {"function": "f", "arguments": {"x": "one"}}
    first, second, third = client.map("p", [Columns("f", {"x": [1.0, 2.0]}), one, Columns("f", {"x": ["a"]})])
    assert (list(first), second, third.values) == ([1.0, 2.0], "one", ["a"])


@pytest.mark.parametrize(
    "arguments,told",
    [
        ({"a": [1.0], "b": [1.0, 2.0], "c": 3}, "a has 1, b has 2"),
        ({"a": 1.0, "b": "abc"}, "got none"),
        ({}, "got none"),
        ({"a": np.zeros((2, 2))}, "a: expected a column of one dimension, got 2"),
    ],
)
def test_columns_that_do_not_fit_together_are_refused_when_they_are_made(arguments, told):
    with pytest.raises(InvalidRequest) as raised:
        Columns("f", arguments)
    assert told in raised.value.detail


@pytest.mark.parametrize(
    "column", [np.array(["a", "b"]), np.array([1j, 2j]), b"ab", [{1}, 2], np.array(["2026-01-01"] * 2, "datetime64[D]")]
)
def test_values_that_json_has_not_are_refused_before_anything_is_sent(daemon, client, column):
    with pytest.raises(InvalidRequest) as raised:
        client.map("p", [Columns("f", {"x": [1, 2], "y": column})])
    assert raised.value.detail
    assert daemon.requests == []


def test_column_that_changed_its_length_is_refused(daemon, client):
    values = [1.0, 2.0]
    given = Columns("f", {"x": values, "y": [1.0, 2.0]})
    values.append(3.0)
    with pytest.raises(InvalidRequest, match="accept"):
        client.map("p", [given])
    assert daemon.requests == []


@pytest.mark.parametrize(
    "column",
    [
        runtime_pb2.Column(float64=b"1234567"),
        runtime_pb2.Column(float64=bytes(24)),
        runtime_pb2.Column(values_json=b"{}"),
        runtime_pb2.Column(values_json=b"[1]"),
        runtime_pb2.Column(),
    ],
    ids=["half a double", "too many", "no array", "too few", "nothing"],
)
def test_result_that_is_no_column_is_a_fault(daemon, client, column):
    result = runtime_pb2.MapResult(columns=runtime_pb2.ColumnResults(values=column))
    daemon.maps["p"] = lambda *_: runtime_pb2.MapResponse(run=allowed(b""), results=[result])
    with pytest.raises(Fault) as raised:
        client.map("p", [Columns("f", {"x": [1, 2]})])
    assert raised.value.code == "BAD_ANSWER"


def test_bytes_are_turned_where_a_machine_has_them_the_other_way_round():
    """The arithmetic that a big-endian machine would do."""
    turned = columns._little(struct.pack(">2d", 1.5, -2.0), "big")
    assert turned == struct.pack("<2d", 1.5, -2.0)
    assert columns._little(turned, "little") is turned


async def test_async_map_is_awaited(daemon):
    async with AsyncClient(daemon.socket) as client:
        assert (await client.map("echo", [1, 2])).outputs == [1, 2]
