"""make bench-compare OLD=a.json NEW=b.json: what both reports measured, side by side, with the ratio of new to old."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

USAGE = "expected two files that `make bench` has written: make bench-compare OLD=a.json NEW=b.json"


def read(path: str) -> dict[str, Any]:
    """One report. Raises ValueError that says what is wrong with which file."""
    try:
        report = json.loads(Path(path).read_text("utf-8"))
    except OSError as error:
        raise ValueError(f"{path}: cannot be read: {error.strerror}") from error
    except ValueError as error:  # also what is no UTF-8
        raise ValueError(f"{path}: expected JSON: {error}") from error
    if not isinstance(report, dict) or not isinstance(report.get("runs"), dict):
        raise ValueError(f"{path}: expected a report of make bench, got no object with `runs`")
    return report


def flat(report: Mapping[str, Any], place: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], float]]:
    """Every number of a report with its place in it. Items of lists by their number."""
    for key, value in report.items():
        match value:
            case bool() | None | str():
                pass
            case int() | float():
                yield (*place, key), float(value)
            case dict():
                yield from flat(value, (*place, key))
            case list():
                yield from flat({str(index): item for index, item in enumerate(value)}, (*place, key))


def compared(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[tuple[str, float | None, float | None]]:
    """What was measured, in the old report's order and then the new one's: name, old, new. None: that one lacks it."""
    before, after = dict(flat(old)), dict(flat(new))
    return [(" / ".join(place), before.get(place), after.get(place)) for place in dict.fromkeys([*before, *after])]


def ratio(old: float | None, new: float | None) -> str:
    """New by old; a dash where there is no such number."""
    return "-" if old is None or new is None or not old else f"{new / old:.2f}"


def main(arguments: list[str]) -> int:
    """Print the table. 0: whatever the ratios are; 2: there is nothing to compare."""
    if len(arguments) != 2 or not all(arguments):
        print(f"bench-compare: {USAGE}", file=sys.stderr)
        return 2
    try:
        old, new = (read(path) for path in arguments)
    except ValueError as error:
        print(f"bench-compare: {error}", file=sys.stderr)
        return 2
    table = Table(title=f"{arguments[0]}, {arguments[1]}")
    for column in ("what", "old", "new", "new / old"):
        table.add_column(column, justify="left" if column == "what" else "right")
    for name, before, after in compared(old, new):
        cells = [
            "-" if value is None else f"{value:.4g}" if value < 1000 else f"{value:.0f}" for value in (before, after)
        ]
        table.add_row(name, *cells, ratio(before, after))
    Console(width=118, highlight=False, markup=False).print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
