"""A hostile generated module, and what has to come of it. Data only: test_generated.py makes the calls."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from textwrap import dedent
from typing import Any, Final

MARK: Final = "hostile_mark"
"""Files, threads and attributes that a variant leaves behind are called so, wherever it could leave them."""
SHORT_MS: Final = 200
"""Wall limit of what never ends."""


@dataclass(frozen=True)
class Refused:
    """InvalidSource from load_source, before anything was sent; `detail` has this text."""

    text: str


@dataclass(frozen=True)
class Unsent:
    """The call itself raises this, and nothing was sent: arguments that do not fit, or that no JSON can say."""

    kind: str
    text: str


@dataclass(frozen=True)
class Denied:
    """The call is denied with this code before anything ran."""

    code: str


@dataclass(frozen=True)
class Gives:
    """It had no effect outside the jail: exactly this value comes, of this type."""

    value: Any


@dataclass(frozen=True)
class Raises:
    """The builtin exception that the function raised, with its message, and PluginFailed as its cause."""

    kind: type[Exception]
    message: str


@dataclass(frozen=True)
class Fails:
    """PluginFailed. `type` is the name of the exception, empty where the process ended without telling one."""

    type: str
    text: str = ""


@dataclass(frozen=True)
class Ends:
    """One of these outcomes, each with the error class that belongs to it; `detail` has this text."""

    outcomes: tuple[str, ...]
    text: str = ""


@dataclass(frozen=True)
class Either:
    """One of the two: a limit that is found while it goes on ends it before its answer, or after."""

    one: Gives | Raises
    other: Ends


Expected = Refused | Unsent | Denied | Gives | Raises | Fails | Ends | Either
ENDLESS: Final = Ends(("timeout", "cpu_exceeded"))
NO_JSON: Final = Ends(("output_invalid",), "no JSON")
NO_FRAME: Final = Ends(("output_invalid",), "without a result")


@dataclass(frozen=True)
class Variant:
    """`source` is loaded, then `function` called with `arguments`. `name`: of the plugin, where it matters."""

    title: str
    source: str
    expected: Expected
    function: str = "f"
    arguments: Mapping[str, Any] = field(default_factory=dict)
    timeout_ms: int | None = None
    name: str | None = None
    in_session: Expected | None = None
    """What comes of it in a module's session instead, which gives an answer before the process has ended."""


def variant(title: str, source: str, expected: Expected, **more: Any) -> Variant:
    """A variant whose source is written indented. What never ends has the short limit."""
    if expected is ENDLESS:
        more.setdefault("timeout_ms", SHORT_MS)
    return Variant(title, dedent(source).lstrip("\n"), expected, **more)


def importing(title: str, effect: str, expected: Expected, **more: Any) -> Variant:
    """`effect` runs when the module is imported; f() is as harmless as can be."""
    return variant(title, f"{dedent(effect).strip()}\n\ndef f():\n    return 'imported'\n", expected, **more)


def calling(title: str, body: str, expected: Expected, **more: Any) -> Variant:
    """`body` is that of f()."""
    lines = dedent(body).strip().splitlines()
    return variant(title, "def f():\n" + "".join(f"    {line}\n" for line in lines), expected, **more)


def returning(title: str, expression: str, expected: Expected, before: str = "", **more: Any) -> Variant:
    """f() returns an expression; `before` stands at the top of the module."""
    return variant(title, f"{dedent(before).strip()}\n\ndef f():\n    return {expression}\n", expected, **more)


def family(name: str, variants: Iterable[Variant]) -> list[tuple[str, Variant]]:
    """Each variant under its full name."""
    return [(f"{name}: {each.title}", each) for each in variants]
