"""What the zygote does once, so that its instances need not do it each anew, and share its pages unwritten.

An instance is a copy of the zygote whose pages are copied as they are written, and the first call of nearly everything
in Python writes: caches of types and of abstract classes, counters in code, names that ctypes looks up. Whatever is
done here has no effect outside this process, and draws no random number; no step of a jail is among it, those are
carried out in the instance alone.
"""

from __future__ import annotations

import gc
import json
import os
import socket
import sys
from typing import Final

from plugind.linux import constants, syscalls
from plugind.sandbox.inside import batches, functions, runner

_ROUNDS: Final = 20
"""Python adapts code to what it meets in its first eight calls, and looks at some of it twice."""
_BLANK: Final = "plugind.sandbox.inside.blank"
_CALL: Final = {"interface": "json", "entrypoint": f"{_BLANK}:run", "stage": "", "plan_id": "", "mode": "run"}
_INPUT: Final = b'{"values":[1,2.5,"x",null,true],"text":"x"}'


def warm() -> None:
    """Do it. Raises OSError, and what it means that the interpreter is not sound."""
    syscalls.resolve()
    path, streams = list(sys.path), (sys.stdin, sys.stdout, sys.stderr)
    try:
        for _ in range(_ROUNDS):
            _serve_blank()
            sys.path[:] = path
            runner.fresh_streams()
            os.environ.update()  # asks an abstract class, which asks all below it the first time
    finally:
        sys.path[:] = path
        sys.stdin, sys.stdout, sys.stderr = streams
        sys.modules.pop(_BLANK, None)
    _speak()
    _make_streams()
    gc.collect()
    # An instance's collections need not look at, and so write to, what was there before it.
    gc.freeze()


def _serve_blank() -> None:
    """As an instance does with a plugin, which is a module of our own here."""
    sys.modules.pop(_BLANK, None)
    plugin = functions.Plugin(_CALL)
    plugin.encode(plugin.answer(json.loads(_INPUT)))
    batches.answer(plugin, b'{"items":[{"json":4}]}\nnull')


def _make_streams() -> None:
    """A stream finds out what its descriptor is when it is made, so this one has to be what it will be."""
    kept = [os.dup(descriptor) for descriptor in (1, 2)]
    ends = os.pipe2(os.O_CLOEXEC)
    try:
        for descriptor in (1, 2):
            os.dup2(ends[1], descriptor)
        runner.prepare_streams()
    finally:
        for descriptor, old in zip((1, 2), kept, strict=True):
            os.dup2(old, descriptor)
        for descriptor in (*kept, *ends):
            os.close(descriptor)


def _speak() -> None:
    """As an instance does with the launcher."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        socket.send_fds(ours, [b"{}"], [0])
        _, descriptors, _, _ = socket.recv_fds(theirs, 16, 1)
        for descriptor in descriptors:
            os.close(descriptor)
    syscalls.prctl(constants.PR_CAPBSET_READ, 0)
