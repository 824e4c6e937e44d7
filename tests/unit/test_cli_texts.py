"""The small functions below the commands: escaping, comparing JSON."""

import copy
import json
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plugind_client.cli.inputs import check_json, same_json
from plugind_client.cli.problems import CommandError
from plugind_client.cli.screen import one_line, visible

ANY = st.text(st.characters(exclude_categories=()))
NUMBERS = st.integers() | st.floats() | st.booleans() | st.none()
JSON = st.recursive(
    NUMBERS | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(ANY)
def test_visible_text_steers_no_terminal(text):
    shown = visible(text)
    assert [c for c in shown if c not in "\n\t" and unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp")] == []
    assert "\n" not in one_line(text)
    assert one_line(text) == one_line(one_line(text))


@settings(max_examples=40)
@given(JSON)
def test_visible_json_is_the_same_json(value):
    text = json.dumps(value, ensure_ascii=False)
    assert same_json(json.loads(visible(text)), value)


@pytest.mark.parametrize("text", ["", "plain ünïcödé 漢字 😀", "a\n\tb", "e\u0301"])
def test_harmless_text_stays_as_it_is(text):
    assert visible(text) == text


@settings(max_examples=40)
@given(JSON)
def test_json_is_the_same_as_its_copy(value):
    assert same_json(value, copy.deepcopy(value))
    assert same_json(value, json.loads(json.dumps(value)))


@pytest.mark.parametrize(
    "one,other,same",
    [
        (1, 1.0, True),
        (True, 1, False),
        (0, False, False),
        (None, False, False),
        (float("nan"), float("nan"), True),
        (float("nan"), 1.0, False),
        (1.0, float("nan"), False),
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}, True),
        ({"a": 1}, {"a": 1, "b": None}, False),
        ([1, 2], [2, 1], False),
        ([1], [1, 1], False),
        ([True], [1], False),
        ({"a": [0]}, {"a": [False]}, False),
        ("1", 1, False),
        ([], {}, False),
    ],
)
def test_same_json(one, other, same):
    assert same_json(one, other) is same
    assert same_json(other, one) is same


@pytest.mark.slow
@given(st.binary() | st.text().map(str.encode) | JSON.map(lambda value: json.dumps(value).encode()))
def test_check_json_takes_what_the_standard_librarys_parser_takes_of_utf_8(text):
    try:
        json.loads(text.decode())
    except ValueError:
        with pytest.raises(CommandError, match=r"^here: "):
            check_json(text, "here")
    else:
        assert check_json(text, "here") is None
