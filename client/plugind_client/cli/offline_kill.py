"""kill --offline: root writes the latch that the launcher obeys, for when the daemon hangs."""

from __future__ import annotations

import re
import sqlite3
import time
from dataclasses import dataclass
from pathlib import Path

from plugind_client.cli import adapters, statefolder
from plugind_client.cli.problems import CommandError, Exit

_DIGEST = re.compile(r"(?:sha256:)?([0-9a-f]{64})")


@dataclass(frozen=True, slots=True)
class Changed:
    """The latch and the targets that are in force in it now."""

    latch: Path
    in_force: tuple[str, ...]


def change(target: str, reason: str, state: Path | None, *, lift: bool) -> Changed:
    """Kill or lift, without a daemon.

    Raises:
        CommandError: not root, no such state folder, an unknown plugin, or nothing to lift.
    """
    folder = statefolder.checked(state, "kill --offline", "the launcher obeys a file that only root can write")
    with adapters.packages_of("cli"):
        from plugind.errors import ConfigError
        from plugind.sandbox import latch
    path = latch.path_of(folder)
    wanted = _digests(target, folder)
    try:
        kept = [kill for kill in latch.read(path) if kill.target not in wanted]
        before = len(latch.read(path))
    except ConfigError as error:
        raise CommandError(Exit.DENIED, f"{error}; everything is killed until it is mended or removed") from None
    if lift and before == len(kept):
        raise CommandError(Exit.DENIED, f"{target}: not killed offline", code="CONFLICT")
    if not lift:
        now_ms = time.time_ns() // 1_000_000
        kept += [latch.Kill(each, reason, now_ms) for each in wanted]
    latch.write(path, tuple(kept))
    return Changed(path, tuple(kill.target for kill in kept))


def _digests(target: str, folder: Path) -> tuple[str, ...]:
    """A target as the launcher knows it: by digest. Names are looked up in the registry as it lies there."""
    if target == "all":
        return ("all",)
    if digest := _DIGEST.fullmatch(target):
        return (digest[1],)
    name, _, version = target.partition("@")
    try:
        with sqlite3.connect(f"file:{folder / 'registry.db'}?mode=ro", uri=True) as registry:
            rows = registry.execute(
                "SELECT versions.digest FROM versions JOIN plugins ON plugins.id = versions.plugin"
                " WHERE (plugins.name = ? OR 'plug_' || plugins.id = ?) AND (? = '' OR versions.version = ?)",
                (name, name, version, version),
            ).fetchall()
        registry.close()
    except sqlite3.Error as error:
        message = f"{folder / 'registry.db'}: cannot be read ({error}); kill by sha256, or all"
        raise CommandError(Exit.DENIED, message) from None
    if not rows:
        raise CommandError(Exit.DENIED, f"{target}: no such plugin or version in {folder}", code="NOT_FOUND")
    return tuple(row[0] for row in rows)
