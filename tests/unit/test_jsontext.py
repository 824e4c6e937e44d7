"""Strict JSON: what RFC 8259 leaves open is refused, limits hold before the parser runs."""

from __future__ import annotations

import json
import math
import re
import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from plugind import jsontext
from plugind.errors import InvalidJsonError

SCALARS = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=10)
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=10,
)


def loads(data, **limits):
    return jsontext.loads(data, **{"max_bytes": 100_000, **limits})


def refusal(data, **limits):
    with pytest.raises(InvalidJsonError) as caught:
        loads(data, **limits)
    return str(caught.value)


@given(VALUES, st.booleans(), st.sampled_from([None, 2]))
def test_what_python_writes_is_read_as_python_reads_it(value, ascii_only, indent):
    text = json.dumps(value, ensure_ascii=ascii_only, indent=indent)
    assert loads(text.encode()) == json.loads(text) == value


@given(VALUES)
def test_what_is_dumped_is_compact_and_loads_as_the_same(value):
    text = jsontext.dumps(value)
    assert loads(text) == value
    assert text == json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


@given(st.binary(max_size=300) | st.text('[]{}",:\\u0dD8eE+-.19ntf \n\ufeff').map(str.encode))
@example(b'"\\ud800')
@example(b'{"a":' * 100)
@example(b"-" * 100 + b"," * 100)
def test_arbitrary_bytes_are_refused_or_mean_what_python_says(data):
    try:
        value = loads(data)
    except InvalidJsonError:
        return
    assert value == json.loads(data)


@given(st.binary(max_size=300))
def test_with_non_finite_allowed_arbitrary_bytes_are_refused_as_well(data):
    try:
        value = loads(data, non_finite=True)
    except InvalidJsonError:
        return
    assert json.dumps(value) == json.dumps(json.loads(data))


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "line 1 column 1: expecting value"),
        (b"  ", "expecting value"),
        (b"\xef\xbb\xbf1", "without a byte order mark"),
        ("1".encode("utf-16"), "expected UTF-8, got byte 0xff at offset 0"),
        (b'"\xff"', "expected UTF-8, got byte 0xff at offset 1"),
        (b'"\xed\xa0\x80"', "expected UTF-8, got byte 0xed"),
        (b'"\xc0\x80"', "expected UTF-8, got byte 0xc0"),
        (b'{"a": 1, "b": 2, "a": 3}', "duplicate key 'a'"),
        (b'[{"x": {"a": 1, "\\u0061": 1}}]', "duplicate key 'a'"),
        (b'{"\\u001b[2J": 1, "\\u001b[2J": 1}', r"duplicate key '\x1b[2J'"),
        (b'"\\ud800"', "lone surrogate"),
        (b'{"\\uDFFF": 1}', "lone surrogate"),
        (b'["\\ude00\\ud83d"]', "lone surrogate"),
        (b"NaN", "NaN is not JSON"),
        (b"[Infinity]", "Infinity is not JSON"),
        (b'{"a": -Infinity}', "-Infinity is not JSON"),
        (b"1e400", "does not fit into a 64-bit float"),
        (b"-1e400", "does not fit into a 64-bit float"),
        (b"1" * 4301, "at most 4300 digits"),
        (b"1" * 400 + b".0", "does not fit into a 64-bit float"),
        (b"01", "line 1 column 2: extra data"),
        (b"+1", "expecting value"),
        (b".5", "expecting value"),
        (b"1.", "extra data"),
        (b"0x10", "extra data"),
        (b"'a'", "expecting value"),
        (b'"a\nb"', "invalid control character"),
        (b'"a\x00b"', "invalid control character"),
        (b'"\\x41"', "invalid \\escape"),
        (b'"\\u00g0"', "invalid \\u"),
        (b'"a', "unterminated string"),
        (b"[1,]", "line 1 column"),
        (b"[1 2]", "expecting ',' delimiter"),
        (b'{"a": 1,}', "line 1 column"),
        (b"{a: 1}", "expecting property name"),
        (b"[1]\n\n  x", "line 3 column 3: extra data"),
        (b"1 // comment", "extra data"),
        (b"\xc2\xa01", "expecting value"),
        (b"True", "expecting value"),
    ],
)
def test_what_is_not_strict_json_is_refused_with_its_reason(data, words):
    assert words in refusal(data)


@pytest.mark.parametrize(
    ("data", "value"),
    [
        (b"18446744073709551617", 2**64 + 1),
        (b"-" + b"9" * 4200, -(10**4200 - 1)),
        (b"9007199254740993", 2**53 + 1),
        (b"-0", 0),
        (b"1e-400", 0.0),
        (b'"\\ud83d\\ude00"', "\U0001f600"),
        (b'"\\\\ud800"', "\\ud800"),
        ('"\U0001f600\u2028"'.encode(), "\U0001f600\u2028"),
        (b"\t\r\n 1 \n", 1),
        (b'{"": {"": []}}', {"": {"": []}}),
    ],
)
def test_values_are_exact(data, value):
    got = loads(data)
    assert got == value
    assert type(got) is type(value)


