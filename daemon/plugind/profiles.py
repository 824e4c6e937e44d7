"""profiles/tierN.toml: what a tier may have at most, parsed once and checked to the last key."""

from __future__ import annotations

import difflib
import ipaddress
import re
import sys
import tomllib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from plugind.errors import ConfigError
from plugind.model import PERMISSION_KINDS, TIERS, Limits, Monitoring, Profile, Tier
from plugind.planfiles import FileCeilings

_LIMITS: Final = tuple(name for name, _ in Limits().items())
_NUMBERS: Final = (
    "input_bytes stdio_bytes inodes shm_bytes open_files file_bytes cpu_percent instances refused_calls"
    " session_ms session_idle_ms session_bytes".split()
)
_MONITOR: Final = {
    "window": (2, 100),
    "failures_percent": (1, 100),
    "schema_failures": (1, 100),
    "warm_up": (5, 100),
    "deviations": (1, 1000),
    "open_ms": (1, 86_400_000),
    "probes": (1, 20),
    "openings": (2, 20),
    "together": (2, 1000),
}
"""Least and most of each number in [monitor]. The most of window and warm_up is what statistics keep."""


BUILTIN_LIST: Final = "builtin.list"
"""In the profiles folder, writable by root alone."""
_DIGEST = re.compile(r"[0-9a-f]{64}")


def profiles_dir() -> Path:
    """Where the profiles are: in a checkout beside the sources, else where the wheel installs them."""
    checkout = Path(__file__).parents[2] / "profiles"
    return checkout if checkout.is_dir() else Path(sys.prefix, "share", "plugind", "profiles")


def load_profiles(folder: Path) -> dict[int, Profile]:
    """One profile a tier. Raises ConfigError."""
    return {tier: load_profile(folder / f"tier{tier}.toml", tier) for tier in TIERS}


def builtin_digests(folder: Path) -> frozenset[str]:
    """The bundles that may run in Tier 0: one sha256 a line, `#` begins a comment. Without the file: none.

    Raises ConfigError.
    """
    path = folder / BUILTIN_LIST
    try:
        text = path.read_text("utf-8")
    except FileNotFoundError:
        return frozenset()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: expected a list of digests, cannot be read: {error}") from error
    lines = [line.partition("#")[0].strip() for line in text.splitlines()]
    for line in lines:
        if line and not _DIGEST.fullmatch(line):
            raise ConfigError(f"{path}: expected a sha256 in hex on each line, got {line[:80]!r}")
    return frozenset(line for line in lines if line)


def load_profile(path: Path, tier: Tier) -> Profile:
    """One file. Raises ConfigError naming file, key, what was expected and what came."""
    try:
        table = tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: the profile of tier {tier} cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: expected TOML: {error}") from error
    reader = _Reader(path)
    known = ("tier", "default_limits", "ceilings", "jail", "requires", "permissions")
    reader.keys("", table, (*known, *(name for name in ("network", "files", "monitor") if name in table)))
    if type(table["tier"]) is not int or table["tier"] != tier:
        raise ConfigError(f"{path}: tier: expected {tier}, got {table['tier']!r}")
    jail = reader.table("jail", table, (*_NUMBERS, "parked", "exec_allowed", "file_locks", "seccomp_extra"))
    ceilings = reader.limits("ceilings", table)
    permissions = reader.texts("", table, "permissions", PERMISSION_KINDS)
    numbers: dict[str, Any] = {name: reader.number("jail", jail, name) for name in _NUMBERS}
    profile = Profile(
        tier=tier,
        default_limits=reader.limits_within("default_limits", table, ceilings),
        ceilings=ceilings,
        **numbers,
        parked=reader.number("jail", jail, "parked", least=0),
        exec_allowed=reader.boolean("jail", jail, "exec_allowed"),
        file_locks=reader.boolean("jail", jail, "file_locks"),
        seccomp_extra=reader.texts("jail", jail, "seccomp_extra"),
        requires=reader.texts("", table, "requires"),
        permissions=permissions,
        monitor=reader.monitoring(table),
    )
    return reader.with_files(reader.with_network(profile, table), table)


