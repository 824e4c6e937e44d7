"""HOSTILE. Writes more than anybody asked for.

Expected: the run is ended at the limit, long before MOST_BYTES: `output_limit`. The daemon's memory stays flat.
"""

from __future__ import annotations

import sys
from typing import Any

MOST_BYTES = 256 * 1024 * 1024
RESULT_BYTES = 4 * 1024 * 1024
LINE = b"all work and no play makes a dull plugin\n" * 1600


def run(payload: dict[str, Any], context: object) -> dict[str, str]:
    """The plugin's entrypoint."""
    attack = payload["attack"]
    if attack in {"stdout", "stderr"}:
        stream = getattr(sys, attack).buffer
        for _ in range(MOST_BYTES // len(LINE)):
            stream.write(LINE)
    return {"survived": attack, "padding": "x" * RESULT_BYTES if attack == "result" else ""}
