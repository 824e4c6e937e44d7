"""A map: the results are exactly those of its items, whatever the plugin's process makes of them."""

from __future__ import annotations

import json
import math
import tempfile
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from plugind_proto.v1 import runtime_pb2, runtime_pb2_grpc
from tests.escapes.attack import OWN, attack
from tests.escapes.box import Box
from tests.support.plugins import folder

LIES = """
import array, json, os, sys, types
from plugind.sandbox.inside import batches, functions, runner

def honest(a, b=10):
    return [a, b]

def stop(a):
    raise StopIteration(a)

def stop_sometimes(a):
    return next(iter([a] if a % 2 else []))

def generator_exit(a):
    raise GeneratorExit

def system_exit(a):
    raise SystemExit(0)

def exit_group(a):
    os._exit(0)

def interrupt(a):
    raise KeyboardInterrupt

class Sly(int):
    def __repr__(self): return "forged"
    __str__ = __repr__
    def __lt__(self, other): return False
    def __len__(self): return 5

class Flighty(float):
    def __repr__(self): return "NaN], [1"
    def __float__(self): return 7.0

class Text(str):
    def __len__(self): return 10**9

class Dict(dict):
    def items(self): return [("x", 1)] * 3

class Nasty(Exception):
    def __str__(self): raise self
    __repr__ = __str__

class Named(type):
    @property
    def __name__(cls): raise SystemExit(3)

def int_subclass(a): return Sly(a)
def float_subclass(a): return Flighty(a)
def text_subclass(a): return Text("x")
def dict_subclass(a): return Dict(y=2)
def nasty(a): raise Nasty
def unnamed(a): raise Named("E", (Exception,), {})("x")
def deep(a):
    for _ in range(100000): a = [a]
    return a
def deeper(a):
    for _ in range(70): a = [a]
    return a
def twins(a): return {1: a, "1": a}
def wide(a): return [0] * 1_100_000
def round_and_round(a):
    found = []; found.append(found)
    return found
def surrogate(a): return "\\ud800"
def mixed(a): return [1.0, True, None, "x", {1: 2}, b"no"][int(a)]

def mutate(a, kept):
    kept.append(a); kept[0].clear()
    return kept

def rewrites_itself(a):
    rewrites_itself.__code__ = honest.__code__
    return a

swapped = types.FunctionType(honest.__code__.replace(co_varnames=("b", "a")), globals(), "swapped", (10,))
positional = types.FunctionType(honest.__code__.replace(co_posonlyargcount=1), globals(), "positional", (10,))
renamed = types.FunctionType(honest.__code__.replace(co_varnames=("a", "a")), globals(), "renamed", (10,))
starred = types.FunctionType((lambda *a, **b: [list(a), b]).__code__, globals(), "starred")

class _Function:
    __class__ = types.FunctionType
    __module__ = __name__
    __code__ = property(lambda self: (_ for _ in ()).throw(SystemExit(5)))
    def __call__(self, a): return a
no_function = _Function()

def patch_json(a):
    json.dumps = lambda *args, **named: '"forged"'
    return a

def patch_encode(a):
    batches.encode = functions.encode = lambda *args, **named: b'{"items":[]}'
    return a

def patch_describe(a):
    batches.describe = lambda error: {"type": "T" * 10**6, "message": 5, "traceback": None}
    raise ValueError(a)

def patch_array(a):
    batches.array = lambda kind, values: types.SimpleNamespace(tobytes=lambda: b"x" * 7)
    return 1.5

def patch_map(a):
    batches.map = lambda *args: iter([1, 2, 3, 4, 5, 6, 7])
    batches._columns = lambda *args: ({"rows": 10**9, "values": {"float64": -8}, "errors": [[-1, {}]]}, b"")
    return a

def grow(a):
    frame = sys._getframe()
    while "values" not in frame.f_locals: frame = frame.f_back
    frame.f_locals["values"].extend([a] * 3)
    return a

def shrink(a):
    frame = sys._getframe()
    while "values" not in frame.f_locals: frame = frame.f_back
    frame.f_locals["values"].clear()
    return a
"""
ITEMS = [b'{"attack":"sessions.say","arguments":{"value":5}}', b"{broken", b"[1]"]
"""Of which the first is taken for the attack, and the second is refused."""


