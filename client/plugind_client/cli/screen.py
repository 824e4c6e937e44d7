"""Printing for people: tables without garbage in pipes, and nothing from a plugin that could steer a terminal."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sys
import textwrap
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TextIO

_STEERING = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
"""Unicode categories that move the cursor, change the direction of text, or break lines where none are seen."""
_PIPE_WIDTH = 10_000
"""In a pipe there is no width to fit into."""
_LEAST_WIDTH = 60
"""Of a paragraph: in less, what stands before its lines would leave no room for words."""


def visible(text: str) -> str:
    """The text with control and format characters as escapes. New lines and tabs stay.

    The escapes are JSON's, so JSON text remains the same JSON.
    """
    return "".join(_escaped(character) for character in text)


def one_line(text: str) -> str:
    """The same with its line ends escaped too: what a plugin says cannot look like a line of ours."""
    return visible(text).replace("\n", "\\n")


def _escaped(character: str) -> str:
    if character in "\n\t" or unicodedata.category(character) not in _STEERING:
        return character
    return json.dumps(character)[1:-1] if character != "\x7f" else "\\u007f"


def to_stream(text: str, stream: TextIO) -> None:
    """A plugin's text on a stream: as it is into a pipe or file, escaped onto a terminal."""
    print(visible(text) if stream.isatty() else text, file=stream)


def print_json(value: Any) -> None:
    """One JSON text on standard output: one line in a pipe, indented on a terminal, and steering neither."""
    print(visible(json.dumps(value, ensure_ascii=False, indent=2 if sys.stdout.isatty() else None)))


def note(text: str) -> None:
    """A line for people, on standard error."""
    print(one_line(text), file=sys.stderr)


def answered(question: str) -> str:
    """What a person at the terminal answers; empty at the end of the input."""
    print(one_line(question), end=" ", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip()


def agreed(question: str) -> bool:
    """Whether a person at the terminal says yes. Nothing is a no."""
    return answered(f"{question} [y/N]").lower() in {"y", "yes"}


def table(headings: Sequence[str], rows: Iterable[Sequence[str]], *, stream: TextIO | None = None) -> None:
    """A table: coloured and folded on a terminal, plain and as wide as it is in a pipe."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    stream = stream or sys.stdout
    shown = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for heading in headings:
        shown.add_column(heading, overflow="fold")
    for row in rows:
        # Columns are made as wide as a tab counts, which is less than it takes.
        shown.add_row(*(Text(one_line(cell).replace("\t", " ")) for cell in row))
    width = None if stream.isatty() else _PIPE_WIDTH
    Console(file=stream, width=width, markup=False, highlight=False).print(shown)


@contextlib.contextmanager
def progress() -> Iterator[Callable[[str], None]]:
    """For telling what is being done, on standard error: a line that changes on a terminal, else a line for each."""
    from rich.console import Console
    from rich.text import Text

    console = Console(stderr=True)
    if not console.is_terminal or console.is_dumb_terminal:
        yield note
        return
    with console.status("") as status:
        yield lambda text: status.update(Text(one_line(text), no_wrap=True, overflow="ellipsis"))


def paragraph(text: str, first: str, others: str) -> list[str]:
    """A text in lines as wide as the terminal, with what precedes the first and the other ones; one line in a pipe."""
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else _PIPE_WIDTH
    return textwrap.wrap(
        one_line(text),
        width=max(width, _LEAST_WIDTH),
        initial_indent=first,
        subsequent_indent=others,
        break_long_words=False,
        break_on_hyphens=False,
    )


def show_lines(lines: Iterable[tuple[str, str]]) -> None:
    """Lines, each with its style (a colour, "bold" or ""), on standard output; plain in a pipe or with NO_COLOR."""
    import typer

    plain = not sys.stdout.isatty() or bool(os.environ.get("NO_COLOR")) or os.environ.get("TERM") == "dumb"
    for line, style in lines:
        codes = {} if plain else {"bold": {"bold": True}, "": {}}.get(style, {"fg": style})
        print(typer.style(visible(line), **codes) if codes else visible(line))
