"""What the launcher sees of a zygote that has imported an environment's packages: by the kernel's word, not by its own.

Whatever code was imported has run with no more than this: a uid of the tier's slice, and capabilities only in a user
namespace below the launcher's. Sources: proc_pid_status(5), user_namespaces(7).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

PROCESSES: Final = 2
"""Of a template without instances: init and zygote."""
_MOST_FAILED: Final = 20
_NAME_CHARS: Final = 100
_REASON_CHARS: Final = 200


@dataclass(frozen=True, slots=True)
class Imported:
    """Of one import. Times in ms."""

    uid: int
    """The zygote's, in the host."""
    capabilities: str
    """What it has effectively (CapEff), in its own user namespace only."""
    user_namespace: str
    """That of the zygote, as user:[inode]; it is not the launcher's."""
    wall_ms: int
    failed: Mapping[str, str]
    """Modules that could not be imported ahead, and why: a plugin that imports one will see that itself."""


def look(pid: int, tasks: int, failed: object, wall_ms: int) -> Imported:
    """What process `pid` is, which says that it has imported. `tasks`: how many there are in its template's group.

    Raises ValueError where it has more than it may, OSError.
    """
    if tasks != PROCESSES:
        raise ValueError(f"the imports left {tasks - PROCESSES + 1} processes and threads, and not one")
    status = _fields(Path(f"/proc/{pid}/status").read_text())
    space, ours = os.readlink(f"/proc/{pid}/ns/user"), os.readlink("/proc/self/ns/user")
    uid = int(status["Uid"].split()[1])
    if space == ours or uid == os.geteuid():
        raise ValueError(f"the zygote has uid {uid} in {space}, expected another uid in a namespace of its own")
    return Imported(uid, status["CapEff"], space, wall_ms, _texts(failed))


def _fields(status: str) -> dict[str, str]:
    return {name: value.strip() for name, _, value in (line.partition(":") for line in status.splitlines())}


def _texts(failed: object) -> dict[str, str]:
    """The zygote's own words: a few short ones, which fit into a message to the front however that is encoded."""
    if not isinstance(failed, dict):
        return {}
    return {_plain(name, _NAME_CHARS): _plain(why, _REASON_CHARS) for name, why in list(failed.items())[:_MOST_FAILED]}


def _plain(text: object, most: int) -> str:
    return ascii(str(text))[1:-1][:most]
