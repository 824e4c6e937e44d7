"""SECURITY.md says which attack each test makes: it is generated, and it is what the tests say now."""

import pytest

from tests.escapes import table
from tests.escapes.attack import attack, attacks_of

UNFINISHED = {37, 38, 39, 44, 49, 54}
"""Attacks on what there is not yet."""


def test_the_table_in_the_document_is_what_the_tests_say():
    text = table.DOCUMENT.read_text()
    assert table.with_table(text, table.table()) == text, "run: python -m tests.escapes.table"


def test_every_attack_has_a_test():
    numbers = {int(row) for row, *_ in table.rows() if row.isdigit()}
    assert set(range(1, 61)) - UNFINISHED - numbers == set()


def test_a_test_can_make_several_attacks():
    @attack(1, "one", "a")
    @attack("+", "two", "b")
    def test():
        pass

    assert [mark.title for mark in attacks_of(test)] == ["one", "two"]
    assert attacks_of(len) == ()


def test_a_document_without_its_comments_is_refused():
    with pytest.raises(ValueError, match="expected one"):
        table.with_table("no comments here", "")
