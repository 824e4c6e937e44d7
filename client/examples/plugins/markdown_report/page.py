"""Markdown out of texts that nobody has checked."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable


def text(value: str) -> str:
    """One line, without markup."""
    escaped = re.sub(r"([\\`*_\[\]<>|#~])", r"\\\1", " ".join(value.split()))
    # A list, the underline of a heading or a rule begin so.
    return re.sub(r"^([-+=]|\d+[.)](?=\s|$))", lambda found: f"{found[0][:-1]}\\{found[0][-1]}", escaped)


def table(heads: Iterable[str], rows: Iterable[Iterable[str]], numbers: Collection[int] = ()) -> str:
    """Cells are texts; the columns `numbers` are aligned to the right. Empty where there is no row."""
    lines = [[text(cell) for cell in row] for row in rows]
    if not lines:
        return ""
    names = [text(head) for head in heads]
    rule = ["-:" if column in numbers else "-" for column in range(len(names))]
    return "\n".join(f"| {' | '.join(line)} |" for line in (names, rule, *lines))


def items(lines: Iterable[str]) -> str:
    """A list; what is in it is Markdown already."""
    return "\n".join(f"- {line}" for line in lines)
