"""Differences of texts are unified diffs, bounded in size and time."""

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plugind.plans.difference import MOST_DIFFERENCE_BYTES, MOST_LINES, MOST_TEXT_BYTES, difference

texts = st.lists(st.sampled_from(["a", "b", "\f", "é", "\r", ""]), max_size=12).map("\n".join)


def test_it_names_both_sides_and_shows_what_changed():
    assert difference(b"a\nb\n", b"a\nc\n", "old", "new") == "--- old\n+++ new\n@@ -1,2 +1,2 @@\n a\n-b\n+c\n"


def test_a_missing_newline_at_the_end_is_told():
    assert difference(b"a\n", b"a", "old", "new").endswith("-a\n+a\n\\ No newline at end of file\n")


@pytest.mark.parametrize(
    "before,after",
    [
        (b"a", b"a"),
        (b"\xff", b"a"),
        (b"a", b"\xff"),
        (b"a\0", b"b"),
        (b"a" * (MOST_TEXT_BYTES + 1), b""),
        (b"\n" * MOST_LINES, b""),
    ],
)
def test_what_is_the_same_no_text_or_too_much_has_none(before, after):
    assert difference(before, after, "old", "new") == ""


def patched(before, found):
    """What patch(1) makes of it."""
    new, place = [], 0
    old = [f"{line}\n" for line in before.split("\n")]
    old[-1] = old[-1].removesuffix("\n")
    lines = found.split("\n")[2:-1]
    for number, line in enumerate(lines):
        ends = "" if lines[number + 1 : number + 2] == ["\\ No newline at end of file"] else "\n"
        if header := re.fullmatch(r"@@ -(\d+)(?:,(\d+))? .*", line):
            start = int(header[1]) - (header[2] != "0")
            new += old[place:start]
            place = start
        elif line[0] in " -":
            assert old[place] == line[1:] + ends
            place += 1
        if line[0] in " +":
            new.append(line[1:] + ends)
    return "".join(new + old[place:])


@given(texts, texts)
def test_patch_makes_one_of_the_other(before, after):
    found = difference(before.encode(), after.encode(), "old", "new")
    assert patched(before, found) == after if found else before == after


def test_much_is_cut_at_a_line():
    before = "".join(f"{number} {'x' * 60}\n" for number in range(2000)).encode()
    found = difference(before, before.replace(b"x", b"y"), "old", "new")
    assert len(found.encode()) <= MOST_DIFFERENCE_BYTES
    assert found.splitlines()[-1].startswith("… and ")


def test_texts_made_to_be_slow_are_not():
    lines = [f"{number % 61}" for number in range(MOST_LINES - 1)]
    before = time.monotonic()
    assert difference("\n".join(lines).encode(), "\n".join(lines[::-1]).encode(), "old", "new")
    assert time.monotonic() - before < 5
