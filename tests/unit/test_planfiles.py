"""Paths, patterns and sets of files: held against fnmatch(3), pathlib and arbitrary bytes."""

from __future__ import annotations

import ctypes
import json
from pathlib import PurePosixPath

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from plugind.errors import InvalidRequestError
from plugind.planfiles import (
    MAX_DEPTH,
    MAX_NAME_BYTES,
    MAX_PATH_BYTES,
    RESERVED,
    Entry,
    is_root,
    matches,
    pack,
    path_problem,
    root_of,
    unpack,
)

NAME = st.text("ab.-é", min_size=1, max_size=4)
ODD = st.text("ab./\\*\0\n\u202e\ud800", max_size=12)
TOKEN = st.sampled_from(["a", "b", ".", "-", "é", "*", "?", "[ab]", "[!a]", "[a-b]", "[.]", "/"])
FNM_PATHNAME, FNM_NOESCAPE, FNM_PERIOD = 1, 2, 4
_libc = ctypes.CDLL(None)


def libc_matches(path, pattern):
    """fnmatch(3) in the C locale, where a character is a byte: what is no ASCII is made ASCII first."""
    path, pattern = (text.replace("é", "e").encode("ascii") for text in (path, pattern))
    return _libc.fnmatch(pattern, path, FNM_PATHNAME | FNM_NOESCAPE | FNM_PERIOD) == 0


@given(st.lists(NAME, min_size=1, max_size=3).map("/".join), st.lists(TOKEN, max_size=6).map("".join))
@example("a", "[!a]")
@example(".a", "[.]a")
@example("a/.b", "*/*")
@example("a/b", "*")
@example("a/b", "a*b")
def test_patterns_mean_what_fnmatch_says(path, pattern):
    assert matches(path, [pattern]) == libc_matches(path, pattern)
    assert matches(path, ["/", pattern]) == matches(path, [pattern])
    assert not matches(path, [])


@given(st.lists(NAME, min_size=1, max_size=3), st.data())
def test_a_pattern_without_a_path_of_its_own_is_as_in_pathlib(parts, data):
    """Without dots, and with as many parts: pathlib's patterns may be shorter than the path."""
    parts = [part.replace(".", "x") for part in parts]
    pattern = "/".join(data.draw(st.sampled_from([part, "*", "?" * len(part), part[:1] + "*"])) for part in parts)
    assert matches("/".join(parts), [pattern])
    assert PurePosixPath("/".join(parts)).match(pattern)


@given(st.lists(NAME, max_size=2), st.text("abr-", max_size=3), st.lists(TOKEN, max_size=4).map("".join))
def test_no_pattern_means_what_is_ours(parents, rest, pattern):
    for parts in ([*parents, RESERVED + rest], [RESERVED + rest, *parents]):
        path = "/".join(parts)
        assert not matches(
            path, [pattern, path, *("/".join(["*"] * n) for n in range(1, 5)), "/".join([".*"] * len(parts))]
        )
        assert path_problem(path)


@given(ODD | st.lists(NAME, max_size=12).map("/".join) | st.text(max_size=30))
def test_a_path_without_problem_is_one_beneath_that_is_only_written_this_way(path):
    if path_problem(path):
        return
    pure = PurePosixPath(path)
    assert pure.as_posix() == path
    assert not pure.is_absolute()
    assert not {"..", ".", ""} & set(pure.parts)
    assert 1 <= len(pure.parts) <= MAX_DEPTH
    assert len(path.encode()) <= MAX_PATH_BYTES
    assert "\0" not in path
    assert path.isprintable()


@given(st.lists(NAME.filter(lambda name: name not in (".", "..")), min_size=1, max_size=MAX_DEPTH))
def test_a_plain_path_has_no_problem(parts):
    assert path_problem("/".join(parts)) == ""


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/",
        "/a",
        "a/",
        "a//b",
        ".",
        "..",
        "a/../b",
        "./a",
        "a\\b",
        "a\0",
        "a\n",
        "\ud800",
        "\u200b",
        "/".join("a" * 9),
        "x" * (MAX_NAME_BYTES + 1),
        "é" * 128,
        "/".join(["x" * 200] * 6),
        ".plugind-",
        "a/.plugind-x/b",
    ],
)
def test_what_is_no_path(path):
    assert path_problem(path)


