"""Landlock: what a process may do with files, whatever it could do by its uid and its mounts, and for all its children.

Standard library only: this file is also copied into the jail. What a kernel's ABI does not know is left out of what is
asked for. Sources: landlock(7), Documentation/userspace-api/landlock.rst, linux/landlock.h.
"""

from __future__ import annotations

import ctypes
import os
import stat
import struct
from collections.abc import Iterable, Mapping
from typing import Final

from plugind.linux import syscalls

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446  # the same number on every architecture
_VERSION: Final = 1  # LANDLOCK_CREATE_RULESET_VERSION
_PATH_BENEATH: Final = 1
_QUIET: Final = 1  # LANDLOCK_RESTRICT_SELF_LOG_SAME_EXEC_OFF: a plugin is not to fill the host's audit log
_RULESET: Final = struct.Struct("=QQQ")  # handled_access_fs, handled_access_net, scoped
_RULE: Final = struct.Struct("=Qi")  # allowed_access, parent_fd

EXECUTE, WRITE_FILE, READ_FILE, READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
_REMOVE_DIR, _REMOVE_FILE, _MAKE_DIR, _MAKE_REG, _MAKE_SYM = 1 << 4, 1 << 5, 1 << 7, 1 << 8, 1 << 12
_REFER, _TRUNCATE = 1 << 13, 1 << 14
_RIGHTS: Final = {1: (1 << 13) - 1, 2: _REFER, 3: _TRUNCATE, 5: 1 << 15}
"""ABI → the rights over files that came with it; the last is IOCTL_DEV."""
_OF_FILES: Final = EXECUTE | WRITE_FILE | READ_FILE | _TRUNCATE | 1 << 15
_NET_ABI, _NET = 4, 0b11  # bind and connect of TCP
_SCOPE_ABI, _SCOPES = 6, 0b11  # abstract Unix sockets and signals to outside
_QUIET_ABI: Final = 7

ACCESS: Final = {
    "read": READ_FILE | READ_DIR,
    "execute": READ_FILE | READ_DIR | EXECUTE,
    "device": READ_FILE | WRITE_FILE | READ_DIR,
    "write": READ_FILE | READ_DIR | WRITE_FILE | _REMOVE_DIR | _REMOVE_FILE | _MAKE_DIR | _MAKE_REG | _MAKE_SYM
    | _REFER | _TRUNCATE,
}  # fmt: skip
"""What a rule can allow, by the name that a jailspec has for it. Everything else is refused everywhere."""


def abi() -> int:
    """The version of Landlock that this kernel has; 0 where there is none, or it is not switched on."""
    try:
        return syscalls.call("landlock_create_ruleset", _CREATE_RULESET, None, 0, _VERSION)
    except OSError:
        return 0


def restrict(version: int, rules: Mapping[str, Iterable[str]], *, network: bool = False) -> None:
    """Restrict this process for good: `rules` are paths by a name of ACCESS, and below them that is allowed.

    A rule of "write" on a folder allows programs of it to run only where "execute" names it too. What is mounted later
    onto a folder is covered by a rule on the folder above it. Needs no_new_privs. `network` leaves TCP to others:
    what is refused here nobody could count. Raises OSError.
    """
    handled = sum(rights for since, rights in _RIGHTS.items() if version >= since)
    net = _NET if version >= _NET_ABI and not network else 0
    scoped = _SCOPES if version >= _SCOPE_ABI else 0
    attributes = _RULESET.pack(handled, net, scoped)
    # A kernel takes more than it knows of only where the rest is zero, as it is.
    ruleset = syscalls.call("landlock_create_ruleset", _CREATE_RULESET, attributes, len(attributes), 0)
    try:
        for access, paths in rules.items():
            for path in paths:
                _allow(ruleset, path, ACCESS[access] & handled)
        flags = _QUIET if version >= _QUIET_ABI else 0
        syscalls.call("landlock_restrict_self", _RESTRICT_SELF, ruleset, flags)
    finally:
        os.close(ruleset)


def _allow(ruleset: int, path: str, access: int) -> None:
    descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        if not stat.S_ISDIR(os.fstat(descriptor).st_mode):
            access &= _OF_FILES  # the kernel takes no right over folders for a file
        rule = ctypes.create_string_buffer(_RULE.pack(access, descriptor), _RULE.size)
        syscalls.call(f"landlock_add_rule {path}", _ADD_RULE, ruleset, _PATH_BENEATH, rule, 0)
    finally:
        os.close(descriptor)
