"""kill --offline: root writes the latch that the launcher obeys, for when the daemon hangs."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from plugind_client.cli import adapters, offline_targets, statefolder
from plugind_client.cli.problems import CommandError, Exit


@dataclass(frozen=True, slots=True)
class Changed:
    """What was asked for as it is kept, the latch, what was killed or lifted in it, and what is in force in it now."""

    target: str
    latch: Path
    found: tuple[str, ...]
    in_force: tuple[str, ...]


def change(target: str, reason: str, state: Path | None, *, lift: bool) -> Changed:
    """Kill or lift, without a daemon.

    Raises:
        CommandError: not root, no such state folder, what the launcher does not know, or nothing to lift.
    """
    folder = statefolder.checked(state, "kill --offline", "the launcher obeys a file that only root can write")
    with adapters.packages_of("cli"):
        from plugind.errors import ConfigError
        from plugind.sandbox import latch
    path = latch.path_of(folder)
    try:
        before = latch.read(path)
    except ConfigError as error:
        raise CommandError(Exit.DENIED, f"{error}; everything is killed until it is mended or removed") from None
    wanted = offline_targets.found(target, folder, {kill.named for kill in before} if lift else set())
    if lift:
        # What was killed under this name; else whatever the name stands for now.
        named = tuple(kill for kill in before if kill.named == wanted.target)
        gone = named or tuple(kill for kill in before if kill.target in wanted.targets)
        if not gone:
            raise CommandError(Exit.DENIED, f"{target}: not killed offline", code="CONFLICT")
        kept, found = tuple(kill for kill in before if kill not in gone), tuple(kill.target for kill in gone)
    else:
        now_ms = time.time_ns() // 1_000_000
        name = wanted.target if wanted.targets != (wanted.target,) else ""
        new = tuple(latch.Kill(each, reason, now_ms, name) for each in wanted.targets)
        known = {(kill.target, kill.named) for kill in new}
        kept, found = (*(kill for kill in before if (kill.target, kill.named) not in known), *new), wanted.targets
    latch.write(path, kept)
    return Changed(wanted.target, path, found, tuple(dict.fromkeys(kill.target for kill in kept)))
