"""How moments, people, permissions and limits are told, and how PLUGIN@V is read: the same in every command."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import json
import pwd
import re
import sys
from collections.abc import Iterable
from typing import Annotated, Final

import typer

from plugind_client.cli.problems import CommandError, Exit
from plugind_client.cli.screen import answered
from plugind_client.findings import Anomaly
from plugind_client.records import Hold, Limits, Permission

_AGO: Final = re.compile(r"([1-9][0-9]{0,8})([smhd])")
_UNIT_S: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400}
Since = Annotated[
    str, typer.Option("--since", metavar="WHEN", help="10m, 2h, 3d, or 2026-01-31[T12:00] in UTC.", show_default=False)
]
Reason = Annotated[
    str | None,
    typer.Option("--reason", metavar="TEXT", help="Why; kept with it. Asked for on a terminal.", show_default=False),
]


def reason(given: str | None) -> str:
    """Why, as it was given, or as a person at the terminal says now.

    Raises:
        CommandError: nobody says why.
    """
    if given is None and sys.stdin.isatty():
        given = answered("Why?")
    if given is None or not given.strip():
        raise CommandError(Exit.USAGE, "expected why: --reason TEXT")
    return given


def moment(unix_ms: int) -> str:
    """A moment in UTC, to the minute."""
    return datetime.datetime.fromtimestamp(unix_ms / 1000, datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")


def instant(unix_ms: int) -> str:
    """The same to the millisecond, without saying that it is UTC."""
    when = datetime.datetime.fromtimestamp(unix_ms / 1000, datetime.UTC)
    return when.strftime("%Y-%m-%d %H:%M:%S.") + f"{unix_ms % 1000:03}"


POLICY_UID = 2**32 - 1
"""What the daemon writes where a rule of the policy decided and no person."""


def person(uid: int) -> str:
    """A uid, with its name where this machine knows it."""
    if uid == POLICY_UID:
        return "- (the policy)"
    try:
        return f"{uid} ({pwd.getpwuid(uid).pw_name})"
    except (KeyError, OverflowError):
        return str(uid)


_UNITS = ("B", "KiB", "MiB", "GiB")


def size(size_bytes: int | None) -> str:
    """So many bytes in the unit that fits; "-" where it is not known."""
    if size_bytes is None:
        return "-"
    power = min(max(size_bytes.bit_length() - 1, 0) // 10, len(_UNITS) - 1)
    return f"{size_bytes / 1024**power:.{1 if power else 0}f} {_UNITS[power]}"


def files(number: int) -> str:
    """So many files."""
    return f"{number} file" if number == 1 else f"{number} files"


def count(number: int | None) -> str:
    """A number, or "-" where it is not known."""
    return "-" if number is None else str(number)


def seconds(milliseconds: float | None) -> str:
    """So many seconds, to the tenth; "-" where it is not known."""
    return "-" if milliseconds is None else f"{max(0.0, milliseconds) / 1000:.1f} s"


def permissions(items: Iterable[Permission]) -> str:
    """Each kind with its entry; of files their pattern is all there is to it."""
    return "; ".join(f"{item.kind} {_entry(item)}" for item in items) or "no permissions"


def _entry(item: Permission) -> str:
    if item.kind in ("file_read", "file_write"):
        with contextlib.suppress(ValueError):
            match json.loads(item.entry_json):
                case {"path": str(path), **others} if not others:
                    return path
    return item.entry_json


def limits(values: Limits) -> str:
    """Those that are set."""
    told = ", ".join(f"{name} {value}" for name, value in dataclasses.asdict(values).items() if value)
    return told or "the tier's defaults"


def hold(kept: Hold) -> str:
    """On what, since when, by whom and why."""
    return f"{kept.target}, {moment(kept.at_unix_ms)} by uid {person(kept.by_uid)}: {kept.reason}"


def plugin_version(text: str) -> tuple[str, str]:
    """Name and version of PLUGIN@V.

    Raises:
        CommandError: one of them is missing.
    """
    name, _, version = text.partition("@")
    if not name or not version:
        raise CommandError(Exit.USAGE, f"{text!r}: expected PLUGIN@VERSION, such as cost_breakdown@1.2.0")
    return name, version


def plugin_perhaps_version(text: str) -> tuple[str, str]:
    """Name and version of PLUGIN[@V]; an empty version means all.

    Raises:
        CommandError: there is an @ and nothing on one side of it, as when a shell's variable is not set.
    """
    return plugin_version(text) if "@" in text else (text, "")


def moment_ms(text: str) -> int:
    """A moment as a person writes it, in milliseconds since the epoch; without a zone it is UTC."""
    now = datetime.datetime.now(datetime.UTC)
    if ago := _AGO.fullmatch(text):
        when = now - datetime.timedelta(seconds=int(ago[1]) * _UNIT_S[ago[2]])
    else:
        try:
            when = datetime.datetime.fromisoformat(text)
        except ValueError:
            raise CommandError(
                Exit.USAGE, f"--since: expected 10m, 2h, 3d or a time like 2026-01-31T12:00, got {text!r}"
            ) from None
        when = when if when.tzinfo else when.replace(tzinfo=datetime.UTC)
    return max(int(when.timestamp() * 1000), 0)


ANOMALY: Final = ("time (UTC)", "found by", "severity", "expected", "got", "numbers", "record")
"""Headings of what `anomaly` gives."""


def anomaly(found: Anomaly) -> tuple[str, ...]:
    """Something out of the ordinary, as one row of a table."""
    return (instant(found.at_unix_ms), *anomaly_cells(found))


def anomaly_cells(found: Anomaly) -> tuple[str, ...]:
    """The same without when it was."""
    return (
        found.trigger + (" (only observed)" if found.observed else ""),
        found.severity,
        found.expected,
        found.actual,
        ", ".join(f"{name} {value:g}" for name, value in found.numbers.items()),
        found.audit_log,
    )
