"""policy.toml, parsed once and checked to the last key: every problem with its line and column. Pure.

Source: SPEC.md, section "Policy"; profiles/policy.toml explains each line.
"""

from __future__ import annotations

import difflib
import hashlib
import itertools
import re
import tomllib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

from plugind import addresses
from plugind.errors import ConfigError
from plugind.model import PERMISSION_KINDS, SENSITIVITIES, TIERS, Limits, Profile, Tier
from plugind.planfiles import MOST_ROOTS, is_root
from plugind.policy import positions
from plugind.policy.positions import Path, Position, Positions
from plugind.policy.rules import (
    MODES,
    NARROWER_UPDATES,
    Mode,
    Policy,
    QuarantineRule,
    SensitivityRule,
    Settings,
    StageRule,
    Synthesized,
    TierRule,
)

__all__ = ["InvalidPolicyError", "Policy", "SensitivityRule", "Settings", "StageRule", "TierRule", "parse"]

SCHEMA: Final = 1
_NO_TABLE: Final[Mapping[str, Any]] = {}
"""In the place of something else, which was noted: what is missing in it is not."""
_LIMITS: Final = tuple(name for name, _ in Limits().items())
_TABLES: Final = (
    *("schema", "tier", "stage", "sensitivity", "network", "plans", "settings", "synthesized", "quarantine"),
)
_SETTINGS: Final = ("approvers", "approver_may_be_submitter", "narrower_updates")
_SYNTAX: Final = re.compile(
    r"(?P<what>.*?) \(at (?:line (?P<line>\d+), column (?P<column>\d+)|end of document)\)", re.DOTALL
)

_Known = TypeVar("_Known", bound=object)
_Word = TypeVar("_Word", bound=str)


