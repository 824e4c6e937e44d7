"""Package URLs: exactly two forms, and two texts for one package come to one."""

import urllib.parse

import pytest
from hypothesis import given
from hypothesis import strategies as st
from packaging.utils import canonicalize_name, canonicalize_version
from packaging.version import InvalidVersion, Version

from plugind.errors import InvalidRequestError
from plugind.purl import MOST_CHARS, PREFIX, normalized, of_package, parse

NAMES = st.from_regex(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,20}[A-Za-z0-9])?", fullmatch=True)
NUMBERS = st.integers(0, 3).map(str) | st.sampled_from(["00", "010", "2024"])
VERSIONS = st.builds(
    "".join,
    st.tuples(
        st.sampled_from(["", "v", "0!", "1!"]),
        st.lists(NUMBERS, min_size=1, max_size=4).map(".".join),
        st.sampled_from(["", "a1", ".beta.2", "-rc", "c3", "preview0", "_alpha_01"]),
        st.sampled_from(["", ".post1", "-2", "-r3", "rev", ".post"]),
        st.sampled_from(["", ".dev4", "dev", "-dev05"]),
        st.sampled_from(["", "+local", "+ubuntu-1.02", "+1_A"]),
    ),
)


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("pkg:pypi/numpy", "pkg:pypi/numpy"),
        ("pkg:pypi/Flask_SQL.Alchemy", "pkg:pypi/flask-sql-alchemy"),
        ("pkg:pypi/urllib3@2.0.7", "pkg:pypi/urllib3@2.0.7"),
        ("pkg:pypi/urllib3@2.0.0", "pkg:pypi/urllib3@2"),
        ("pkg:pypi/a@0.0", "pkg:pypi/a@0"),
        ("pkg:pypi/torch@2.1.0%2Bcpu", "pkg:pypi/torch@2.1%2Bcpu"),
        ("pkg:pypi/a@1%211.0RC1", "pkg:pypi/a@1%211rc1"),
    ],
)
def test_as_it_is_kept(text, kept):
    assert parse(text) == kept
    assert parse(kept) == kept


@pytest.mark.parametrize(
    "text",
    [
        "",
        "pkg:pypi/",
        "pkg:pypi/@1",
        "pkg:pypi/a@",
        "pkg:pypi/a@1@2",
        "pkg:pypi/a b",
        "pkg:pypi/-a",
        "pkg:pypi/a/b",
        "pkg:pypi/a?x=1",
        "pkg:pypi/a@1?x=1",
        "pkg:pypi/a@1#sub",
        "pkg:pypi/a@latest",
        "pkg:pypi/a@1.*",
        "pkg:pypi/a@>=1",
        "pkg:pypi/a@1%",
        "pkg:pypi/a@%31%0a",
        "pkg:pypi/a@\u0661",
        "pkg:pypi/a@%D9%A1",
        "pkg:npm/a",
        "pkg://pypi/a",
        "PKG:pypi/a",
        "pkg:PyPI/a",
        " pkg:pypi/a",
        "pkg:pypi/a\n",
        "pkg:pypi/a@1." + "0" * MOST_CHARS,
    ],
)
def test_what_is_none_of_the_two_forms_is_refused(text):
    with pytest.raises(InvalidRequestError, match=r"^target: expected "):
        parse(text)


@given(NAMES, VERSIONS)
def test_versions_are_compared_as_packaging_does(name, version):
    """Oracle: packaging, which pip compares with."""
    expected = (
        f"{PREFIX}{canonicalize_name(name)}@{urllib.parse.quote(canonicalize_version(Version(version)), safe='')}"
    )
    assert parse(f"{PREFIX}{name}@{urllib.parse.quote(version, safe='')}") == expected
    assert of_package(name, version) == {f"{PREFIX}{canonicalize_name(name)}", expected}


@given(st.text(max_size=12) | st.text("0123456789.!+-_abcdevpostrc", max_size=12))
def test_what_packaging_takes_for_no_version_is_none(version):
    try:
        Version(version)
    except InvalidVersion:
        assert of_package("a", version) == {"pkg:pypi/a"}
        with pytest.raises(InvalidRequestError):
            parse(f"pkg:pypi/a@{urllib.parse.quote(version, safe='')}")


@given(st.text(max_size=40) | st.text(max_size=40).map(lambda rest: f"{PREFIX}{rest}"))
def test_whatever_is_typed_it_is_refused_or_kept_once_and_for_all(text):
    try:
        kept = parse(text)
    except InvalidRequestError:
        return
    assert parse(kept) == kept
    assert kept.startswith(PREFIX)
    assert kept.isascii()


@given(NAMES)
def test_names_are_compared_as_packaging_does(name):
    assert normalized(name) == canonicalize_name(name)
