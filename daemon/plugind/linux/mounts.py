"""File systems that are made, filled and handed over before they lie anywhere: the kernel's newer calls for mounts.

Standard library only: this file is also copied into the jail, where an instance puts into its place what the launcher
gave it. Sources: fsopen(2), fsconfig(2), fsmount(2), move_mount(2), mount_setattr(2), linux/mount.h.
"""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Mapping
from typing import Final

from plugind.linux import syscalls

_MOVE_MOUNT, _FSOPEN, _FSCONFIG, _FSMOUNT = 429, 430, 431, 432  # the same number on every architecture
_MOUNT_SETATTR: Final = 442
_AT_FDCWD, _AT_EMPTY_PATH = -100, 0x1000
_CLOEXEC: Final = 1  # FSOPEN_CLOEXEC, FSMOUNT_CLOEXEC
_SET_STRING, _CREATE = 1, 6  # FSCONFIG_SET_STRING, FSCONFIG_CMD_CREATE
_MOVE_MOUNT_F_EMPTY_PATH: Final = 4
_ATTRIBUTES: Final = struct.Struct("=QQQQ")  # attr_set, attr_clr, propagation, userns_fd

RDONLY, NOSUID, NODEV, NOEXEC, NOSYMFOLLOW = 0x1, 0x2, 0x4, 0x8, 0x00200000
LOCKED_DOWN: Final = NOSUID | NODEV | NOEXEC | NOSYMFOLLOW
"""Nothing on it is a program or a device, and no link on it leads anywhere."""


def fsopen(kind: str) -> int:
    """A file system on its way: a descriptor for fsconfig and fsmount. fsopen(2)."""
    return syscalls.call(f"fsopen {kind}", _FSOPEN, kind.encode(), _CLOEXEC)


def fsconfig_set(context: int, key: str, value: str) -> None:
    """One of its options. fsconfig(2), FSCONFIG_SET_STRING."""
    syscalls.call(f"fsconfig {key}={value}", _FSCONFIG, context, _SET_STRING, key.encode(), value.encode(), 0)


def fsconfig_create(context: int) -> None:
    """All options are set: make it. fsconfig(2), FSCONFIG_CMD_CREATE."""
    syscalls.call("fsconfig create", _FSCONFIG, context, _CREATE, None, None, 0)


def fsmount(context: int, attributes: int) -> int:
    """A mount of it that lies nowhere: an O_PATH descriptor of its root, with which it goes. fsmount(2)."""
    return syscalls.call("fsmount", _FSMOUNT, context, _CLOEXEC, attributes)


def mount_setattr(mount: int, attributes: int) -> None:
    """Set attributes of the mount that a descriptor is of. mount_setattr(2)."""
    packed = ctypes.create_string_buffer(_ATTRIBUTES.pack(attributes, 0, 0, 0), _ATTRIBUTES.size)
    syscalls.call("mount_setattr", _MOUNT_SETATTR, mount, b"", _AT_EMPTY_PATH, packed, _ATTRIBUTES.size)


def move_mount(mount: int, target: str) -> None:
    """Put a mount that lies nowhere at `target`, in the mount namespace of this process. move_mount(2)."""
    what = f"move_mount {target}"
    syscalls.call(what, _MOVE_MOUNT, mount, b"", _AT_FDCWD, target.encode(), _MOVE_MOUNT_F_EMPTY_PATH)


def detached_tmpfs(options: Mapping[str, str]) -> int:
    """A new tmpfs with these options (tmpfs(5)), locked down, that lies nowhere: as fsmount gives it. Raises OSError.

    Needs CAP_SYS_ADMIN. Whose user namespace the process is in owns it, wherever it is moved to: a template cannot
    write what only the host's root may, nor give it other options.
    """
    context = fsopen("tmpfs")
    try:
        for key, value in options.items():
            fsconfig_set(context, key, value)
        fsconfig_create(context)
        return fsmount(context, LOCKED_DOWN)
    finally:
        os.close(context)
