"""How a path is resolved, and how names change places: openat2 and renameat2, which Python's os module lacks."""

from __future__ import annotations

import ctypes
import os
import struct

from plugind.linux import constants as c
from plugind.linux.syscalls import call

_HOW = struct.Struct("=QQQ")  # struct open_how: flags, mode, resolve


def openat2(folder: int, path: str, flags: int, mode: int, resolve: int) -> int:
    """openat2(2). `mode` has to be 0 unless `flags` create something. EAGAIN: somebody renames meanwhile."""
    how = ctypes.create_string_buffer(_HOW.pack(flags, mode, resolve), _HOW.size)
    return call(f"openat2 {path!r}", c.SYS_OPENAT2, folder, _encoded(path), how, _HOW.size)


def renameat2(old_folder: int, old: str, new_folder: int, new: str, flags: int) -> None:
    """renameat2(2): RENAME_NOREPLACE or RENAME_EXCHANGE. EINVAL: the file system cannot do it."""
    number = c.number("renameat2")
    call(f"renameat2 {old!r} {new!r}", number, old_folder, _encoded(old), new_folder, _encoded(new), flags)


def _encoded(path: str) -> bytes:
    encoded = os.fsencode(path)
    if b"\0" in encoded:  # the kernel would take what stands before it
        raise ValueError(f"expected a path without null bytes, got {path!r}")
    return encoded