def test_non_finite_numbers_pass_only_where_they_are_allowed():
    values = loads(b"[NaN, Infinity, -Infinity]", non_finite=True)
    assert math.isnan(values[0])
    assert values[1:] == [math.inf, -math.inf]
    assert jsontext.dumps(values, non_finite=True) == b"[NaN,Infinity,-Infinity]"
    assert "does not fit" in refusal(b"1e400", non_finite=True)
    assert "line 1" in refusal(b"nan", non_finite=True)


@pytest.mark.parametrize(
    "value", [math.nan, [math.inf], "\ud800", {"\udfff": 1}, {1, 2}, b"x", [10**5000], object(), 1j]
)
def test_what_is_no_json_value_is_not_dumped(value):
    with pytest.raises(InvalidJsonError):
        jsontext.dumps(value)


def test_a_value_without_end_is_not_dumped():
    endless = []
    endless.append(endless)
    deep = []
    for _ in range(100_000):
        deep = [deep]
    for value in (endless, deep):
        with pytest.raises(InvalidJsonError):
            jsontext.dumps(value)


def test_size_is_checked_before_anything_is_parsed():
    assert refusal(b"\xff" * 11, max_bytes=10) == "expected at most 10 bytes, got 11"
    assert loads(b"1" * 10, max_bytes=10) == 1_111_111_111


@pytest.mark.parametrize(("opening", "closing"), [(b"[", b"]"), (b'{"a":', b"}")])
def test_depth_is_checked_before_anything_is_parsed(opening, closing):
    assert loads(opening * 64 + b"1" + closing * 64) is not None
    assert refusal(opening * 65 + b"1" + closing * 65) == "expected at most 64 levels of nesting, got 65"
    # The parser would say that this text is no JSON; the limit is told because it comes first.
    assert refusal(opening * 15_000 + b"\xff") == "expected at most 64 levels of nesting, got 15000"


def test_brackets_and_commas_in_strings_do_not_count():
    text = json.dumps({"a": '[{",\\' * 5000, "b\\": ["[" * 100]}).encode()
    assert loads(text, max_values=10) == json.loads(text)


@pytest.mark.parametrize("text", [b"[" + b"1," * 100 + b"1]", b"[" + b"[]," * 100 + b"1]"])
def test_the_number_of_values_is_checked_before_anything_is_parsed(text):
    assert loads(text, max_values=300) is not None
    assert "expected at most 50 values" in refusal(text[:-1] + b"\xff", max_values=50)


@given(VALUES, st.integers(1, 6))
def test_the_depth_limit_is_exact(value, limit):
    def depth(node):
        children = node.values() if isinstance(node, dict) else node if isinstance(node, list) else None
        return 0 if children is None else 1 + max(map(depth, children), default=0)

    text = json.dumps([value, [0] * 100]).encode()
    if depth([value, [0]]) <= limit:
        assert loads(text, max_depth=limit) == [value, [0] * 100]
    else:
        assert "levels of nesting" in refusal(text, max_depth=limit)


@pytest.mark.parametrize("body", [b'\\"', b'a\\"', b"\\", b'"', b'\\\\"'])
def test_a_string_without_end_takes_linear_time(body):
    started = time.process_time()
    refusal(b"," * 100 + b'"' + body * 200_000, max_bytes=10**7)
    assert time.process_time() - started < 2  # each of them took minutes when looking for the end was quadratic


@given(st.text('[]{}",:\\\\u0 a', max_size=60), st.integers(1, 40))
def test_what_is_left_without_its_strings(text, chunk):
    """The same as a scanner that goes from quote to quote, for whatever the parser would get to, in any chunks."""
    data = text.encode()
    outside = re.sub(rb'"[^"\\]*(?:\\.[^"\\]*)*"?', b"", data, flags=re.DOTALL)
    if b"\\" not in outside:
        assert b"".join(jsontext._structure(data, chunk)) == outside


@pytest.mark.parametrize("length", [64 * 1024 - 2, 64 * 1024 - 1, 64 * 1024, 64 * 1024 + 1])
def test_strings_and_levels_go_on_from_one_piece_to_the_next(length):
    text = b'["' + b"[" * length + b'", [1], "\\"[", {}]'
    assert loads(text, max_depth=2) == json.loads(text)
    assert refusal(text, max_depth=1) == "expected at most 1 levels of nesting, got 2"
