"""The packages of an environment, imported ahead in the zygote, so that an instance has them when it starts.

Their code runs here, with what the zygote has, and in every instance's process before its jail is complete: that is
why an environment has a template of its own (SECURITY.md).
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence
from typing import Final

PLACE: Final = "/environment"
"""Where an environment's files are; an empty folder without one."""
THREAD_POOLS: Final = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")
"""Variables that keep numerical libraries from starting a thread for each CPU."""
_REASON_CHARS: Final = 200
_MOST_FAILED: Final = 20


def bring_in(names: Sequence[str]) -> dict[str, str]:
    """Import them; the first of those that cannot be imported, and why. Raises OSError."""
    os.dup2(0, 2)  # it is the daemon's log, and what follows is not the daemon's code
    # Behind the standard library, as site-packages would be: no package takes the place of one of its modules.
    sys.path.append(PLACE)
    failed: dict[str, str] = {}
    for name in names:
        try:
            importlib.import_module(name)
        except BaseException as error:  # SystemExit too: a plugin that imports it is told the same
            if len(failed) < _MOST_FAILED:  # what is told has to fit into one message
                failed[name] = f"{type(error).__name__}: {error}"[:_REASON_CHARS]
    os.register_at_fork(after_in_child=_reseed)
    return failed


def _reseed() -> None:
    """`random` does it itself. numpy's global generator is seeded once, when it is imported."""
    if generator := sys.modules.get("numpy.random"):
        generator.seed()


def make_way(entries: Sequence[str]) -> None:
    """Forget packages whose names are a plugin's own modules, by its folder's entries: /plugin comes first."""
    own = {entry.partition(".")[0] for entry in entries}
    for name in [name for name in sys.modules if name.partition(".")[0] in own]:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(f"{PLACE}/"):
            del sys.modules[name]
