"""What goes into a plugin and what comes out, for both interfaces."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plugind.model import Code
from plugind.payload import Checked, Contract, check_input, output_problem
from plugind.schema import Schema

OBJECT = Schema.parse(b'{"type": "object", "required": ["a"], "properties": {"a": {"maximum": 5}}}', "s.json")
NUMBERS = Schema.parse(b'{"items": {"maximum": 5}}', "s.json")
JSON = Contract("json", OBJECT, OBJECT)
FUNCTIONS = Contract("functions", None, None)


def reasons(contract, text, max_bytes=1000):
    return check_input(contract, text, max_bytes, 2).reasons


def only(contract, text):
    (reason,) = reasons(contract, text)
    return reason


def test_an_input_that_fits_has_no_reasons():
    assert check_input(JSON, b'{"a": 5}', 1000, 1) == Checked()


def test_a_large_input_is_refused_by_size_alone():
    (reason,) = reasons(JSON, b"\xff" * 11, max_bytes=10)
    assert (reason.code, reason.rule) == (Code.INPUT_TOO_LARGE, "tier.2.input_bytes")
    assert (reason.expected, reason.actual) == ("at most 10 bytes", "11 bytes")
    assert reason.remedy
    assert reasons(FUNCTIONS, b"[       ]"[:9], max_bytes=9) == ()


@pytest.mark.parametrize(
    ("contract", "text", "rule", "words"),
    [
        (JSON, b"", "input.json", "expecting value"),
        (JSON, b'{"a": NaN}', "input.json", "NaN is not JSON"),
        (JSON, b'{"a": 1, "a": 1}', "input.json", "duplicate key"),
        (JSON, b'{"a": 6}', "input.schema", "at /a: 6"),
        (JSON, b"{}", "input.schema", '"a" is a required property'),
        (JSON, b"[]", "input.schema", "at /: "),
        (FUNCTIONS, b"{", "input.json", "expecting"),
        (FUNCTIONS, b"1", "input.functions", "at /: a number"),
        (FUNCTIONS, b"null", "input.functions", "at /: null"),
        (FUNCTIONS, b"{}", "input.functions", "at /: expected the name of a public function, got 'None'"),
        (FUNCTIONS, b'{"function": 5}', "input.functions", "got '5'"),
        (FUNCTIONS, b'{"function": ""}', "input.functions", "got ''"),
        (FUNCTIONS, b'{"function": "_hidden"}', "input.functions", "got '_hidden'"),
        (FUNCTIONS, b'{"function": "__import__"}', "input.functions", "got '__import__'"),
        (FUNCTIONS, b'{"function": "os.system"}', "input.functions", "got 'os.system'"),
        (FUNCTIONS, b'{"function": "lambda"}', "input.functions", "got 'lambda'"),
        (FUNCTIONS, b'{"function": "f", "arguments": []}', "input.functions", "arguments as an object, got an array"),
        (FUNCTIONS, b'{"function": "f", "arguments": null}', "input.functions", "arguments as an object, got null"),
        (FUNCTIONS, b'{"function": "f", "args": {}}', "input.functions", "at /: the unknown key 'args'"),
        (FUNCTIONS, b'[{"function": "f"}, {"function": "f g"}]', "input.functions", "at /1: "),
        (FUNCTIONS, b'[{"function": "f"}, []]', "input.functions", "at /1: an array"),
    ],
)
def test_an_input_that_does_not_fit_is_refused_with_where(contract, text, rule, words):
    reason = only(contract, text)
    assert (reason.code, reason.rule) == (Code.INPUT_INVALID, rule)
    assert words in reason.actual
    assert reason.expected
    assert reason.remedy


def test_every_schema_error_is_a_reason_up_to_ten():
    contract = Contract("json", NUMBERS, None)
    assert [reason.actual.partition(": ")[0] for reason in reasons(contract, b"[1, 6, 7]")] == ["at /1", "at /2"]
    assert len(reasons(contract, json.dumps([6] * 50).encode())) == 10


@pytest.mark.parametrize(
    ("text", "calls"),
    [
        (b'{"function": "f"}', None),
        (b'{"function": "f", "arguments": {"x": NaN}}', None),
        (b"[]", 0),
        (b'[{"function": "f"}, {"function": "g", "arguments": {}}]', 2),
    ],
)
def test_function_calls_are_counted(text, calls):
    assert check_input(FUNCTIONS, text, 1000, 1) == Checked((), calls)


def test_a_list_is_not_counted_as_calls_for_the_json_interface():
    assert check_input(Contract("json", NUMBERS, None), b"[1, 2]", 1000, 1) == Checked()


def test_calls_have_to_fit_the_schema_if_there_is_one():
    schema = Schema.parse(b'{"properties": {"function": {"const": "f"}}}', "s.json")
    contract = Contract("functions", schema, None)
    assert check_input(contract, b'{"function": "f"}', 1000, 1).reasons == ()
    assert only(contract, b'{"function": "g"}').rule == "input.schema"


@pytest.mark.parametrize(
    ("contract", "text", "calls", "words"),
    [
        (JSON, b'{"a": 6}', None, "output: at /a: 6"),
        (JSON, b"{}", None, 'output: at /: "a" is a required property'),
        (JSON, b'{"a": Infinity}', None, "output: Infinity is not JSON"),
        (JSON, b"", None, "output: line 1 column 1: expecting value"),
        (JSON, b'{"a": 1}' + b" " * 1000, None, "output: expected at most 1000 bytes"),
        (JSON, b"[" * 70, None, "output: expected at most 64 levels"),
        (FUNCTIONS, b"1", 2, "output: expected a list of 2, one for each call, got a number"),
        (FUNCTIONS, b"[1]", 2, "output: expected a list of 2, one for each call, got a list of 1"),
        (FUNCTIONS, b"{}", 0, "output: expected a list of 0, one for each call, got an object"),
        (Contract("functions", None, NUMBERS), b"[1, Infinity]", 2, "output: at /1"),
    ],
)
def test_an_output_that_does_not_fit_is_told_with_where(contract, text, calls, words):
    assert output_problem(contract, text, 1000, calls).startswith(words)


@pytest.mark.parametrize(
    ("contract", "text", "calls"),
    [
        (JSON, b'{"a": 5}', None),
        (FUNCTIONS, b"NaN", None),
        (FUNCTIONS, b"[1, {}]", 2),
        (FUNCTIONS, b"[]", 0),
        (FUNCTIONS, b"[1, 2, 3]", None),
        (Contract("functions", None, NUMBERS), b"[1, -Infinity]", 2),
    ],
)
def test_an_output_that_fits_has_no_problem(contract, text, calls):
    assert output_problem(contract, text, 1000, calls) == ""


def test_every_schema_error_of_an_output_is_told():
    assert output_problem(Contract("json", None, NUMBERS), b"[6, 7]", 1000, None).count("at /") == 2


@given(st.binary(max_size=100), st.sampled_from([JSON, FUNCTIONS]))
def test_arbitrary_bytes_are_an_answer_and_no_exception(text, contract):
    checked = check_input(contract, text, 50, 1)
    assert checked.reasons or json.loads(text) is not None
    assert isinstance(output_problem(contract, text, 50, checked.calls), str)
