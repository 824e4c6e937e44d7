"""Open streams and forked children: a child must not touch them, not even by ending.

gRPC's own call objects cancel when they are collected, and wait for a lock that a thread may have held at the fork.
"""

from __future__ import annotations

import ctypes
import os
import weakref
from typing import Any, Final

OPEN: Final[weakref.WeakSet[Any]] = weakref.WeakSet()
"""All streams of this process and its parents; `kept` of each is the gRPC call."""


def _keep() -> None:
    """A reference too many keeps them from being collected, also when the interpreter ends."""
    for stream in list(OPEN):
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(stream.kept))


os.register_at_fork(after_in_child=_keep)