class _Reader:
    """Typed access to one file's tables, every mistake with its place."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def _wrong(self, table: str, key: str, expected: str, actual: object) -> ConfigError:
        place = f"{table}.{key}" if table else key
        return ConfigError(f"{self._path}: {place}: expected {expected}, got {actual!r}")

    def keys(self, name: str, table: Mapping[str, Any], known: tuple[str, ...]) -> None:
        """All of them, and nothing else."""
        for key in table:
            if key not in known:
                close = difflib.get_close_matches(key, known, 1)
                hint = f"; did you mean {close[0]}?" if close else ""
                raise self._wrong(name, key, f"one of {', '.join(known)}{hint}", "an unknown key")
        for key in known:
            if key not in table:
                raise self._wrong(name, key, "a value", "nothing")

    def table(self, name: str, tables: Mapping[str, Any], known: tuple[str, ...]) -> Mapping[str, Any]:
        """A table with exactly these keys."""
        found = tables[name]
        if not isinstance(found, dict):
            raise self._wrong("", name, "a table", found)
        self.keys(name, found, known)
        return found

    def monitoring(self, tables: Mapping[str, Any]) -> Monitoring:
        """When what a version does is out of the ordinary; without the table as the model has it."""
        if "monitor" not in tables:
            return Monitoring()
        table = self.table("monitor", tables, ("mode", "required", *_MONITOR))
        mode = table["mode"]
        if mode not in ("enforce", "observe"):
            raise self._wrong("monitor", "mode", '"enforce" or "observe"', mode)
        for key, (least, most) in _MONITOR.items():
            if type(table[key]) is not int or not least <= table[key] <= most:
                raise self._wrong("monitor", key, f"a whole number from {least} to {most}", table[key])
        numbers = {key: table[key] for key in _MONITOR}
        return Monitoring(mode=mode, required=self.boolean("monitor", table, "required"), **numbers)

    def number(self, name: str, table: Mapping[str, Any], key: str, least: int = 1) -> int:
        """A whole number, `least` or more."""
        value = table[key]
        if type(value) is not int or not least <= value < 2**53:
            raise self._wrong(name, key, f"a whole number above {least - 1}" if least else "0 or a whole number", value)
        return value

    def boolean(self, name: str, table: Mapping[str, Any], key: str) -> bool:
        """True or false."""
        value = table[key]
        if not isinstance(value, bool):
            raise self._wrong(name, key, "true or false", value)
        return value

    def texts(
        self, name: str, table: Mapping[str, Any], key: str, known: tuple[str, ...] | None = None
    ) -> tuple[str, ...]:
        """A list of texts, out of `known` where that is given."""
        value = table[key]
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise self._wrong(name, key, "a list of texts", value)
        for item in value:
            if known is not None and item not in known:
                raise self._wrong(name, key, f"some of {', '.join(known)}", item)
        return tuple(value)

    def with_network(self, profile: Profile, tables: Mapping[str, Any]) -> Profile:
        """The same with what instances with the permission `network` may have; a tier without it has no such table."""
        if "network" not in profile.permissions:
            if "network" in tables:
                raise self._wrong("", "network", "no such table, as permissions has no network", "one")
            return profile
        if "network" not in tables:
            raise self._wrong("", "network", "a table, as permissions has network", "none")
        table = self.table("network", tables, ("bytes_per_second", "connections", "private"))
        private = self.texts("network", table, "private")
        for text in private:
            try:
                ipaddress.ip_network(text)
            except ValueError:
                raise self._wrong("network", "private", 'ranges such as "10.0.0.0/8"', text) from None
        return replace(
            profile,
            network_bytes_per_second=self.number("network", table, "bytes_per_second"),
            network_connections=self.number("network", table, "connections"),
            network_private=private,
        )

    def with_files(self, profile: Profile, tables: Mapping[str, Any]) -> Profile:
        """The same with what runs with a permission for files may have; a tier without one has no such table."""
        kinds = [kind for kind in ("file_read", "file_write") if kind in profile.permissions]
        if bool(kinds) != ("files" in tables):
            expected = (
                f"a table, as permissions has {kinds[0]}" if kinds else "no such table, as permissions has no files"
            )
            raise self._wrong("", "files", expected, "none" if kinds else "one")
        if not kinds:
            return profile
        names = [f"{kind.removeprefix('file_')}_{unit}" for kind in kinds for unit in ("files", "bytes")]
        table = self.table("files", tables, tuple(names))
        return replace(profile, files=FileCeilings(**{name: self.number("files", table, name) for name in names}))

    def limits(self, name: str, tables: Mapping[str, Any]) -> Limits:
        """All limits."""
        table = self.table(name, tables, _LIMITS)
        return Limits(**{key: self.number(name, table, key) for key in _LIMITS})

    def limits_within(self, name: str, tables: Mapping[str, Any], ceilings: Limits) -> Limits:
        """All limits, none above its ceiling."""
        found = self.limits(name, tables)
        for (key, value), (_, ceiling) in zip(found.items(), ceilings.items(), strict=True):
            if value > ceiling:
                raise self._wrong(name, key, f"at most the ceiling {ceiling}", value)
        return found
