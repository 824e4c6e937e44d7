"""How the words in a manifest may look; versions and specifiers against the `packaging` library."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from packaging.specifiers import SpecifierSet
from packaging.version import Version

from plugind.provenance import grammar, manifest

WORDS = [
    (grammar.NAME, ["ab", "cost_breakdown", "plug_x", "plug_", "plug_1x", "a" * 63], []),
    (grammar.NAME, [], ["a", "", "Ab", "1ab", "_ab", "a-b", "ab\n", "plug_1", "plug_771", "ä1", "a" * 64]),
    (grammar.VERSION, ["0.0.0", "1.2.3", "99999.99999.99999", "1.2.3+try.ab12cd34"], []),
    (
        grammar.VERSION,
        [],
        [
            "1",
            "1.2",
            "01.2.3",
            "1.2.3.4",
            "1.2.3-a",
            "100000.0.0",
            "1.2.3+try.AB12CD34",
            "1.2.3+x",
            "1.2.3\n",
            "１.2.3",
        ],
    ),
    (grammar.ADAPTED_FROM, ["plug_12@1.0.0"], ["plug_0@1.0.0", "plug_1", "plug_01@1.0.0", "x@1.0.0", "plug_1@1.0"]),
    (
        grammar.LICENSE,
        ["MIT", "GPL-2.0-or-later WITH Classpath-exception-2.0", "A (B)"],
        ["", " MIT", "M\nT", "M" * 101],
    ),
    (grammar.STAGE, ["*", "durations", "wbs_level3"], ["", "**", "Durations", "a b", "dur*"]),
    (
        grammar.MODULE,
        ["a", "a.b", "_a.B1", "iffy", "class_"],
        ["", ".", "a.", ".a", "a..b", "if", "a.class", "a-b", "1a"],
    ),
    (grammar.MODULE_FUNCTION, ["a:b", "a.b:c"], ["a", "a:", ":b", "a:b.c", "a:b:c", "a:lambda", "a :b", "a:b\n"]),
    (grammar.CLASS, ["plan", "plan.prompts"], ["", ".plan", "plan.", "Plan", "plan..x"]),
    (grammar.METHOD, ["GET", "DELETE"], ["get", "GET ", "TRACE", "CONNECT", ""]),
    (
        grammar.API_PATH,
        ["/", "/v1/rates", "/v1/a...b"],
        ["", "v1", "/../x", "/a/..", "/a/./b", "/a b", "/ä", "/" * 300],
    ),
]


@pytest.mark.parametrize(("pattern", "good", "bad"), WORDS)
def test_words_match_as_a_whole(pattern, good, bad):
    assert [word for word in good if not pattern.fullmatch(word)] == []
    assert [word for word in bad if pattern.fullmatch(word)] == []


CHECKS = [
    (grammar.one_line, ["x", "a b", "größer", "x" * 200], ["", " x", "x ", "a\nb", "\x1b[2J", "a\u202eb", "x" * 201]),
    (
        grammar.bundle_path,
        ["a", "a/b.py", "a b", "a..b", "x" * 255],
        [
            "",
            "/a",
            "a//b",
            "a/",
            "./a",
            "a/../b",
            "..",
            ".a",
            "a/.b",
            " a",
            "a ",
            "a\\b",
            "a\0",
            "ä",
            "x" * 256,
            "a.pyc",
        ],
    ),
    (
        grammar.path_pattern,
        ["*", "export/*.csv", "wbs_*.json", "a[0-9]?.txt", "größe.csv"],
        ["", "/a", "../a", "a/../b", "a/./b", "a//b", "**", "a/**/b", "a\\b", "a\n", "x" * 256],
    ),
    (
        grammar.host,
        ["localhost", "api.example.org", "xn--80a.org", "a-b.c", "1.2.3.4", "::1", "2001:db8::1", "*.example.org"],
        [
            "",
            ".",
            "a.",
            "*",
            "*.org",
            "*.*.example.org",
            "a.*.example.org",
            "*a.example.org",
            "*.1.2.3",
            "API.example.org",
            "-a.b",
            "a-.b",
            "a_b.c",
            "1.2.3",
            "1.2.3.256",
            "fe80::1%eth0",
        ],
    ),
    (
        grammar.python_specifier,
        [">=3.11", ">=3.11,<3.14", "== 3.11.*", "~=3.11", "!=3.12.1", ">=3"],
        ["", "3.11", ">=3.11,", "=>3", ">=3.11.*", "==3.11.4.*", "~=3", ">=3.011", ">=3.11 or <2", ">=v3", "===3.11"],
    ),
]


@pytest.mark.parametrize(("check", "good", "bad"), CHECKS)
def test_a_check_says_what_was_expected_and_nothing_when_all_is_well(check, good, bad):
    assert [(word, check(word)) for word in good if check(word)] == []
    assert [word for word in bad if not check(word)] == []


@given(st.text(max_size=20))
def test_a_path_that_is_accepted_stays_in_its_folder(path):
    if grammar.bundle_path(path) == "":
        assert re.fullmatch(r"[ -~]+", path)
        assert not path.startswith("/")
        assert not {"", ".", ".."} & set(path.split("/"))


NUMBERS = st.integers(0, 13)
VERSIONS = st.tuples(st.integers(2, 4), NUMBERS, NUMBERS)
RELEASES = st.lists(NUMBERS, min_size=1, max_size=3).map(lambda numbers: ".".join(map(str, numbers)))
SPECIFIERS = st.lists(
    st.tuples(st.sampled_from([">=", "<=", "==", "!=", "~=", ">", "<"]), RELEASES, st.sampled_from(["", ".*"])).map(
        "".join
    ),
    min_size=1,
    max_size=3,
).map(",".join)


@given(SPECIFIERS.filter(lambda text: not grammar.python_specifier(text)), VERSIONS)
def test_specifiers_mean_what_the_packaging_library_says(text, version):
    wanted = SpecifierSet(text).contains(Version(".".join(map(str, version))))
    assert manifest.accepts_python(text, version) == wanted


VERSION_TEXTS = st.tuples(*[st.integers(0, 99_999)] * 3)


@given(VERSION_TEXTS, VERSION_TEXTS)
def test_sequence_numbers_are_ordered_as_versions_and_exact_as_floats(one, other):
    first, second = (manifest.sequence_of(".".join(map(str, version))) for version in (one, other))
    assert (first < second) == (one < other)
    assert first < 2**53
