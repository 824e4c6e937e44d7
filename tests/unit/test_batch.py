"""A batch from the caller's items to their answers: through the code that the jail runs, and past what it could send."""

from __future__ import annotations

import json
import math
import struct
import sys
import textwrap
from array import array

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plugind import batch
from plugind.batch import Column, ColumnAnswer, ColumnCalls, InvalidBatchError, ItemError
from plugind.model import Code
from plugind.payload import Contract
from plugind.sandbox.inside import batches
from plugind.sandbox.inside.functions import Plugin
from plugind.schema import Schema
from plugind_client import bundling, source

CODE = """
def add(a: float, b: float = 1.0) -> float:
    return a + b

def divide(a: float, b: float) -> float:
    return a / b

def by_name(a: float, *, b: float) -> list:
    return [a, b]

def stops(a: float):
    if a > 1:
        raise StopIteration(f"at {a}")
    return a

def odd(a: float):
    return {1: 2.0, 2: object(), 3: "x" * 3, 4: None}.get(a, a)

def appends(a: float, kept: list):
    kept.append(a)
    return kept

def half() -> str:
    return "\\ud800"

def seven() -> int:
    return 7

def quits(a: float):
    raise SystemExit(int(a))
"""
FREE = Contract("functions", None, None)
MOST = 10_000_000


@pytest.fixture(scope="module")
def plugin(tmp_path_factory):
    folder = tmp_path_factory.mktemp("code")
    (folder / "made_for_batches.py").write_text(textwrap.dedent(CODE))
    sys.path.insert(0, str(folder))
    try:
        yield Plugin({"entrypoint": "made_for_batches", "interface": "functions"})
    finally:
        sys.path.remove(str(folder))
        sys.path.remove("/plugin")


def generated() -> Contract:
    """With the schema that a bundle of this code has."""
    text = json.dumps(bundling.input_schema(source.read(CODE, "code"))).encode()
    return Contract("functions", Schema.parse(text, "input"), None)


def floats(*values: float) -> Column:
    return Column("float64", array("d", values).tobytes())


def values(*given: object) -> Column:
    return Column("values", json.dumps(given).encode())


def constant(value: object) -> Column:
    return Column("constant", json.dumps(value).encode())


def calls(function: str, rows: int, **arguments: Column) -> ColumnCalls:
    return ColumnCalls(function, rows, arguments)


def evaluated(plugin, *items, contract=FREE):
    """Checked, encoded, answered by the jail's code, decoded."""
    refused = batch.check(contract, items, MOST, 2)
    return batch.decode(contract, items, refused, batches.answer(plugin, batch.encode(items, refused)))


def test_items_of_every_kind_come_back_in_their_order(plugin):
    one, two, three, four = evaluated(
        plugin,
        b'{"function": "add", "arguments": {"a": 1, "b": 2}}',
        calls("add", 3, a=floats(1, 2, 3), b=constant(0.5)),
        b'{"function": "divide", "arguments": {"a": 1, "b": 0}}',
        b'[{"function": "add", "arguments": {"a": 1}}]',
    )
    assert one == b"3"
    assert two == ColumnAnswer(floats(1.5, 2.5, 3.5))
    assert (three.raised.type, three.raised.message) == ("ZeroDivisionError", "division by zero")
    assert four == b"[2.0]"


def test_columns_of_every_kind_are_the_same_calls(plugin):
    wanted = [1.25, 2.5, 3.75]
    given = [floats(*wanted), values(*wanted), values(1.25, 2.5, 3.75)]
    assert [each.values for each in evaluated(plugin, *(calls("add", 3, a=a, b=constant(0.0)) for a in given))] == [
        floats(*wanted)
    ] * 3


def test_a_row_that_raises_is_that_rows_error_and_the_others_have_their_values(plugin):
    (answer,) = evaluated(plugin, calls("divide", 4, a=floats(1, 2, 3, 4), b=floats(1, 0, 2, 0)))
    found = array("d", answer.values.content)
    assert (found[0], found[2]) == (1.0, 1.5)
    assert math.isnan(found[1])
    assert [(row, error.raised.type) for row, error in answer.errors] == [
        (1, "ZeroDivisionError"),
        (3, "ZeroDivisionError"),
    ]


def test_stop_iteration_stops_one_row(plugin):
    (answer,) = evaluated(plugin, calls("stops", 4, a=floats(1, 2, 0.5, 3)))
    assert [row for row, _ in answer.errors] == [1, 3]
    assert answer.errors[0][1].raised.type == "StopIteration"
    assert array("d", answer.values.content)[2] == 0.5