def forged(*heads: Any, parts: bytes = b"") -> str:
    return (json.dumps({"items": list(heads)}).encode() + b"\n" + parts).decode("latin-1")


@pytest.fixture(scope="module")
def _liars(boxes: dict[int, Box]) -> dict[int, str]:
    return {tier: _install(box) for tier, box in boxes.items()}


def _install(box: Box) -> str:
    with tempfile.TemporaryDirectory() as parent:
        made = folder(
            Path(parent), f"lies_t{box.tier}", code=LIES, extra="[limits]\nwall_ms = 3000\noutput_bytes = 16000000\n"
        )
        text = (made / "plugin.toml").read_text()
        text = text.replace('"json"', '"functions"').replace(f'"lies_t{box.tier}:run"', f'"lies_t{box.tier}"')
        (made / "plugin.toml").write_text(text)
        return box.install(made)


@pytest.fixture
def liar(box: Box, _liars: dict[int, str]) -> str:
    """A plugin of functions that lie."""
    return _liars[box.tier]


@pytest.fixture(autouse=True)
def _unharmed(box: Box) -> Iterator[None]:
    """Afterwards nothing of it is left. That the next run is well the next test says."""
    yield
    assert box.left() == []
    assert box.client.runs() == []


def mapped(box: Box, plugin: str, *items: bytes | runtime_pb2.ColumnCalls) -> runtime_pb2.MapResponse:
    """A map as it goes over the wire; the audit says the same of it."""
    messages = [
        runtime_pb2.MapItem(input_json=item) if isinstance(item, bytes) else runtime_pb2.MapItem(columns=item)
        for item in items
    ]
    with grpc.insecure_channel(f"unix:{box.daemon.socket}") as channel:
        stub = runtime_pb2_grpc.RuntimeStub(channel)
        request = runtime_pb2.MapRequest(run=runtime_pb2.RunRequest(plugin=plugin), items=messages)
        answer: runtime_pb2.MapResponse = stub.Map(request, timeout=60)
    assert answer.run.decision == "allow", answer.run
    record = box.client.audit.get(answer.run.governance.audit_log).other
    assert record is not None
    assert (record.event, record.fields["outcome"]) == ("OUTCOME", answer.run.outcome)
    assert len(answer.results) == (len(items) if answer.run.outcome == "ok" else 0)
    return answer


def columns(function: str, *values: object, **constants: object) -> runtime_pb2.ColumnCalls:
    made = runtime_pb2.ColumnCalls(function=function, rows=len(values))
    made.arguments["a"].values_json = json.dumps(values).encode()
    for name, value in constants.items():
        made.arguments[name].constant_json = json.dumps(value).encode()
    return made


ERROR = {"kind": "E", "type": "E", "message": "m"}
NO_RESULTS = {
    "nothing": "",
    "no line": '{"items":[]}',
    "too few": forged({"json": 1}, {"refused": True}, parts=b"1"),
    "too many": forged({"json": 1}, {"refused": True}, {"json": 1}, {"json": 1}, parts=b"111"),
    "one for what was refused": forged({"json": 1}, {"json": 1}, {"json": 1}, parts=b"123"),
    "none for what was not": forged({"refused": True}, {"refused": True}, {"json": 1}, parts=b"1"),
    "negative lengths": forged({"json": 3}, {"refused": True}, {"json": -1}, parts=b"12"),
    "lengths that overlap": forged({"json": 2}, {"refused": True}, {"json": 2}, parts=b"123"),
    "a length of 2^63": forged({"json": 2**63}, {"refused": True}, {"json": 1}, parts=b"12"),
    "a length that is true": forged({"json": True}, {"refused": True}, {"json": 1}, parts=b"12"),
    "a length that is a float": forged({"json": 1.0}, {"refused": True}, {"json": 1}, parts=b"12"),
    "a length that is a text": forged({"json": "1"}, {"refused": True}, {"json": 1}, parts=b"12"),
    "something behind it": forged({"json": 1}, {"refused": True}, {"json": 1}, parts=b"123"),
    "columns for an input": forged(
        {"rows": 1, "values": {"float64": 8}, "errors": []}, {"refused": True}, {"json": 1}, parts=bytes(9)
    ),
    "an error of an unknown kind": forged({"error": ERROR | {"kind": "X"}}, {"refused": True}, {"json": 1}, parts=b"1"),
    "an error without a type": forged({"error": {"kind": "E"}}, {"refused": True}, {"json": 1}, parts=b"1"),
    "a thing that is no object": forged(7, {"refused": True}, [], parts=b""),
    "a hundred thousand objects": forged({"json": 1}, [{}] * 100_000, {"json": 1}, parts=b"11"),
    "a deep one": '{"items":' + "[" * 100_000 + "\n",
    "not UTF-8": '{"items":["\xff"]}\n',
    "two keys of one name": '{"items":[],"items":[{"json":1},{},{"json":1}]}\n11',
}


