"""The host uids that plugind uses: a range that no distribution gives to anybody.

Source: systemd's UIDS-GIDS.md (above systemd-nspawn's 524288-1879048191), subuid(5).
"""

from __future__ import annotations

import grp
import pwd
from collections.abc import Iterable
from pathlib import Path
from typing import Final

FIRST: Final = 1879048192
SLICE: Final = 65536
FRONT: Final = FIRST
"""uid and gid of the front where there is no user plugind."""
NOTIFIER: Final = FIRST + 1
"""uid and gid of the process that answers for refused system calls (notifier.py)."""
RESOLVER: Final = FIRST + 2
"""uid and gid of the process that asks name servers (network/resolver.py)."""
LAST: Final = FIRST + 4 * SLICE - 1


def slice_of(tier: int) -> tuple[int, int]:
    """First uid and number of uids of a tier's template; the first is its zygote's."""
    return FIRST + (tier + 1) * SLICE, SLICE


def conflicts(subordinate: str, ids: Iterable[tuple[str, int]]) -> list[str]:
    """Who else claims part of the range: lines of /etc/subuid or subgid, and (name, id) of known users or groups."""
    found = [f"{name} has id {number}" for name, number in ids if FIRST <= number <= LAST]
    for line in subordinate.splitlines():
        name, _, rest = line.partition(":")
        start, _, count = rest.partition(":")
        if not (start.isdecimal() and count.isdecimal() and int(count)):
            continue  # as shadow does with a line that it does not understand
        last = int(start) + int(count) - 1
        if int(start) <= LAST and last >= FIRST:
            found.append(f"{name} has the subordinate ids {start} to {last}")
    return found


def conflicts_here() -> list[str]:
    """The same for this machine, users and groups. Raises OSError."""
    found = []
    users = [(entry.pw_name, entry.pw_uid) for entry in pwd.getpwall()]
    groups = [(entry.gr_name, entry.gr_gid) for entry in grp.getgrall()]
    for name, ids in (("subuid", users), ("subgid", groups)):
        path = Path("/etc", name)
        found += conflicts(path.read_text() if path.exists() else "", ids)
    return found
