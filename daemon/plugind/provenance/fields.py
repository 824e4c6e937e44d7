"""A table from TOML or JSON, read field by field: what is wrong is noted, and everything is told at the end."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from plugind.errors import InvalidBundleError

_MISSING: Any = object()
_SHOWN = 80
_MOST_UNKNOWN = 10


class Fields:
    """One table. Reading a field returns its checked value, or a harmless stand-in when a problem was noted.

    `where` names the file and `prefix` the table in messages; tables below share the list `problems`.
    """

    def __init__(
        self,
        table: Mapping[str, Any],
        where: str,
        known: Collection[str] | None = None,
        *,
        prefix: str = "",
        problems: list[str] | None = None,
    ) -> None:
        self._table = table
        self._where = where
        self._prefix = prefix
        self._tables: dict[str, Fields] = {}
        self._problems: list[str] = [] if problems is None else problems
        if known is not None:
            self.unknown_are(known)

    def finish(self) -> None:
        """Raise InvalidBundleError with all problems, if there are any."""
        if self._problems:
            raise InvalidBundleError(*self._problems)

    def problem(self, name: str, expected: str, got: str) -> None:
        """Note one problem: file, field, what was expected, what came."""
        field = f"{self._prefix}{name}".rstrip(".")
        self._problems.append(f"{self._where}: {field}: {expected}, got {got}")

    def unknown_are(self, known: Collection[str]) -> None:
        """Note every field that is not one of `known`, with the known name closest to it.

        Not more than ten, and shown harmlessly: the names are a stranger's, as many and as long as he likes.
        """
        unknown = [name for name in self._table if name not in known]
        for name in unknown[:_MOST_UNKNOWN]:
            close = difflib.get_close_matches(name[:_SHOWN], list(known), n=1, cutoff=0.5)
            hint = f"did you mean {close[0]}?" if close else f"known are: {', '.join(known)}"
            label = name if len(name) <= _SHOWN and name.isascii() and name.isprintable() else shown(name)
            self._problems.append(f"{self._where}: {self._prefix}{label}: unknown field; {hint}")
        if len(unknown) > _MOST_UNKNOWN:
            self._problems.append(f"{self._where}: {self._prefix}: {len(unknown) - _MOST_UNKNOWN} more unknown fields")

    def raw(self, name: str) -> Any:
        """The field as it stands, None when it is absent."""
        return self._table.get(name)

    def constant(self, name: str, expected: int) -> None:
        """A number that must be there and be exactly this."""
        value = self._required(name, str(expected), _MISSING)
        if value is not _MISSING and (type(value) is not int or value != expected):
            self.problem(name, f"expected {expected}", shown(value))

    def choice(self, name: str, choices: Sequence[str], default: Any = _MISSING) -> str:
        """One of some words."""
        expected = " or ".join(f'"{choice}"' for choice in choices)
        value = self._required(name, expected, default)
        if value is _MISSING:
            return choices[0]
        if not isinstance(value, str) or value not in choices:
            self.problem(name, f"expected {expected}", shown(value))
            return choices[0]
        return value

    def match(self, name: str, pattern: re.Pattern[str], expected: str, default: Any = _MISSING) -> str:
        """A string that the pattern matches as a whole."""
        value = self._required(name, expected, default)
        if value is _MISSING:
            return ""
        if not isinstance(value, str) or not pattern.fullmatch(value):
            self.problem(name, f"expected {expected}", shown(value))
            return ""
        return value

    def check(self, name: str, check: Callable[[str], str], default: Any = _MISSING) -> str:
        """A string for which `check` returns an empty string, or else what was expected."""
        value = self._required(name, "a string", default)
        if value is _MISSING or (default is not _MISSING and name not in self._table):
            return "" if value is _MISSING else str(value)
        if not isinstance(value, str):
            self.problem(name, "expected a string", shown(value))
            return ""
        if expected := check(value):
            self.problem(name, f"expected {expected}", shown(value))
            return ""
        return value

    def boolean(self, name: str, default: Any = _MISSING) -> bool:
        """True or false."""
        value = self._required(name, "true or false", default)
        if value is _MISSING:
            return False
        if not isinstance(value, bool):
            self.problem(name, "expected true or false", shown(value))
            return False
        return value

    def integer(self, name: str, low: int, high: int, default: Any = _MISSING) -> int:
        """A whole number within a range; the default need not be in it."""
        value = self._required(name, f"a whole number from {low} to {high}", default)
        if value is _MISSING or name not in self._table:
            return 0 if value is _MISSING else int(value)
        if type(value) is not int or not low <= value <= high:
            self.problem(name, f"expected a whole number from {low} to {high}", shown(value))
            return 0
        return value

    def strings(
        self, name: str, pattern: re.Pattern[str], expected: str, *, may_be_empty: bool = False
    ) -> tuple[str, ...]:
        """A list of different strings that each match; absent is the empty list where that is allowed."""
        expected = f"a list of {expected}"
        value = self._required(name, expected, [] if may_be_empty else _MISSING)
        if value is _MISSING:
            return ()
        if not isinstance(value, list) or not (value or may_be_empty):
            self.problem(name, f"expected {expected}", shown(value))
            return ()
        for item in value:
            if not isinstance(item, str) or not pattern.fullmatch(item):
                self.problem(name, f"expected {expected}", shown(item))
                return ()
        if len(set(value)) != len(value):
            self.problem(name, "expected each one once", shown(value))
        return tuple(value)

    def table(self, name: str) -> Fields:
        """A table below; absent is the empty one."""
        if name not in self._tables:
            value = self._table.get(name, {})
            if not isinstance(value, dict):
                self.problem(name, f"expected a table [{self._prefix}{name}]", shown(value))
                value = {}
            self._tables[name] = Fields(value, self._where, prefix=f"{self._prefix}{name}.", problems=self._problems)
        return self._tables[name]

    def tables(self, name: str) -> list[Fields]:
        """A list of tables below; absent is the empty one."""
        value = self._table.get(name, [])
        if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
            self.problem(name, f"expected tables [[{self._prefix}{name}]]", shown(value))
            return []
        return [
            Fields(item, self._where, prefix=f"{self._prefix}{name}[{index}].", problems=self._problems)
            for index, item in enumerate(value)
        ]

    def _required(self, name: str, expected: str, default: Any) -> Any:
        value = self._table.get(name, default)
        if value is _MISSING:
            self.problem(name, f"expected {expected}", "nothing: the field is missing")
        return value


def shown(value: Any) -> str:
    """A value as its author wrote it, more or less, cut short."""
    try:
        text = json.dumps(value, ensure_ascii=True, default=str)
    except (ValueError, RecursionError):
        text = type(value).__name__
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
