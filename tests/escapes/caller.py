"""What of this process a module that is imported could change: looked at before and after it is loaded by plugind."""

from __future__ import annotations

import atexit
import builtins
import gc
import json
import os
import resource
import signal
import sys
import threading
import warnings
from pathlib import Path
from typing import Any

import psutil

from tests.escapes.generated.variant import MARK

PLACES = (Path("/tmp"), Path("/dev/shm"), Path("/plugin"), Path.home())


def state() -> dict[str, Any]:
    """Values that compare unequal as soon as something was changed; functions and modules by identity."""
    return {
        "builtins": {name: id(value) for name, value in vars(builtins).items()},
        "library": [id(each) for each in (json.dumps, json.loads, os.write, os._exit, os.fork, gc.get_objects)],
        "modules": {name: id(module) for name, module in sys.modules.items()},
        "imports": [list(sys.path), list(sys.meta_path), list(sys.path_hooks)],
        "streams": [id(sys.stdin), id(sys.stdout), id(sys.stderr)],
        "hooks": [sys.gettrace(), sys.getprofile(), sys.excepthook, threading.excepthook, list(gc.callbacks)],
        "limits": [sys.getrecursionlimit(), sys.getswitchinterval(), sys.get_int_max_str_digits()],
        "warnings": list(warnings.filters),
        "resources": [resource.getrlimit(each) for each in (resource.RLIMIT_NOFILE, resource.RLIMIT_NPROC)],
        "signals": [signal.getsignal(number) for number in signal.valid_signals()],
        "at the end": atexit._ncallbacks(),
        "place": [Path.cwd(), os.listdir(), dict(os.environ), _umask()],
        "threads": {each.ident for each in threading.enumerate() if not _is_of_grpc(each)},
        "children": {each.pid for each in psutil.Process().children()},
        "left behind": [place / MARK for place in PLACES if (place / MARK).exists()],
    }


def _is_of_grpc(thread: threading.Thread) -> bool:
    """One for each channel in use and one for each stream, such as a module's session: they end with it."""
    return "channel_spin" in thread.name or thread.name.endswith("(_run)")


def _umask() -> str:
    return next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("Umask:"))