def test_results_of_odd_types_are_told_row_by_row(plugin):
    (answer,) = evaluated(plugin, calls("odd", 5, a=values(0, 1, 2, 3, 4)))
    assert json.loads(answer.values.content) == [0, 2.0, None, "xxx", None]
    assert [(row, bool(error.output_invalid)) for row, error in answer.errors] == [(2, True)]


def test_parameters_by_name_only_get_their_column(plugin):
    (answer,) = evaluated(plugin, calls("by_name", 2, b=floats(3, 4), a=floats(1, 2)))
    assert json.loads(answer.values.content) == [[1.0, 3.0], [2.0, 4.0]]


def test_a_missing_argument_is_every_rows_own_type_error(plugin):
    (answer,) = evaluated(plugin, calls("divide", 2, b=floats(1, 2)))
    assert [error.raised.type for _, error in answer.errors] == ["TypeError", "TypeError"]


def test_a_function_without_parameters_has_rows_without_columns(plugin):
    answers = evaluated(plugin, calls("seven", 3), calls("divide", 2), contract=FREE)
    assert json.loads(answers[0].values.content) == [7, 7, 7]
    assert [error.raised.type for _, error in answers[1].errors] == ["TypeError", "TypeError"]
    (answer,) = evaluated(plugin, calls("seven", 1), contract=generated())
    assert answer.values == values(7)


def test_a_constant_that_can_be_changed_is_each_rows_own(plugin):
    (answer,) = evaluated(plugin, calls("appends", 3, a=floats(1, 2, 3), kept=constant([])))
    assert json.loads(answer.values.content) == [[1.0], [2.0], [3.0]]


def test_a_column_of_what_is_no_strict_json_is_that_items_error_alone(plugin):
    one, two = evaluated(plugin, calls("half", 2), calls("odd", 1, a=values(0)))
    assert "lone surrogate" in one.output_invalid
    assert two == ColumnAnswer(values(0))


def test_what_ends_a_program_ends_the_batch(plugin):
    with pytest.raises(SystemExit):
        evaluated(plugin, calls("quits", 1, a=floats(3)))


def test_an_unknown_function_is_that_items_error(plugin):
    answers = evaluated(plugin, calls("nix", 2, a=floats(1, 2)), calls("add", 1, a=floats(1)))
    assert answers[0].raised.type == "AttributeError"
    assert answers[1].values == floats(2)


@given(st.lists(st.floats(width=64), min_size=1, max_size=50))
def test_floats_are_the_same_bits_on_both_sides(plugin, numbers):
    (answer,) = evaluated(plugin, calls("stops", len(numbers), a=floats(*(min(number, 1.0) for number in numbers))))
    assert answer.values.content == array("d", [min(number, 1.0) for number in numbers]).tobytes()
    bits = struct.pack(f"<{len(numbers)}d", *(min(number, 1.0) for number in numbers))
    assert answer.values.content == bits


# --- what is refused before it runs ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("item", "told"),
    [
        (b"{", "line 1"),
        (b'{"function": "_add"}', "public function"),
        (b'{"function": "divide", "arguments": {"a": 1}}', "not valid"),
        (calls("nix", 1, a=floats(1)), "no function nix"),
        (calls("divide", 1, a=floats(1)), "parameter b has no column"),
        (calls("add", 1, a=floats(1), c=floats(1)), "c"),
        (calls("add", 2, a=floats(1)), "8 bytes of 2 doubles"),
        (calls("add", 2, a=values(1)), "1 values"),
        (calls("add", 1, a=values("x")), "at /0"),
        (calls("add", 1, a=Column("values", b"{}")), "no array"),
        (calls("add", 1, a=Column("values", b"[1")), "line 1"),
        (calls("add", 1, a=constant("x")), "in the column a"),
        (calls("add", 0), "0 rows"),
        (calls("add", batch.MOST_ROWS + 1), "rows"),
        (calls("no name", 1, a=floats(1)), "name of a public function"),
    ],
)
def test_what_does_not_fit_is_refused_alone_and_told(plugin, item, told):
    fine = b'{"function": "add", "arguments": {"a": 1, "b": 2}}'
    refused, answer = evaluated(plugin, item, fine, contract=generated())
    assert isinstance(refused, ItemError)
    assert refused.refused[0].code == Code.INPUT_INVALID
    assert told in " ".join(f"{reason.expected} {reason.actual}" for reason in refused.refused)
    assert answer == b"3"


