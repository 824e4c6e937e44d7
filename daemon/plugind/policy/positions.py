"""Where each key and value of a TOML text stands: tomllib tells positions of syntax errors only.

For text that tomllib has accepted: nothing is checked here and no value is understood. Source: TOML 1.0.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

Path: TypeAlias = tuple[str | int, ...]
"""Keys from the root, and indices within arrays."""

_BLANK = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_SPACE = re.compile(r"[ \t]*")
_KEY = re.compile(r"[A-Za-z0-9_-]+|\"(?:[^\"\\\n]|\\.)*\"|'[^'\n]*'")
_STRING = re.compile(
    r'"""(?:[^\\]|\\.)*?"""(?:"{0,2})'
    r"|'''.*?'''(?:'{0,2})"
    r'|"(?:[^"\\\n]|\\.)*"'
    r"|'[^'\n]*'",
    re.DOTALL,
)
_SCALAR = re.compile(r"[^,\]}#\n]*")


@dataclass(frozen=True, slots=True)
class Position:
    """Line and column, each from 1; columns count characters."""

    line: int
    column: int

    def __str__(self) -> str:
        return f"{self.line}:{self.column}"


@dataclass(frozen=True, slots=True)
class Positions:
    """Where the keys and the values are; a table's value is where its header is."""

    keys: Mapping[Path, Position]
    values: Mapping[Path, Position]

    def key(self, path: Path) -> Position:
        """Of a key, or of the nearest table around it."""
        return _nearest(self.keys, path)

    def value(self, path: Path) -> Position:
        """Of a value, or of the nearest one around it."""
        return _nearest(self.values, path)


def _nearest(known: Mapping[Path, Position], path: Path) -> Position:
    for length in range(len(path), 0, -1):
        if path[:length] in known:
            return known[path[:length]]
    return Position(1, 1)


def find(text: str) -> Positions:
    """The positions in a text that tomllib accepts."""
    scanner = _Scanner(text)
    scanner.document()
    return Positions(
        {path: scanner.position(offset) for path, offset in scanner.keys.items()},
        {path: scanner.position(offset) for path, offset in scanner.values.items()},
    )


@dataclass(slots=True)
class _Scanner:
    text: str
    at: int = 0
    keys: dict[Path, int] = field(default_factory=dict)
    values: dict[Path, int] = field(default_factory=dict)
    array_tables: dict[Path, int] = field(default_factory=dict)
    """Index of the newest element of each [[array of tables]]."""
    line_starts: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.line_starts = [0, *(match.end() for match in re.finditer("\n", self.text))]

    def position(self, offset: int) -> Position:
        low, high = 0, len(self.line_starts)
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if self.line_starts[middle] <= offset else (low, middle)
        return Position(low + 1, offset - self.line_starts[low] + 1)

    def skip(self, pattern: re.Pattern[str]) -> str:
        match = pattern.match(self.text, self.at)
        if match is None:
            return ""
        self.at = match.end()
        return match[0]

    def document(self) -> None:
        table: Path = ()
        self.skip(_BLANK)
        while self.at < len(self.text):
            before = self.at
            if self.text[self.at] == "[":
                table = self.header()
            else:
                self.pair(table)
            self.skip(_BLANK)
            if self.at == before:  # tomllib would have refused it
                return

    def header(self) -> Path:
        is_array = self.text.startswith("[[", self.at)
        self.at += 2 if is_array else 1
        path = self.dotted((), through_arrays=not is_array)
        if is_array:
            self.array_tables[path] = self.array_tables.get(path, -1) + 1
            path = (*path, self.array_tables[path])
            self.values[path] = self.values[path[:-1]]
        self.at += 2 if is_array else 1
        return path

    def pair(self, table: Path) -> None:
        path = self.dotted(table)
        self.at += 1  # =
        self.skip(_SPACE)
        self.value(path)

    def dotted(self, path: Path, *, through_arrays: bool = False) -> Path:
        """One key with its dots. In a header a part may name an array of tables: its newest element is meant."""
        while True:
            self.skip(_SPACE)
            start = self.at
            path = (*path, _decoded(self.skip(_KEY)))
            self.keys.setdefault(path, start)
            self.values.setdefault(path, start)
            self.skip(_SPACE)
            is_last = self.text[self.at : self.at + 1] != "."
            if is_last and path not in self.array_tables:  # rather here than where a table below it has named it first
                self.keys[path] = self.values[path] = start
            if path in self.array_tables and (through_arrays or not is_last):
                path = (*path, self.array_tables[path])
            if is_last:
                return path
            self.at += 1

    def value(self, path: Path) -> None:
        self.values[path] = self.at
        start = self.text[self.at : self.at + 1]
        if start == "[":
            self.array(path)
        elif start == "{":
            self.inline_table(path)
        elif start in ("'", '"'):
            self.skip(_STRING)
        else:
            self.skip(_SCALAR)

    def array(self, path: Path) -> None:
        self.at += 1
        index = 0
        self.skip(_BLANK)
        before = -1
        while self.text[self.at : self.at + 1] not in ("]", "") and self.at != before:
            before = self.at
            self.value((*path, index))
            index += 1
            self.comma()
        self.at += 1

    def inline_table(self, path: Path) -> None:
        self.at += 1
        self.skip(_BLANK)
        before = -1
        while self.text[self.at : self.at + 1] not in ("}", "") and self.at != before:
            before = self.at
            self.pair(path)
            self.comma()
        self.at += 1

    def comma(self) -> None:
        self.skip(_BLANK)
        if self.text[self.at : self.at + 1] == ",":
            self.at += 1
            self.skip(_BLANK)


def _decoded(key: str) -> str:
    return next(iter(tomllib.loads(f"{key} = 0"))) if key[:1] == '"' else key.strip("'")
