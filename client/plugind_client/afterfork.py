"""Open streams and forked children: a child must not touch them, not even by ending.

gRPC's own call objects cancel when they are collected, and wait for a lock that a thread may have held at the fork.
"""

from __future__ import annotations

import ctypes
import os
import weakref
from typing import Any, Final

OPEN: Final[weakref.WeakSet[Any]] = weakref.WeakSet()
"""All streams of this process and its parents; `kept` of each is the gRPC call, `pid` whose it is."""


class _Forks:
    """`amid`: whether this process was forked while its parent had a stream open."""

    amid = False
    next_amid = False


def is_usable() -> bool:
    """Whether gRPC can be used in this process.

    Of children that were forked while a stream was open, and opened a channel of their own, one in five crashed: gRPC
    prepares itself for a fork only while none of its threads is within a call.
    """
    return not _Forks.amid


def _look() -> None:
    here = os.getpid()
    opened_here = (stream for stream in list(OPEN) if stream.pid == here)
    _Forks.next_amid = _Forks.amid or any(not stream.lost() for stream in opened_here)


def _keep() -> None:
    """A reference too many keeps them from being collected, also when the interpreter ends."""
    _Forks.amid = _Forks.next_amid
    for stream in list(OPEN):
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(stream.kept))


os.register_at_fork(before=_look, after_in_child=_keep)