class InvalidPolicyError(ConfigError):
    """A policy that cannot be used. `problems` are all findings in the order of the text, each with its place."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = tuple(problems)


def parse(text: str, where: str, profiles: Mapping[int, Profile] | None = None) -> Policy:
    """The policy in a text; `where` is how messages name its file.

    With the tiers' profiles, what goes beyond them is a problem too: a policy narrows and never widens.

    Raises InvalidPolicyError with every problem.
    """
    try:
        tables = tomllib.loads(text)
        found = positions.find(text.replace("\r\n", "\n"))
    except tomllib.TOMLDecodeError as error:
        raise InvalidPolicyError([_syntax(where, text, str(error))]) from error
    except (RecursionError, ValueError) as error:  # nested by the thousand; a number of more digits than Python reads
        raise InvalidPolicyError([f"{where}:1:1: expected TOML, got {error}"]) from error
    reader = _Reader(where, found, profiles or {})
    policy = reader.policy(tables, hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest())
    if reader.problems:
        raise InvalidPolicyError([said for _, said in sorted(reader.problems, key=lambda problem: problem[0])])
    return policy


def _syntax(where: str, text: str, said: str) -> str:
    match = _SYNTAX.fullmatch(said)
    if match is None:
        return f"{where}:1:1: expected TOML: {said}"
    lines = text.replace("\r\n", "\n").split("\n")
    end = Position(len(lines), len(lines[-1]) + 1)
    at = Position(int(match["line"]), int(match["column"])) if match["line"] else end
    return f"{where}:{at}: expected TOML: {match['what']}"


@dataclass(slots=True)
class _Reader:
    """Typed access to the tables. What is wrong is noted and replaced by what allows least, and reading goes on."""

    where: str
    at: Positions
    profiles: Mapping[int, Profile]
    problems: list[tuple[tuple[int, int], str]] = field(default_factory=list)

    def wrong(self, path: Path, expected: str, actual: str, place: Position | None = None) -> None:
        place = place or self.at.value(path)
        said = f"{self.where}:{place}: {_dotted(path)}: expected {expected}, got {actual}"
        self.problems.append(((place.line, place.column), said))

    # -- the file

    def policy(self, tables: Mapping[str, Any], digest: str) -> Policy:
        self.keys((), tables, _TABLES, required=("schema",))
        schema = tables.get("schema", SCHEMA)
        if type(schema) is not int or schema != SCHEMA:
            self.wrong(("schema",), str(SCHEMA), _shown(schema))
        policy = Policy(
            tiers=self.tiers(self.table((), tables, "tier")),
            stages=self.stages(self.table((), tables, "stage")),
            sensitivities=self.sensitivities(self.table((), tables, "sensitivity")),
            settings=self.settings(self.table((), tables, "settings")),
            synthesized=self.synthesized(self.table((), tables, "synthesized")),
            quarantine=self.quarantine(self.table((), tables, "quarantine")),
            networks=self.networks(self.table((), tables, "network")),
            plan_roots=self.plans(self.table((), tables, "plans")),
            digest=digest,
        )
        if not self.problems:
            self.narrowing(policy)
        return policy

    def tiers(self, tables: Mapping[str, Any]) -> dict[int, TierRule]:
        known = tuple(str(tier) for tier in TIERS)
        self.keys(("tier",), tables, known)
        return {int(name): self.tier(name, tables) for name in known if name in tables}

    def tier(self, name: str, tables: Mapping[str, Any]) -> TierRule:
        path: Path = ("tier", name)
        table = self.table(("tier",), tables, name)
        self.keys(path, table, ("permissions", "limits", "enabled", "mode"), required=("permissions",))
        profile = self.profiles.get(int(name))
        kinds = profile.permissions if profile else PERMISSION_KINDS
        return TierRule(
            permissions=self.some((*path, "permissions"), table, kinds),
            limits=self.limits(path, table, profile),
            enabled=self.boolean(path, table, "enabled", otherwise=True),
            mode=self.mode(path, table),
        )

    def limits(self, path: Path, table: Mapping[str, Any], profile: Profile | None) -> Limits:
        if "limits" not in table:
            return Limits()
        limits = self.table(path, table, "limits")
        path = (*path, "limits")
        self.keys(path, limits, _LIMITS)
        if not limits and limits is not _NO_TABLE:
            self.wrong(path, f"some of {', '.join(_LIMITS)}", "nothing")
        most = dict(profile.ceilings.items()) if profile else {}
        values = {}
        for name in _LIMITS:
            value = limits.get(name, 0)
            ceiling = most.get(name, 2**53 - 1)
            if name in limits and (type(value) is not int or not 0 < value <= ceiling):
                whose = ", the profile's ceiling" if name in most else ""
                self.wrong((*path, name), f"a whole number from 1 to {ceiling}{whose}", _shown(value))
            values[name] = value
        return Limits(**values)

    def stages(self, tables: Mapping[str, Any]) -> dict[str, StageRule]:
        rules = {}
        for name in tables:
            path: Path = ("stage", name)
            table = self.table(("stage",), tables, name)
            if not name.strip() or name != name.strip():
                self.wrong(path, 'the name of a stage, or "*"', _shown(name))
            self.keys(path, table, ("tiers", "permissions", "mode"), required=("tiers", "permissions"))
            rules[name] = StageRule(self.some_tiers(path, table), self.kinds(path, table), self.mode(path, table))
        return rules

    def sensitivities(self, tables: Mapping[str, Any]) -> dict[str, SensitivityRule]:
        self.keys(("sensitivity",), tables, SENSITIVITIES)
        rules = {}
        for name in SENSITIVITIES:
            if name not in tables:
                continue
            path: Path = ("sensitivity", name)
            table = self.table(("sensitivity",), tables, name)
            self.keys(path, table, ("tiers", "permissions", "mode"), required=("tiers", "permissions"))
            rules[name] = SensitivityRule(self.some_tiers(path, table), self.kinds(path, table), self.mode(path, table))
        return rules

    def settings(self, table: Mapping[str, Any]) -> Settings:
        path: Path = ("settings",)
        self.keys(path, table, _SETTINGS)
        approvers = table.get("approvers", Settings().approvers)
        if type(approvers) is not int or approvers not in (1, 2):
            self.wrong((*path, "approvers"), "1 or 2", _shown(approvers))
        return Settings(
            approvers=approvers,
            approver_may_be_submitter=self.boolean(path, table, "approver_may_be_submitter", otherwise=False),
            narrower_updates=self.word(path, table, "narrower_updates", NARROWER_UPDATES),
        )

    def synthesized(self, table: Mapping[str, Any]) -> Synthesized:
        path: Path = ("synthesized",)
        name = "run_unapproved_tier2"
        self.keys(path, table, (name,))
        return Synthesized(self.boolean(path, table, name, otherwise=False) if name in table else None)

    def quarantine(self, table: Mapping[str, Any]) -> QuarantineRule:
        path: Path = ("quarantine",)
        self.keys(path, table, ("approvers", "probation_runs"))
        usual = QuarantineRule()
        return QuarantineRule(
            approvers=self.number(path, table, "approvers", 1, 5, usual.approvers),
            probation_runs=self.number(path, table, "probation_runs", 0, 100_000, usual.probation_runs),
        )

    def networks(self, tables: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
        rules = {}
        for name in tables:
            path: Path = ("network", name)
            if not addresses.is_wildcard(name):
                self.wrong(path, 'a wildcard such as "*.example.org"', _shown(name))
                continue
            table = self.table(("network",), tables, name)
            self.keys(path, table, ("hosts",), required=("hosts",))
            rules[name] = self.hosts((*path, "hosts"), table, name)
        return rules

    def plans(self, table: Mapping[str, Any]) -> tuple[str, ...]:
        path: Path = ("plans", "roots")
        self.keys(("plans",), table, ("roots",))
        value = table.get("roots", [])
        if not isinstance(value, list) or len(value) > MOST_ROOTS:
            self.wrong(path, f"a list of at most {MOST_ROOTS} folders", _shown(value))
            return ()
        for index, item in enumerate(value):
            place = self.at.value((*path, index))
            if not isinstance(item, str) or not is_root(item):
                expected = "absolute folders below /, without empty, . or .. parts"
                self.wrong(path, expected, _shown(item), place)
            elif item in value[:index]:
                self.wrong(path, "each once", f"{_shown(item)} again", place)
        return tuple(str(item) for item in value)

    def hosts(self, path: Path, table: Mapping[str, Any], wildcard: str) -> tuple[str, ...]:
        value = table.get("hosts", [])
        if not isinstance(value, list) or len(value) > addresses.MOST_NAMES or ("hosts" in table and not value):
            self.wrong(path, f"a list of 1 to {addresses.MOST_NAMES} names", _shown(value))
            return ()
        for index, item in enumerate(value):
            place = self.at.value((*path, index))
            if not isinstance(item, str) or not addresses.is_below(item, wildcard):
                self.wrong(path, f"names that end in {wildcard[1:]}, in lower case", _shown(item), place)
            elif item in value[:index]:
                self.wrong(path, "each once", f"{_shown(item)} again", place)
        return tuple(str(item) for item in value)

    def narrowing(self, policy: Policy) -> None:
        """A more sensitive level may not allow what a less sensitive one forbids: its label would be worth having."""
        known = [(name, policy.sensitivities[name]) for name in SENSITIVITIES if name in policy.sensitivities]
        for (less, outer), (more, inner) in itertools.pairwise(known):
            for key in ("tiers", "permissions"):
                allowed: Sequence[str | int] = getattr(outer, key)
                for index, item in enumerate(getattr(inner, key)):
                    if item not in allowed:
                        place = self.at.value(("sensitivity", more, key, index))
                        expected = f"only what sensitivity.{less} allows too ({_listed(allowed)})"
                        self.wrong(("sensitivity", more, key), expected, _shown(item), place)

    # -- tables and values

    def keys(
        self, path: Path, table: Mapping[str, Any], known: Collection[str], *, required: Collection[str] = ()
    ) -> None:
        for key in table:
            if key not in known:
                close = difflib.get_close_matches(key, known, 1)
                hint = f"; did you mean {close[0]}?" if close else ""
                place = self.at.key((*path, key))
                self.wrong((*path, key), f"one of {', '.join(known)}", f"an unknown key{hint}", place)
        for key in () if table is _NO_TABLE else required:
            if key not in table:
                self.wrong((*path, key), "a value", "nothing")

    def table(self, path: Path, tables: Mapping[str, Any], name: str) -> Mapping[str, Any]:
        found = tables.get(name, {})
        if isinstance(found, dict):
            return found
        self.wrong((*path, name), "a table", _shown(found))
        return _NO_TABLE

    def boolean(self, path: Path, table: Mapping[str, Any], key: str, *, otherwise: bool) -> bool:
        value = table.get(key, otherwise)
        if not isinstance(value, bool):
            self.wrong((*path, key), "true or false", _shown(value))
            return otherwise
        return value

    def number(self, path: Path, table: Mapping[str, Any], key: str, least: int, most: int, otherwise: int) -> int:
        value = table.get(key, otherwise)
        if type(value) is not int or not least <= value <= most:
            self.wrong((*path, key), f"a whole number from {least} to {most}", _shown(value))
            return otherwise
        return value

    def mode(self, path: Path, table: Mapping[str, Any]) -> Mode:
        return self.word(path, table, "mode", MODES)

    def word(self, path: Path, table: Mapping[str, Any], key: str, known: Sequence[_Word]) -> _Word:
        """One of the known words; the first where it is absent."""
        value = table.get(key, known[0])
        for word in known:
            if value == word:
                return word
        self.wrong((*path, key), f"one of {', '.join(known)}", _shown(value) + _meant(value, known))
        return known[0]

    def some_tiers(self, path: Path, table: Mapping[str, Any]) -> tuple[Tier, ...]:
        return self.some((*path, "tiers"), table, TIERS)

    def kinds(self, path: Path, table: Mapping[str, Any]) -> tuple[str, ...]:
        return self.some((*path, "permissions"), table, PERMISSION_KINDS)

    def some(self, path: Path, table: Mapping[str, Any], known: Sequence[_Known]) -> tuple[_Known, ...]:
        """A list of known items, each once."""
        value = table.get(str(path[-1]), [])
        if not isinstance(value, list):
            self.wrong(path, f"a list of some of {_listed(known)}", _shown(value))
            return ()
        taken: list[_Known] = []
        for index, item in enumerate(value):
            place = self.at.value((*path, index))
            # `is`-like on the type: True and 1.0 are equal to 1 and no tiers
            same = next((each for each in known if type(each) is type(item) and each == item), None)
            if same is None:
                self.wrong(path, f"some of {_listed(known)}", _shown(item) + _meant(item, known), place)
            elif same in taken:
                self.wrong(path, "each once", f"{_shown(item)} again", place)
            else:
                taken.append(same)
        return tuple(taken)


def _meant(value: object, known: Sequence[object]) -> str:
    words = [word for word in known if isinstance(word, str)]
    close = difflib.get_close_matches(value, words, 1) if isinstance(value, str) else []
    return f"; did you mean {close[0]}?" if close else ""


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _listed(items: Sequence[object]) -> str:
    return ", ".join(str(item) for item in items) or "nothing"


def _dotted(path: Path) -> str:
    """As the file writes it: stage."durations".tiers."""
    parts = [
        f'"{part}"' if index == 1 and path[0] in ("stage", "network") else str(part) for index, part in enumerate(path)
    ]
    return ".".join(parts)
