"""Package URLs of PyPI's packages, and how names and versions are compared. Pure.

Of the many forms of a package URL these alone: pkg:pypi/NAME and pkg:pypi/NAME@VERSION.
Source: github.com/package-url/purl-spec, PEP 503 (names), PEP 440 (versions).
"""

from __future__ import annotations

import re
import urllib.parse
from typing import Final

from plugind.errors import InvalidRequestError

PREFIX: Final = "pkg:pypi/"
EXPECTED: Final = "pkg:pypi/NAME or pkg:pypi/NAME@VERSION, without namespace, qualifiers and subpath"
MOST_CHARS: Final = 300
_NAME: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,98}[A-Za-z0-9])?")
_ENCODED: Final = re.compile(r"(?:[A-Za-z0-9._~:-]|%[0-9A-Fa-f]{2})+")
_PRE: Final = {"alpha": "a", "beta": "b", "c": "rc", "pre": "rc", "preview": "rc"}
_VERSION: Final = re.compile(
    r"v?(?:(?P<epoch>[0-9]+)!)?(?P<release>[0-9]+(?:\.[0-9]+)*)"
    r"(?:[-_.]?(?P<pre>alpha|a|beta|b|preview|pre|c|rc)[-_.]?(?P<pre_n>[0-9]+)?)?"
    r"(?P<post>-(?P<post_short>[0-9]+)|[-_.]?(?:post|rev|r)[-_.]?(?P<post_n>[0-9]+)?)?"
    r"(?P<dev>[-_.]?dev[-_.]?(?P<dev_n>[0-9]+)?)?"
    r"(?:\+(?P<local>[a-z0-9]+(?:[-_.][a-z0-9]+)*))?"
)


def parse(text: str) -> str:
    """The package URL as it is compared: two texts for the same package give one. Raises InvalidRequestError."""
    name, at, encoded = text.removeprefix(PREFIX).partition("@")
    if len(text) > MOST_CHARS or not text.startswith(PREFIX) or not _NAME.fullmatch(name):
        raise InvalidRequestError(f"target: expected {EXPECTED}, got {text[:80]!r}")
    if not at:
        return PREFIX + normalized(name)
    version = _version_of(urllib.parse.unquote(encoded)) if _ENCODED.fullmatch(encoded) else ""
    if not version:
        raise InvalidRequestError(
            f"target: expected a version of PEP 440 after {name}@, percent-encoded (+ is %2B), got {encoded[:80]!r}"
        )
    return f"{PREFIX}{normalized(name)}@{version}"


def of_package(name: str, version: str) -> frozenset[str]:
    """Both package URLs that mean a package in this version. One without a version of PEP 440 has the first alone."""
    plain = PREFIX + normalized(name)
    known = _version_of(version)
    return frozenset({plain, f"{plain}@{known}"} if known else {plain})


def normalized(name: str) -> str:
    """A package's name as it is compared. Source: PEP 503."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _version_of(text: str) -> str:
    """As it is compared, without zeros at the release's end, percent-encoded; empty: it is none of PEP 440."""
    found = _VERSION.fullmatch(text.lower()) if text.isascii() else None
    return urllib.parse.quote(_compared(found), safe="") if found else ""


def _compared(found: re.Match[str]) -> str:
    release = re.sub(r"(?:\.0)+$", "", ".".join(map(_plain, found["release"].split("."))))
    epoch = _plain(found["epoch"] or "0")
    version = release if epoch == "0" else f"{epoch}!{release}"
    if pre := found["pre"]:
        version += f"{_PRE.get(pre, pre)}{_plain(found['pre_n'] or '0')}"
    if found["post"]:
        version += f".post{_plain(found['post_short'] or found['post_n'] or '0')}"
    if found["dev"]:
        version += f".dev{_plain(found['dev_n'] or '0')}"
    if found["local"]:
        version += "+" + ".".join(map(_plain, re.split(r"[-_.]", found["local"])))
    return version


def _plain(part: str) -> str:
    """A number without zeros before it. Text stays: int() would take minutes for some, and refuses others."""
    return (part.lstrip("0") or "0") if part.isdigit() else part
