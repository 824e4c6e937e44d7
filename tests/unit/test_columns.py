"""Columns held against schemas: the quick way says what the slow way says, which asks the validator row by row."""

from __future__ import annotations

import json
from array import array

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plugind import columns
from plugind.columns import ColumnChecks
from plugind.schema import Schema
from plugind_client import bundling, source

CODE = "def f(a: float, b: int = 1, **more: bool): ...\ndef g(): ...\ndef h(a: str, b: list[float], c): ...\n"
DOCUMENT = bundling.input_schema(source.read(CODE, "code"))
SCHEMA = Schema.parse(json.dumps(DOCUMENT).encode(), "input")
CHECKS = ColumnChecks(SCHEMA, None)

JSON = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.text(max_size=3),
    st.lists(st.floats(), max_size=2),
    st.dictionaries(st.text(max_size=2), st.integers(), max_size=2),
)
ROWS = 3
COLUMN = st.lists(JSON, min_size=ROWS, max_size=ROWS) | st.lists(st.floats(), min_size=ROWS, max_size=ROWS).map(
    lambda numbers: array("d", numbers)
)
NAMES = st.sampled_from(["a", "b", "c", "more", "x"])


@given(st.sampled_from(["f", "g", "h", "k"]), st.dictionaries(NAMES, COLUMN), st.dictionaries(NAMES, JSON))
def test_the_quick_way_lets_through_what_the_slow_way_does(function, given_columns, constants):
    constants = {name: value for name, value in constants.items() if name not in given_columns}
    assert CHECKS._calls is not None, "the shape of generated bundles is known"
    quick = CHECKS.argument_problems(function, ROWS, given_columns, constants)
    slow = list(columns._row_by_row(SCHEMA, function, ROWS, given_columns, constants))
    assert bool(quick) == bool(slow), (quick, slow)


def changed(**changes: object) -> Schema:
    return Schema.parse(json.dumps({**DOCUMENT, **changes}).encode(), "input")


@pytest.mark.parametrize(
    "schema",
    [
        changed(maxProperties=1),
        changed(anyOf=[{"$ref": "#/$defs/*"}]),
        changed(anyOf=[{"$ref": "#/$defs/f"}, {"type": "array", "items": {"$ref": "#/$defs/f"}}]),
        changed(**{"$defs": {**DOCUMENT["$defs"], "f": {**DOCUMENT["$defs"]["f"], "minProperties": 9}}}),
        changed(**{"$defs": {**DOCUMENT["$defs"], "f": {**DOCUMENT["$defs"]["f"], "additionalProperties": True}}}),
        changed(**{"$defs": {**DOCUMENT["$defs"], "*": {"anyOf": [{"$ref": "#/$defs/f"}]}}}),
        changed(**{"$defs": {**DOCUMENT["$defs"], "new": False}}),
        Schema.parse(b"false", "input"),
        Schema.parse(b"true", "input"),
    ],
)
def test_any_other_shape_goes_row_by_row(schema):
    checks = ColumnChecks(schema, None)
    assert checks._calls is None
    given_columns = {"a": array("d", [1.0, 2.0, float("inf")])}
    slow = list(columns._row_by_row(schema, "f", 3, given_columns, {}))
    assert checks.argument_problems("f", 3, given_columns, {}) == slow


def test_a_problem_is_told_with_its_column_and_row():
    problems = CHECKS.argument_problems("f", 2, {"a": [1.0, "x"]}, {"b": "y"})
    assert len(problems) == 2
    assert "in the column a: at /1" in problems[0]
    assert "in the column b: at /0" in problems[1]


def test_a_reference_of_a_parameter_is_followed():
    document = json.loads(json.dumps(DOCUMENT))
    document["$defs"]["f"]["properties"]["arguments"]["properties"]["a"] = {"$ref": "#/$defs/h/properties/function"}
    checks = ColumnChecks(Schema.parse(json.dumps(document).encode(), "input"), None)
    assert checks._calls is not None
    assert checks.argument_problems("f", 2, {"a": ["h", "h"]}, {}) == []
    assert checks.argument_problems("f", 2, {"a": ["h", "f"]}, {}) != []


@pytest.mark.parametrize("text", [b"true", b'{"title": "x"}', b"{}"])
def test_a_schema_that_says_nothing_costs_nothing(text):
    says_nothing = Schema.parse(text, "any")
    checks = ColumnChecks(says_nothing, says_nothing)
    assert checks._output is None
    assert not checks.row_by_row
    assert checks.argument_problems("f", 2, {"a": [1, "x"]}, {}) == []
    assert list(checks.result_problems([1, "x"])) == []


def test_results_are_held_against_the_output_schema():
    checks = ColumnChecks(None, Schema.parse(b'{"type": "number"}', "output"))
    assert [row for row, _ in checks.result_problems([1, "x", None, 2.5])] == [1, 2]
    assert list(checks.result_problems(array("d", [1.0, float("nan")]))) == []
