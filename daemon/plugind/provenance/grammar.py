"""How the words in a manifest may look. A check returns what was expected, or nothing when all is well."""

from __future__ import annotations

import ipaddress
import keyword
import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from plugind import addresses
from plugind.environments import shelf
from plugind.provenance.fields import Fields

# A name must not look like an id.
NAME: Final = re.compile(r"(?!plug_[0-9]+$)[a-z][a-z0-9_]{1,62}")
# At most five digits each: the sequence number made of them stays below 2**53.
_NUMBER = r"(?:0|[1-9][0-9]{0,4})"
# What follows the plus sign is put there by `plugindctl try` for a folder that was edited since it was submitted.
VERSION: Final = re.compile(rf"{_NUMBER}\.{_NUMBER}\.{_NUMBER}(?:\+try\.[0-9a-f]{{8}})?")
ADAPTED_FROM: Final = re.compile(rf"plug_[1-9][0-9]{{0,17}}@{VERSION.pattern}")
LICENSE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+() :-]{0,99}")
ENVIRONMENT: Final = shelf.NAME
STAGE: Final = re.compile(r"\*|[a-z][a-z0-9_]{0,62}")
WORD: Final = re.compile(r"[a-z][a-z0-9_.-]{0,62}")
_IDENTIFIER = rf"(?!(?:{'|'.join(keyword.kwlist)})(?![A-Za-z0-9_]))[A-Za-z_][A-Za-z0-9_]*"
MODULE: Final = re.compile(rf"{_IDENTIFIER}(?:\.{_IDENTIFIER})*")
MODULE_FUNCTION: Final = re.compile(rf"{MODULE.pattern}:{_IDENTIFIER}")
CLASS: Final = re.compile(r"[a-z][a-z0-9_]*(?:\.[a-z][a-z0-9_]*)*")
METHOD: Final = re.compile(r"GET|HEAD|POST|PUT|PATCH|DELETE|OPTIONS")
API_PATH: Final = re.compile(r"(?!.*/\.{1,2}(?:/|$))/[!-~]{0,254}")

MAX_PATH: Final = 255
_HOST_LABEL = re.compile(r"(?!-)[a-z0-9-]{1,63}(?<!-)")
_SPECIFIER = re.compile(r"(>=|<=|==|!=|~=|>|<)\s*(0|[1-9][0-9]*)(?:\.(0|[1-9][0-9]*))?(?:\.(0|[1-9][0-9]*))?(\.\*)?")


def one_line(text: str) -> str:
    """Something to show on a terminal: no control characters, no changes of writing direction."""
    return (
        ""
        if 0 < len(text) <= 200 and text.isprintable() and text == text.strip()
        else "one line of 1 to 200 characters"
    )


def bundle_path(path: str) -> str:
    """A path in a bundle: relative, printable ASCII, nothing hidden, no `.` or `..`, no bytecode."""
    if not path or len(path) > MAX_PATH:
        return f"a path of 1 to {MAX_PATH} characters"
    if path.startswith("/"):
        return "a path relative to the plugin's folder"
    if re.search(r"[^ -~]|\\", path):
        return "a path of printable ASCII without backslash"
    for part in path.split("/"):
        if part in ("", ".", ".."):
            return "a path without empty, . or .. parts"
        if part.startswith(".") or part != part.strip() or part == "__pycache__":
            return "a path without hidden, padded or __pycache__ parts"
    return "a path to no bytecode" if path.endswith(".pyc") else ""


def path_pattern(pattern: str) -> str:
    """A pattern for files of a plan: relative, * ? [] within one part, no `.` or `..`."""
    if not pattern or len(pattern) > MAX_PATH:
        return f"a pattern of 1 to {MAX_PATH} characters"
    if pattern.startswith("/") or "\\" in pattern or not pattern.isprintable():
        return "a pattern relative to the plan's folder, printable and without backslash"
    if any(part in ("", ".", "..") for part in pattern.split("/")):
        return "a pattern without empty, . or .. parts"
    return "* within one part of the path, and no **" if "**" in pattern else ""


def host(name: str) -> str:
    """A DNS name in lower case, an address, or a wildcard, which is worth nothing without a list in the policy."""
    expected = 'a host name in lower case or an address, such as "api.example.org"'
    try:
        ipaddress.ip_address(name)
    except ValueError:
        labels = name.split(".")
        is_name = len(name) <= 253 and all(_HOST_LABEL.fullmatch(label) for label in labels)
        is_good = (is_name and not labels[-1].isdecimal()) or addresses.is_wildcard(name)
        return "" if is_good else expected
    return expected if "%" in name else ""


def python_specifier(text: str) -> str:
    """Comma-separated comparisons of versions. Source: PEP 440."""
    parts = [_SPECIFIER.fullmatch(part.strip()) for part in text.split(",")]
    if any(part is None or (part[5] and (part[1] not in ("==", "!=") or part[4])) for part in parts):
        return 'version specifiers, such as ">=3.11" or ">=3.11,<3.14"'
    if any(part and part[1] == "~=" and part[3] is None for part in parts):
        return "~= with at least two numbers, such as ~=3.11"
    return ""


def python_matches(text: str, version: tuple[int, int, int]) -> bool:
    """Whether a version satisfies specifiers that `python_specifier` has accepted."""
    return all(_one_matches(part, version) for part in text.split(","))


def _one_matches(text: str, version: tuple[int, int, int]) -> bool:
    match = _SPECIFIER.fullmatch(text.strip())
    if match is None:
        return False
    given = [int(number) for number in match.groups()[1:4] if number is not None]
    wanted = tuple(given + [0] * (3 - len(given)))
    if match[5]:
        return (version[: len(given)] == tuple(given)) == (match[1] == "==")
    comparisons: dict[str, bool] = {
        ">=": version >= wanted,
        "<=": version <= wanted,
        ">": version > wanted,
        "<": version < wanted,
        "==": version == wanted,
        "!=": version != wanted,
        "~=": version >= wanted and version[: len(given) - 1] == wanted[: len(given) - 1],
    }
    return comparisons[match[1]]


_FieldCheck = Callable[[Fields, str], Any]


def _text(check: Callable[[str], str]) -> _FieldCheck:
    return lambda fields, name: fields.check(name, check)


def _matching(pattern: re.Pattern[str], expected: str) -> _FieldCheck:
    return lambda fields, name: fields.match(name, pattern, expected)


def _list(pattern: re.Pattern[str], expected: str) -> _FieldCheck:
    return lambda fields, name: list(fields.strings(name, pattern, expected))


PERMISSION_FIELDS: Final[Mapping[str, Mapping[str, _FieldCheck]]] = {
    "file_read": {"path": _text(path_pattern)},
    "file_write": {"path": _text(path_pattern)},
    "network": {
        "host": _text(host),
        "port": lambda fields, name: fields.integer(name, 1, 65535),
        "protocol": lambda fields, name: fields.choice(name, ("tcp", "udp")),
    },
    "external_api": {
        "api": _matching(WORD, "the name of an API that the operator configured"),
        "methods": _list(METHOD, 'HTTP methods such as "GET"'),
        "paths": _list(API_PATH, 'paths such as "/v1/rates"'),
    },
    "sensitive_data": {"class": _matching(CLASS, 'a class of data such as "plan.prompts"')},
}
"""What each kind of permission consists of; all fields are required."""
