"""Secrets in what a plugin gives out: found by their fixed beginnings and shapes, before anybody is given them. Pure.

It finds what leaks by accident or by a clumsy thief, and not what is disguised: who encodes what he steals is stopped
by having nothing to read and nowhere to send it. A pattern that fits ordinary text now and then would do more harm than
good here, because what it finds ends in quarantine. What the caller has given may come back.
Sources of the shapes: the makers' own pages on secret scanning; crypt(5), RFC 7468, RFC 7519.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

Text = bytes | bytearray


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of secret. One of `needles` is in every text that has one; the pattern's last group is the secret."""

    name: str
    needles: tuple[bytes, ...]
    pattern: re.Pattern[bytes]


def _kind(name: str, needles: str, pattern: bytes) -> Kind:
    return Kind(name, tuple(needles.encode().split()), re.compile(pattern))


# Every pattern is linear: it begins with its needle, and after a repetition without bound comes nothing that can fail,
# or none of the places within it is a beginning (the lookbehind), or the repetition gives nothing back (++, {}+).
_WORD: Final = rb"(?<![A-Za-z0-9])"
_KEY: Final = (
    rb"-----BEGIN (?:[A-Z0-9]{1,12} ){0,3}PRIVATE KEY(?: BLOCK)?-----\s*+"
    rb"(?:[A-Za-z-]{1,30}: ?[^\r\n]{0,200}+[\r\n]++){0,8}+\s*+([A-Za-z0-9+/]{24,}+[A-Za-z0-9+/=\s]{0,20000}+)"
)
_JWT: Final = rb"(?<![A-Za-z0-9_-])eyJ[A-Za-z0-9_-]{10,}+\.(eyJ[A-Za-z0-9_-]{10,}+\.[A-Za-z0-9_-]{32,}+)"
TOKENS: Final = (
    _kind(
        "AWS secret access key",
        "aws_secret_access_key AWS_SECRET_ACCESS_KEY",
        rb"(?:aws_secret_access_key|AWS_SECRET_ACCESS_KEY)[\"']?\s{0,4}[:=]\s{0,4}[\"']?([A-Za-z0-9+/]{40})(?![A-Za-z0-9+/=])",
    ),
    _kind("GitHub token", "ghp_ gho_ ghu_ ghs_ ghr_", _WORD + rb"(gh[pousr]_[A-Za-z0-9]{36,})"),
    _kind("GitHub token", "github_pat_", _WORD + rb"(github_pat_[A-Za-z0-9]{22}_[A-Za-z0-9]{59})"),
    _kind("GitLab token", "glpat- gldt- glrt-", _WORD + rb"(gl(?:pat|dt|rt)-[A-Za-z0-9_-]{20,})"),
    _kind("Slack token", "xox", _WORD + rb"(xox[abeoprs]-(?:\d-)?\d{8,16}-[A-Za-z0-9-]{16,})"),
    _kind("Slack token", "xapp-", _WORD + rb"(xapp-\d-[A-Z0-9]{8,16}-\d{8,16}-[a-z0-9]{32,})"),
    _kind("OpenAI key", "T3BlbkFJ", rb"(?<=[A-Za-z0-9_-]{20})(T3BlbkFJ[A-Za-z0-9_-]{20,})"),
    _kind("Anthropic key", "sk-ant-", _WORD + rb"(sk-ant-[a-z0-9]{3,10}-[A-Za-z0-9_-]{60,})"),
    _kind("Stripe key", "sk_live_ rk_live_", _WORD + rb"([sr]k_live_[A-Za-z0-9]{20,})"),
    _kind("Google API key", "AIza", _WORD + rb"(AIza[A-Za-z0-9_-]{35})(?![A-Za-z0-9_-])"),
    _kind("Google client secret", "GOCSPX-", _WORD + rb"(GOCSPX-[A-Za-z0-9_-]{28})(?![A-Za-z0-9_-])"),
    _kind("JSON web token", "eyJ", _JWT),
    _kind("npm token", "npm_", _WORD + rb"(npm_[A-Za-z0-9]{36})(?![A-Za-z0-9])"),
    _kind("PyPI token", "pypi-AgE", _WORD + rb"(pypi-AgE[A-Za-z0-9_-]{50,})"),
    _kind("Hugging Face token", "hf_", _WORD + rb"(hf_[A-Za-z]{34})(?![A-Za-z0-9])"),
    _kind("SendGrid key", "SG.", _WORD + rb"(SG\.[A-Za-z0-9_-]{22}\.[A-Za-z0-9_-]{43})(?![A-Za-z0-9_-])"),
    _kind("Vault token", "hvs.", _WORD + rb"(hvs\.[A-Za-z0-9_-]{24,})"),
    _kind("age secret key", "AGE-SECRET-KEY-1", _WORD + rb"(AGE-SECRET-KEY-1[0-9A-Z]{58})"),
)
"""All have a run of RUN letters, digits, _ and - within: one look for such a run is enough for ordinary text."""
SHORT: Final = (
    _kind("private key", "-----BEGIN", _KEY),
    _kind("AWS access key id", "AKIA ASIA", _WORD + rb"((?:AKIA|ASIA)[A-Z2-7]{16})(?![A-Za-z0-9])"),
)
"""What need not have such a run."""
URL: Final = Kind(
    "password in a URL",
    (b"://",),
    re.compile(rb"://([^\s/?#:@\"'\\<>]{0,64}):([^\s/?#@\"'\\<>{}$*%\[\]]{3,128})@(?=[A-Za-z0-9\[])"),
)
SHADOW: Final = _kind(
    "password hash", ":$ :!$", rb"(?<=[a-z0-9_.-]):!?(\$(?:[1567y]|gy|2[abxy]|apr1)\$[^\s:\"'\\,]{20,})"
)
RUN: Final = 24
"""More than any double has digits in a row (0.00012345678901234567), and no more than the shortest token."""
_RUN: Final = b"x" * RUN
_TO_RUNS: Final = bytes(120 if (chr(byte).isalnum() and byte < 128) or byte in b"_-" else 32 for byte in range(256))
_PLACEHOLDERS: Final = frozenset(
    b"password passwd pass pwd pw secret token user username changeme example xxx xxxx your_password mypassword".split()
)
_FEWEST_DIFFERENT: Final = 8
"""Bytes in a secret: `ghp_xxxx…` in somebody's documentation has fewer."""
_LETTER: Final = re.compile(rb"\\u00[2-7]")
_ESCAPE: Final = re.compile(rb"\\(u00[0-7][0-9a-fA-F]|.)", re.DOTALL)
_MEANS: Final = {b"n": b"\n", b"r": b"\r", b"t": b"\t", b"b": b"\b", b"f": b"\f", b"u": b"\\u"}
_DEPTH: Final = 3
"""JSON in a text in JSON: so often escapes are undone."""
_LOOKUPS: Final = 64
"""Searches of the whole input for something that stands there in another shape. One that is beyond was not given."""