@attack(
    OWN,
    "forge the results of a map: more, fewer, for what was refused, lengths that overlap, are negative or no numbers",
    "they have to be exactly those of its items, or it is output_invalid",
)
@pytest.mark.parametrize("how", NO_RESULTS)
def test_forged_results_are_none(box: Box, how: str) -> None:
    call = {"attack": "results.results_of_a_map", "arguments": {"text": NO_RESULTS[how]}}
    answer = mapped(box, box._attacks({}), json.dumps(call).encode(), *ITEMS[1:])
    assert answer.run.outcome == "output_invalid", answer
    assert answer.run.outcome_detail


def test_results_of_its_own_making_are_still_held_against_everything(box: Box) -> None:
    """What has the right form is the plugin's answer, however it was made, as that of a run is."""
    text = forged({"json": 5}, {"anything": 1}, {"error": ERROR}, parts=b'"\xed"' + b"  ")
    call = {"attack": "results.results_of_a_map", "arguments": {"text": text}}
    one, two, three = mapped(box, box._attacks({}), json.dumps(call).encode(), *ITEMS[1:]).results
    assert "UTF-8" in one.error.output_invalid
    assert two.error.refused.reasons[0].code == "INPUT_INVALID"
    assert (three.error.raised.type, three.error.raised.message) == ("E", "m")


ROWS = {
    "stop": "raised",
    "stop_sometimes": "raised",
    "int_subclass": "values",
    "float_subclass": "any",
    "text_subclass": "any",
    "nasty": "raised",
    "deep": "invalid",
    "round_and_round": "invalid",
    "mixed": "any",
    "rewrites_itself": "any",
    "swapped": "any",
    "positional": "any",
    "renamed": "any",
    "starred": "any",
    "unnamed": "raised",
    "shrink": "any",
}


@attack(
    OWN,
    "in a column of calls: StopIteration, values that lie about themselves, functions whose code does, that call"
    " themselves something else or rewrite themselves, exceptions without a text, endless and circular values",
    "each row has a value or an error, and others theirs",
)
@pytest.mark.parametrize("function", ROWS)
def test_every_row_has_a_value_or_an_error(box: Box, liar: str, function: str) -> None:
    lying, honest = mapped(box, liar, columns(function, 0, 1, 2, 3), columns("honest", 1.5, "x")).results
    assert json.loads(honest.columns.values.values_json) == [[1.5, 10], ["x", 10]], "the others have theirs"
    assert not honest.columns.errors
    values = values_of(lying.columns)
    failed = {each.row: each.error.WhichOneof("kind") for each in lying.columns.errors}
    assert len(values) == 4
    assert set(failed) <= set(range(4))
    match ROWS[function]:
        case "raised":
            assert set(failed.values()) == {"raised"}
            assert len(failed) == (2 if function == "stop_sometimes" else 4)
        case "invalid":
            assert failed == dict.fromkeys(range(4), "output_invalid")
        case "values":
            assert not failed
    assert all(values[row] is None or math.isnan(values[row]) for row in failed)


