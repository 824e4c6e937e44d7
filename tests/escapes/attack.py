"""The mark that says which attack a test makes, and which control has to stop it. table.py makes the table of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeVar

import pytest

Test = TypeVar("Test", bound=Callable[..., object])
OWN: Final = "+"
"""The row of an attack that is our own idea."""
_MARKS: Final = "attacks_of_this_test"


@dataclass(frozen=True, slots=True)
class Attack:
    """One line of the table: `row` is a number or "+", `control` what stops it."""

    row: str
    title: str
    control: str


def attack(row: int | str, title: str, control: str) -> Callable[[Test], Test]:
    """Mark a test; one test may carry several. `row`: the attack's number, or OWN."""

    def mark(test: Test) -> Test:
        setattr(test, _MARKS, (Attack(str(row), title, control), *attacks_of(test)))
        return test

    return mark


def attacks_of(test: object) -> tuple[Attack, ...]:
    """The attacks that a test makes."""
    return getattr(test, _MARKS, ())


def succeeds(why: str) -> pytest.MarkDecorator:
    """Nothing stops this attack yet. The test is strict: it fails as soon as something does, and the mark can go."""
    return pytest.mark.xfail(strict=True, reason=f"THE ATTACK SUCCEEDS: {why}")