BY_HAND = Contract("functions", Schema.parse(b'{"type": "object"}', "input"), None)
"""A schema that can be held against single calls only."""


@pytest.mark.parametrize(
    "items",
    [
        [calls("add", 100, a=constant(list(range(40_000))))],
        [calls("add", 1_000_000, a=constant(1))],
        [calls("add", 1, a=constant("x" * 6_000_000))] * 2,
        [calls("add", 61_000, a=floats(*[1.0] * 61_000))] * 4,
    ],
)
def test_few_bytes_are_not_held_against_the_schema_a_million_times(items):
    """One constant of 7 MB and two million rows would have taken a thread for two weeks."""
    refused = batch.check(BY_HAND, items, MOST, 2)
    assert "more, as single calls" in refused[len(items) - 1][0].actual
    assert batch.check(FREE, items, MOST, 2) == {}
    assert batch.check(BY_HAND, items[:-1], MOST, 2) == {}
    assert batch.check(BY_HAND, [calls("add", 1000, a=constant(1), b=floats(*[1.0] * 1000))], MOST, 2) == {}


def test_the_rows_of_all_items_count_together():
    items = [calls("add", batch.MOST_ROWS // 2, a=constant(1))] * 3
    assert list(batch.check(FREE, items, MOST, 2)) == [2]


def test_when_too_much_is_refused_it_is_not_looked_on_and_nothing_runs():
    refused = batch.check(FREE, [b"{", b"["] * batch.MOST_TOLD, MOST, 2)
    assert len(refused) == batch.MOST_TOLD + 1
    assert batch.too_many(refused)
    assert not batch.too_many(batch.check(FREE, [b"{"] * batch.MOST_TOLD, MOST, 2))


def test_what_is_refused_is_not_in_the_batch():
    items = [b'{"function": "add", "arguments": {"a": "secret"}}', calls("add", 1, a=constant("secret"))]
    refused = batch.check(generated(), items, MOST, 2)
    assert sorted(refused) == [0, 1]
    assert b"secret" not in batch.encode(items, refused)


def test_columns_are_for_functions():
    contract = Contract("json", Schema.parse(b"true", "input"), Schema.parse(b"true", "output"))
    (reasons,) = batch.check(contract, [calls("add", 1, a=floats(1))], MOST, 2).values()
    assert "interface is json" in reasons[0].actual


def test_an_output_that_breaks_the_schema_is_that_items_or_rows_error(plugin):
    contract = Contract("functions", None, Schema.parse(b'{"type": "number", "maximum": 10}', "output"))
    one, two, three = evaluated(
        plugin,
        b'{"function": "add", "arguments": {"a": 1, "b": 2}}',
        b'{"function": "add", "arguments": {"a": 10, "b": 2}}',
        calls("add", 3, a=floats(1, 20, 3), b=constant(1.0)),
        contract=contract,
    )
    assert one == b"3"
    assert "maximum" in two.output_invalid
    assert [(row, "maximum" in error.output_invalid) for row, error in three.errors] == [(1, True)]


# --- what a plugin's process could send instead ----------------------------------------------------------------------

ITEMS = (b"1", calls("add", 2, a=floats(1, 2)))
GOOD = b'{"items":[{"json":1},{"rows":2,"values":{"float64":16},"errors":[]}]}\n3' + floats(4, 5).content


def test_the_forged_results_below_are_forged():
    assert batch.decode(FREE, ITEMS, {}, GOOD) == [b"3", ColumnAnswer(floats(4, 5))]


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"\n",
        b"[]\n",
        b'{"items":[]}\n',
        GOOD[:-1],
        GOOD + b"x",
        GOOD.replace(b'"json":1', b'"json":-1'),
        GOOD.replace(b'"json":1', b'"json":true'),
        GOOD.replace(b'"json":1', b'"json":99999999999999999999'),
        GOOD.replace(b'"json":1', b'"json":1.0'),
        GOOD.replace(b'"json":1', b'"refused":true'),
        GOOD.replace(b'{"json":1}', b'{"error":{"kind":"X","type":"a","message":"b"}}'),
        GOOD.replace(b'{"json":1}', b'{"error":{"kind":"E","type":1,"message":"b"}}'),
        GOOD.replace(b'"rows":2', b'"rows":1'),
        GOOD.replace(b'"rows":2', b'"rows":3'),
        GOOD.replace(b'"float64":16', b'"float64":8'),
        GOOD.replace(b'"float64":16', b'"constant":16'),
        GOOD.replace(b'"float64":16', b'"float64":16,"values":0'),
        GOOD.replace(b'"errors":[]', b'"errors":[[2,{"kind":"E","type":"a","message":"b"}]]'),
        GOOD.replace(b'"errors":[]', b'"errors":[[-1,{"kind":"E","type":"a","message":"b"}]]'),
        GOOD.replace(b'"errors":[]', b'"errors":[[0,{"kind":"E","type":"a","message":"b"}],[0,{}]]'),
        GOOD.replace(b'"errors":[]', b'"errors":[[true,{"kind":"E","type":"a","message":"b"}]]'),
        GOOD.replace(b'"errors":[]', b'"errors":[[1.0,{"kind":"E","type":"a","message":"b"}]]'),
        GOOD.replace(b'"errors":[]', b'"errors":[0]'),
        GOOD.replace(b'"errors":[]', b'"errors":{}'),
    ],
)
def test_forged_results_are_none(text):
    with pytest.raises(InvalidBatchError):
        batch.decode(FREE, ITEMS, {}, text)


