"""Move a folder into a running instance, as grants of files will: what its jail is laid out for."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

_OPEN_TREE, _MOVE_MOUNT = 428, 429  # the same number on every architecture
_OPEN_TREE_CLONE, _AT_RECURSIVE, _AT_FDCWD = 1, 0x8000, -100
_MOVE_MOUNT_F_EMPTY_PATH = 4
_CLONE_NEWNS = 0x20000
READ_PLAN = "/grant/read/plan"
WRITE_OUTPUT = "/grant/write/output"


def move_in(folder: Path, pid: int, target: str) -> None:
    """A copy of the mount of `folder` onto `target` in the mount namespace of `pid`. Raises OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    tree = _checked(libc.syscall(_OPEN_TREE, _AT_FDCWD, bytes(folder), _OPEN_TREE_CLONE | os.O_CLOEXEC))
    child = os.fork()
    if child == 0:
        error = 1
        try:
            namespace = os.open(f"/proc/{pid}/ns/mnt", os.O_RDONLY)
            _checked(libc.setns(namespace, _CLONE_NEWNS))
            _checked(libc.syscall(_MOVE_MOUNT, tree, b"", _AT_FDCWD, target.encode(), _MOVE_MOUNT_F_EMPTY_PATH))
            error = 0
        except OSError as failed:
            error = failed.errno or 1
        finally:
            os._exit(error)
    os.close(tree)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status:
        raise OSError(status, os.strerror(status), target)


def _checked(result: int) -> int:
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result