def values_of(results: runtime_pb2.ColumnResults) -> list[Any]:
    if results.values.WhichOneof("kind") == "float64":
        return array("d", results.values.float64).tolist()
    return json.loads(results.values.values_json)


@pytest.mark.parametrize("function", ["honest", "swapped", "int_subclass", "stop_sometimes"])
def test_a_column_is_the_same_as_its_calls_one_by_one(box: Box, liar: str, function: str) -> None:
    calls = [json.dumps({"function": function, "arguments": {"a": value}}).encode() for value in range(4)]
    column, *singles = mapped(box, liar, columns(function, *range(4)), *calls).results
    values = values_of(column.columns)
    failed = {each.row: each.error.raised.type for each in column.columns.errors}
    for row, single in enumerate(singles):
        if single.HasField("error"):
            assert single.error.raised.type == failed.pop(row)
        else:
            assert json.loads(single.output_json) == values[row]
    assert not failed


WHOLE = {
    "generator_exit": ("failed", "GeneratorExit"),
    "system_exit": ("failed", "SystemExit"),
    "exit_group": ("output_invalid", "without a result"),
    "interrupt": ("failed", "KeyboardInterrupt"),
    "no_function": ("failed", ""),
    "patch_json": ("output_invalid", ""),
    "patch_encode": ("output_invalid", "expected the results of 3 items"),
    "patch_array": ("output_invalid", ""),
    "patch_map": ("output_invalid", ""),
    "grow": ("output_invalid", "expected a column of 4 results"),
}


@attack(
    OWN,
    "in a map: SystemExit, KeyboardInterrupt, GeneratorExit, os._exit, a patched json, array or runner",
    "what ends a program ends the map, failed; what the rest then says are no results of these items",
)
@pytest.mark.parametrize("function", WHOLE)
def test_what_spoils_all_of_it_ends_all_of_it(box: Box, liar: str, function: str) -> None:
    call = json.dumps({"function": "honest", "arguments": {"a": 1}}).encode()
    answer = mapped(box, liar, *[columns(function, 0, 1, 2, 3)] * 2, call)
    outcome, words = WHOLE[function]
    assert (answer.run.outcome, words in answer.run.outcome_detail) == (outcome, True), answer.run


@attack(
    OWN,
    "in a column: texts, keys and depths that are no strict JSON, or more than a front would parse",
    "that item has no output, and the others have theirs",
)
@pytest.mark.parametrize(
    ("function", "words"),
    [
        ("surrogate", "lone surrogate"),
        ("twins", "duplicate key"),
        ("dict_subclass", "duplicate key"),
        ("deeper", "64 levels"),
        ("wide", "values"),
    ],
)
def test_a_column_that_is_no_strict_json_is_that_item_s_error(box: Box, liar: str, function: str, words: str) -> None:
    one, two, three = mapped(
        box,
        liar,
        columns("honest", 1),
        columns(function, 0, 1),
        json.dumps({"function": function, "arguments": {"a": 1}}).encode(),
    ).results
    assert values_of(one.columns) == [[1, 10]]
    assert words in two.error.output_invalid
    assert words in three.error.output_invalid or function == "wide"


@attack(OWN, "change an argument that all rows of a map share", "each row has one of its own")
def test_what_is_the_same_in_all_rows_is_each_rows_own(box: Box, liar: str) -> None:
    one, two = mapped(box, liar, columns("mutate", 1, 2, 3, kept=[[5]]), columns("mutate", 1, kept=[[6]])).results
    assert values_of(one.columns) == [[[], 1], [[], 2], [[], 3]]
    assert values_of(two.columns) == [[[], 1]]


def test_an_error_of_a_patched_runner_is_checked_like_any_text(box: Box, liar: str) -> None:
    answer = mapped(box, liar, columns("patch_describe", 1, 2))
    assert (answer.run.outcome, answer.run.outcome_detail) == ("output_invalid", "an error of the batch is malformed")