def test_a_head_of_more_values_than_its_items_can_have_is_not_parsed():
    """16 MB of small objects would take twenty times as much memory."""
    head = b'{"items":[' + b",".join([b'{"":{}}'] * 1000) + b"]}\n"
    with pytest.raises(InvalidBatchError, match="expected at most"):
        batch.decode(FREE, ITEMS, {}, head)
    failed = [[row, {"kind": "E", "type": "", "message": ""}] for row in range(2)]
    error = {"error": {"kind": "E", "type": "", "message": ""}}
    text = json.dumps({"items": [error, {"rows": 2, "values": {"values": 11}, "errors": failed}]}).encode()
    _, answer = batch.decode(FREE, ITEMS, {}, text + b"\n[null,null]")
    assert len(answer.errors) == 2, "all that there can be"


@pytest.mark.parametrize("count", [1, 3])
def test_a_list_of_calls_has_as_many_results(count):
    items = [b' [{"function": "f"}, {"function": "g"}]']
    shown = json.dumps([1] * count).encode()
    (answer,) = batch.decode(FREE, items, {}, b'{"items":[{"json":%d}]}\n' % len(shown) + shown)
    assert "expected a list of 2" in answer.output_invalid


def test_more_outputs_that_are_none_than_can_be_told_are_no_results():
    contract = Contract("functions", None, Schema.parse(b'{"type": "number"}', "output"))
    for rows in (batch.MOST_TOLD, batch.MOST_TOLD + 1):
        shown = json.dumps(["x" * 2000] * rows).encode()
        text = b'{"items":[{"rows":%d,"values":{"values":%d},"errors":[]}]}\n' % (rows, len(shown)) + shown
        items = [calls("add", rows, a=constant(1))]
        if rows > batch.MOST_TOLD:
            with pytest.raises(InvalidBatchError, match=f"more than {batch.MOST_TOLD}"):
                batch.decode(contract, items, {}, text)
        else:
            (answer,) = batch.decode(contract, items, {}, text)
            assert len(answer.errors) == rows
            assert max(len(error.output_invalid) for _, error in answer.errors) <= 512


def test_a_row_that_failed_is_not_held_against_the_schema(plugin):
    contract = Contract("functions", None, Schema.parse(b'{"type": "number"}', "output"))
    (answer,) = evaluated(plugin, calls("odd", 2, a=values(2, 5)), contract=contract)
    assert [(row, "no JSON" in error.output_invalid) for row, error in answer.errors] == [(0, True)]
    (answer,) = evaluated(plugin, calls("divide", 2, a=values(2, "x"), b=constant(0)), contract=contract)
    assert [error.raised.type for _, error in answer.errors] == ["ZeroDivisionError", "TypeError"]


@given(st.binary(max_size=300))
def test_any_bytes_are_results_or_told(text):
    try:
        answers = batch.decode(FREE, ITEMS, {}, text)
    except InvalidBatchError as error:
        answers, told = [], str(error)
    else:
        told = ""
    assert (len(answers) == len(ITEMS)) != bool(told)
    assert len(told) < 5000


def test_half_a_surrogate_pair_in_an_error_can_be_sent():
    text = GOOD.replace(b'{"json":1}', b'{"error":{"kind":"E","type":"a","message":"\\ud800"}}').replace(b"\n3", b"\n")
    with pytest.raises(InvalidBatchError):  # strict JSON has none
        batch.decode(FREE, ITEMS, {}, text)