@pytest.mark.parametrize(
    "path", ["x" * MAX_NAME_BYTES, "/".join("a" * MAX_DEPTH), "...", ".a", "a b", "é", "plugind-", ".plugind"]
)
def test_what_is_one(path):
    assert not path_problem(path)


@given(ODD)
def test_a_root_has_nothing_to_resolve(path):
    if is_root(path):
        assert PurePosixPath(path).as_posix() == path
        assert PurePosixPath(path).is_absolute()
        assert ".." not in PurePosixPath(path).parts
        assert "\0" not in path


@given(
    st.lists(st.sampled_from(["/a", "/a/b", "/a/b/c", "/ab", "a", "/a/../b", "/"])),
    st.sampled_from(["/a", "/a/b/d", "/ab/c", "/a/../b/c", "b"]),
)
def test_the_nearest_root_above(roots, plan_dir):
    above = [root for root in roots if is_root(root) and PurePosixPath(root) in PurePosixPath(plan_dir).parents]
    nearest = max(above, key=lambda root: len(PurePosixPath(root).parts), default="")
    assert root_of(plan_dir, roots) == (nearest if is_root(plan_dir) else "")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)
FACTS = st.dictionaries(st.text(), JSON, max_size=3)
PATH = st.lists(NAME, min_size=1, max_size=4).map("/".join).filter(lambda path: not path_problem(path))
ENTRY = st.builds(Entry, PATH, st.none() | st.binary(max_size=30), st.text(max_size=5), st.text(max_size=5), FACTS)
ENTRIES = st.lists(ENTRY, max_size=5, unique_by=lambda entry: entry.path)


def total(entries):
    return sum(len(entry.content or b"") for entry in entries)


@given(ENTRIES, FACTS)
def test_what_is_packed_is_unpacked(entries, facts):
    assert unpack(pack(entries, facts), len(entries), total(entries)) == (entries, facts)


@given(ENTRIES.filter(bool), FACTS)
def test_ceilings_are_exact(entries, facts):
    data = pack(entries, facts)
    with pytest.raises(InvalidRequestError):
        unpack(data, len(entries) - 1, total(entries))
    if total(entries):
        with pytest.raises(InvalidRequestError):
            unpack(data, len(entries), total(entries) - 1)


@given(ENTRIES, FACTS, st.data())
def test_more_less_or_other_bytes_are_refused_or_understood(entries, facts, data):
    packed = bytearray(pack(entries, facts))
    for extra in (packed + b"x", packed[:-1]):
        with pytest.raises(InvalidRequestError):
            unpack(bytes(extra), 100, 10_000)
    for _ in range(data.draw(st.integers(1, 3))):
        packed[data.draw(st.integers(0, len(packed) - 1))] = data.draw(st.integers(0, 255))
    understood(bytes(packed))


def understood(data):
    """Whatever it is: either it is refused, or what it says is within all limits."""
    try:
        entries, facts = unpack(data, 5, 100)
    except InvalidRequestError:
        return
    assert isinstance(facts, dict)
    assert len(entries) <= 5
    assert total(entries) <= 100
    assert len({entry.path for entry in entries}) == len(entries)
    for entry in entries:
        assert not path_problem(entry.path)
        assert isinstance(entry.mark, str)
        assert isinstance(entry.facts, dict)
        assert entry.content is None or isinstance(entry.content, bytes)


@given(st.binary(max_size=60))
def test_any_bytes(data):
    understood(data)


LISTED = st.fixed_dictionaries(
    {},
    optional={
        "path": JSON | PATH,
        "bytes": st.integers(-3, 12) | st.booleans() | JSON,
        "mark": JSON | st.just(""),
        "problem": JSON | st.just(""),
        "facts": JSON | st.just({}),
    },
)


@given(
    JSON | st.fixed_dictionaries({"files": st.lists(LISTED, max_size=3) | JSON, "facts": JSON | st.just({})}),
    st.binary(max_size=12),
)
def test_any_index(index, rest):
    encoded = json.dumps(index).encode()
    understood(len(encoded).to_bytes(4, "big") + encoded + rest)


@pytest.mark.parametrize("index", [b"[" * 100_000, b'{"files":' * 50_000, b"1" * 10_000, b"\xff", b"", b"NaN"])
def test_an_index_that_is_hard_to_parse(index):
    with pytest.raises(InvalidRequestError):
        unpack(len(index).to_bytes(4, "big") + index, 5, 100)
