"""A plugin that does nothing: what the zygote warms up with (warm.py)."""

from __future__ import annotations

import json  # noqa: F401 - as most plugins do
import sys  # noqa: F401
import time  # noqa: F401


def run(payload: object, _context: object) -> object:
    """Give back what came."""
    return payload