def found(output: Text, given: Text) -> str:
    """The kind of the first secret in `output` that is not in `given` as well; empty: there is none."""
    kinds = _possible(output)
    hidden = b"\\" in output and _hides(output)
    if not kinds and not hidden:
        return ""
    known = _Given(given)
    # A password in a URL is the same with escapes and without, unless they hide the URL.
    for view in _views(output, _DEPTH if hidden or kinds != [URL] else 0):
        for kind in _possible(view):
            if any(not known.has(kind, secret) for secret in _secrets(kind, view)):
                return kind.name
    return ""


def _possible(text: Text) -> list[Kind]:
    """The kinds that can be in there at all. All that most outputs cost: a few searches for a fixed text."""
    kinds = [kind for kind in SHORT if _has_one(kind, text)]
    if _RUN in text.translate(_TO_RUNS):
        kinds += [kind for kind in TOKENS if _has_one(kind, text)]
    if b"@" in text and _has_one(URL, text):
        kinds.append(URL)
    if b"$" in text and _has_one(SHADOW, text):
        kinds.append(SHADOW)
    return kinds


def _hides(text: Text) -> bool:
    """Whether letters, or the slashes of a URL, are written as escapes: then no needle can be trusted."""
    if b"@" in text and b":\\/" in text:
        return True
    return b"\\u00" in text and _LETTER.search(text) is not None


def _has_one(kind: Kind, text: Text) -> bool:
    return any(needle in text for needle in kind.needles)


def _secrets(kind: Kind, text: Text) -> Iterator[bytes]:
    """As they are compared: without what escaping and folding lines add."""
    for match in kind.pattern.finditer(text):
        secret = match[match.re.groups]
        made_up = _is_placeholder(match[1], secret) if kind is URL else len(set(secret)) < _FEWEST_DIFFERENT
        if not made_up:
            yield _folded(secret)


def _is_placeholder(user: bytes, password: bytes) -> bool:
    return password.lower() in _PLACEHOLDERS or password == user or len(set(password)) == 1


def _views(text: Text, depth: int) -> Iterator[Text]:
    """The text, and what it is when its escapes are undone, once and again."""
    yield text
    for _ in range(depth):
        if b"\\" not in text:
            return
        text = _ESCAPE.sub(_unescaped, text)
        yield text


def _unescaped(match: re.Match[bytes]) -> bytes:
    escape = match[1]
    if len(escape) > 1:
        return bytes([int(escape[1:], 16)])
    return _MEANS.get(escape, escape)


def _folded(text: Text) -> bytes:
    return bytes(text.translate(None, b" \t\r\n\\"))


class _Given:
    """What the caller gave, looked at only when something is found."""

    def __init__(self, given: Text) -> None:
        self._views = list[Text]()
        self._given = given
        self._folded: list[bytes] | None = None
        self._secrets: dict[Kind, set[bytes]] = {}
        self._lookups = _LOOKUPS

    def has(self, kind: Kind, secret: bytes) -> bool:
        """Whether it stands there, in whatever wrapping."""
        if self._folded is None:
            self._views = list(_views(self._given, _DEPTH))
            self._folded = [_folded(view) for view in self._views]
        if kind not in self._secrets:
            self._secrets[kind] = {each for view in self._views for each in _secrets(kind, view)}
        if secret in self._secrets[kind]:
            return True
        self._lookups -= 1
        return self._lookups >= 0 and any(secret in text for text in self._folded)
