"""Attack, control, test: the table in daemon/SECURITY.md, made of the marks on the tests.

`python -m tests.escapes.table` writes it between its two comments; tests/unit/test_escape_table.py looks whether it
is up to date. It only imports the tests, so it needs neither root nor a daemon.
"""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

HERE: Final = Path(__file__).parent
DOCUMENT: Final = HERE.parents[1] / "daemon/SECURITY.md"
BEGIN: Final = "<!-- begin: python -m tests.escapes.table -->"
ELSEWHERE: Final = sorted(
    (
        *HERE.parent.glob("system/test_taken_over_front*.py"),
        HERE.parent / "system" / "test_parked.py",
        HERE.parent / "system" / "test_plan_helpers.py",
        HERE.parent / "integration" / "test_network_names.py",
        HERE.parent / "integration" / "test_plan_ways.py",
        HERE.parent / "unit" / "test_plan_writers.py",
    )
)
"""What is no plugin's attack in its jail: a front's that was taken over, an import's ahead of runs, those on plans."""
END: Final = "<!-- end: python -m tests.escapes.table -->"


def rows() -> Iterator[tuple[str, str, str, str]]:
    """Row, attack, control and test of every mark, in the order in which they stand in their files."""
    attack = importlib.import_module("tests.escapes.attack")
    for path in (*sorted(HERE.glob("test_*.py")), *ELSEWHERE):
        module = importlib.import_module(f"tests.{path.parent.name}.{path.stem}")
        for name, test in vars(module).items():
            if inspect.isfunction(test) and test.__module__ == module.__name__:
                for mark in attack.attacks_of(test):
                    yield mark.row, mark.title, mark.control, f"`{path.name}` `{name}`"


def table() -> str:
    """The whole table in Markdown: numbered rows first, then our own. Then which rows succeed without which control."""
    ordered = sorted(rows(), key=lambda row: int(row[0]) if row[0].isdigit() else sys.maxsize)
    lines = ["| # | attack | control | test |", "|-|-|-|-|"]
    attacks = _markdown(lines, ordered)
    shown = importlib.import_module("tests.escapes.controls_off").shown()
    without = sorted(((row, "; ".join(sorted(offs))) for row, offs in shown.items() if row.isdigit()), key=_number)
    words = f"With its control switched off the attack succeeds; so {len(without)} rows are shown to be able to fail:"
    return "\n\n".join([attacks, words, _markdown(["| # | what was off |", "|-|-|"], without)])


def _number(row: tuple[str, ...]) -> int:
    return int(row[0])


def _markdown(lines: list[str], ordered: Sequence[tuple[str, ...]]) -> str:
    return "\n".join([*lines, *("| " + " | ".join(cell.replace("|", r"\|") for cell in row) + " |" for row in ordered)])


def with_table(text: str, made: str) -> str:
    """The document with this table between the two comments. Raises ValueError where they are not there once each."""
    if text.count(BEGIN) != 1 or text.count(END) != 1:
        raise ValueError(f"{DOCUMENT}: expected one {BEGIN} and one {END}")
    head, _, rest = text.partition(BEGIN)
    return f"{head}{BEGIN}\n{made}\n{END}{rest.partition(END)[2]}"


def main() -> None:
    """Write the table into the document."""
    before = DOCUMENT.read_text()
    after = with_table(before, table())
    DOCUMENT.write_text(after)
    print(f"{DOCUMENT.name}: {'written' if before != after else 'is up to date'}")


if __name__ == "__main__":
    main()
