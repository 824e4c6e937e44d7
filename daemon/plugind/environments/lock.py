"""requirements.lock: every package with its one version and the sha256 of each file that it may be.

The format is pip's, as pip-compile and uv write it; what names no exact file is refused. pip itself never reads the
lock but what `render` makes of it: the two cannot understand it differently.
Source: pip's "Requirements File Format", PEP 508, PEP 440.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from plugind.errors import InvalidEnvironmentError
from plugind.purl import normalized

MAX_LOCK_BYTES: Final = 1024 * 1024
MAX_MARKER_CHARS: Final = 1000
_GENERATE = "write the lock with `pip-compile --generate-hashes` or `uv pip compile --generate-hashes`"
_NAME = r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,98}[A-Za-z0-9])?"
_VERSION = (
    r"(?:[0-9]+!)?[0-9]+(?:\.[0-9]+)*(?:(?:a|b|rc)[0-9]+)?(?:\.post[0-9]+)?(?:\.dev[0-9]+)?"
    r"(?:\+[a-z0-9]+(?:\.[a-z0-9]+)*)?"
)
_EXTRAS = rf"\[ ?(?:{_NAME}(?: ?, ?{_NAME})*)? ?\]"
_PINNED = re.compile(rf"({_NAME}) ?(?:{_EXTRAS})? ?== ?({_VERSION}) ?(?:;(.*))?")
_COMMENT = re.compile(r"(?:^| )#.*")
_BEFORE_OPTION = re.compile(r"(?:^| )(?=-)")
_HASH = re.compile(r"--hash=([a-z0-9_]+):([0-9a-f]+)")
_ELSEWHERE = re.compile(r"://| @ |^[./~]|\.(?:whl|zip|tar\.gz)$")
_VARIABLE = (
    r"(?:python_(?:full_)?version|platform_(?:release|system|version|machine|python_implementation)"
    r"|implementation_(?:name|version)|os_name|sys_platform|extra)\b"
)
_MARKER_TOKENS: Final = (
    ("A", re.compile(r"(?:and|or)\b")),
    ("O", re.compile(r"===|==|~=|!=|<=|>=|<|>|in\b|not in\b")),
    ("V", re.compile(_VARIABLE)),
    ("V", re.compile(r"'[A-Za-z0-9._+, ]*'|\"[A-Za-z0-9._+, ]*\"")),
    ("(", re.compile(r"\(")),
    (")", re.compile(r"\)")),
    ("", re.compile(r" ")),
)
_OF_OPTION: Final = {
    "--hash": "end the line before it with a backslash",
    "-e": "build a wheel of it, pin that, and give its folder with --wheels",
    "--editable": "build a wheel of it, pin that, and give its folder with --wheels",
    "-r": "write all packages into one lock",
    "--requirement": "write all packages into one lock",
    "-c": "write all packages into one lock",
    "--constraint": "write all packages into one lock",
}


@dataclass(frozen=True, slots=True)
class Requirement:
    """One package. `name` is normalized (PEP 503); `marker` says where it is needed at all, and is mostly empty."""

    name: str
    version: str
    marker: str
    hashes: tuple[str, ...]
    """sha256 in hex, of each file that will do."""


@dataclass(frozen=True, slots=True)
class Lock:
    """A lock and the sha256 of the file, in hex."""

    digest: str
    requirements: tuple[Requirement, ...]


def read(path: Path) -> Lock:
    """The lock in a file. Raises InvalidEnvironmentError, with the line where it is one; OSError."""
    with path.open("rb") as file:
        data = file.read(MAX_LOCK_BYTES + 1)
    try:
        return Lock(hashlib.sha256(data).hexdigest(), parse(data))
    except InvalidEnvironmentError as error:
        raise InvalidEnvironmentError(f"{path}: {error}") from error


def render(requirements: tuple[Requirement, ...]) -> str:
    """A lock that says the same, in as few words as there are."""
    return "".join(
        f"{each.name}=={each.version}"
        + (f" ; {each.marker}" if each.marker else "")
        + "".join(f" \\\n    --hash=sha256:{digest}" for digest in each.hashes)
        + "\n"
        for each in requirements
    )


def parse(data: bytes) -> tuple[Requirement, ...]:
    """The packages that a lock names, in its order. Raises InvalidEnvironmentError."""
    if len(data) > MAX_LOCK_BYTES:
        raise InvalidEnvironmentError(f"expected at most {MAX_LOCK_BYTES} bytes, got more: this is no lock")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        number = data.count(b"\n", 0, error.start) + 1
        raise InvalidEnvironmentError(
            f"line {number}: expected UTF-8, got the byte 0x{data[error.start]:02x}"
        ) from None
    first: dict[str, int] = {}
    requirements: list[Requirement] = []
    for number, line in _logical_lines(text):
        try:
            requirement = _requirement(line)
        except InvalidEnvironmentError as error:
            raise InvalidEnvironmentError(f"line {number}: {error}") from None
        if requirement.name in first:
            raise InvalidEnvironmentError(
                f"line {number}: expected each package once, got {requirement.name} again after line "
                f"{first[requirement.name]}: write the lock for one version of Python and one platform"
            )
        first[requirement.name] = number
        requirements.append(requirement)
    if not requirements:
        raise InvalidEnvironmentError(f"expected packages, got none: {_GENERATE}")
    return tuple(requirements)


def _logical_lines(text: str) -> Iterator[tuple[int, str]]:
    """What is not empty, without comments; a backslash continues a line, but for a comment's, which ends it."""
    start, said = 1, ""
    for number, raw in enumerate([*text.split("\n"), ""], 1):
        line = raw.removesuffix("\r")
        is_comment = line.lstrip(" \t").startswith("#")
        if not is_comment:
            said += line.rstrip("\\")
        if line.endswith("\\") and not is_comment:
            continue
        one_space = re.sub(r"[ \t]+", " ", said)
        if without_comment := _COMMENT.sub("", one_space).strip(" "):
            yield start, without_comment
        start, said = number + 1, ""


def _requirement(line: str) -> Requirement:
    said, *options = _BEFORE_OPTION.split(line)
    if not said:
        option = re.split(r"[ =]", options[0])[0]
        remedy = _OF_OPTION.get(option, "take it out; where pip looks for packages is set in its own configuration")
        raise InvalidEnvironmentError(f"expected NAME==VERSION, got the option {option!r:.80}: {remedy}")
    pinned = _PINNED.fullmatch(said)
    if pinned is None:
        remedy = _GENERATE
        if _ELSEWHERE.search(said):
            remedy = "pin its version and its sha256, and give the folder with its wheel with --wheels"
        raise InvalidEnvironmentError(f"expected NAME==VERSION, got {said!r:.80}: {remedy}")
    name, version, marker = normalized(pinned[1]), pinned[2], pinned[3]
    if marker is not None and not _is_marker(marker := marker.strip(" ")):
        raise InvalidEnvironmentError(f"expected a marker such as python_version < '3.12', got {marker!r:.80}")
    return Requirement(name, version, marker or "", _hashes(name, options))


def _hashes(name: str, options: list[str]) -> tuple[str, ...]:
    hashes: list[str] = []
    for option in options:
        match = _HASH.fullmatch(option)
        if match is None:
            raise InvalidEnvironmentError(f"expected --hash=sha256:HEX after {name}, got {option!r:.80}: take it out")
        if match[1] != "sha256":
            continue
        if len(match[2]) != 64:
            raise InvalidEnvironmentError(f"expected 64 digits in a sha256 of {name}, got {len(match[2])}: {_GENERATE}")
        hashes.append(match[2])
    if not hashes:
        got = "other hashes only" if options else "none"
        raise InvalidEnvironmentError(f"expected --hash=sha256:HEX after {name}, got {got}: {_GENERATE}")
    return tuple(dict.fromkeys(hashes))


def _is_marker(text: str) -> bool:
    """Whether it is an expression of PEP 508: comparisons, `and`, `or` and parentheses."""
    shape, place = "", 0
    while place < len(text) <= MAX_MARKER_CHARS:
        for letter, pattern in _MARKER_TOKENS:
            if match := pattern.match(text, place):
                shape, place = shape + letter, match.end()
                break
        else:
            return False
    shape, before = shape.replace("VOV", "C"), ""
    while shape != before:
        shape, before = re.sub(r"\(C(?:AC)*\)", "C", shape), shape
    return re.fullmatch(r"C(?:AC)*", shape) is not None
