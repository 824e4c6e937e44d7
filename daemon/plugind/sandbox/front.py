"""How the front gives up root: a private view of the file system, another uid, and no way back."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import plugind
from plugind.linux import constants as c
from plugind.linux import syscalls

_FUSE = Path("/dev/fuse")


def drop_root(uid: int, gid: int, keep: Sequence[Path]) -> None:
    """Become uid:gid without any capability, for good. The `keep` folders and Python itself stay reachable.

    They may lie below folders that only root can enter (a pyenv in root's home, a state folder of a test): in a
    mount namespace of its own, such a folder is covered by an empty one that shows just what is needed.
    Raises OSError.
    """
    os.chdir("/")
    syscalls.unshare(c.CLONE_NEWNS)
    syscalls.mount("", "/", None, c.MS_REC | c.MS_PRIVATE)
    for barrier, paths in barriers([*keep, *_python()], uid).items():
        _open_up(barrier, paths)
    if _FUSE.exists():
        # To close a file of a FUSE file system is to wait for who serves it: the launcher must not get one from us.
        syscalls.mount("/dev/null", str(_FUSE), None, c.MS_BIND)
    syscalls.drop_bounding_set()
    os.setgroups([])
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)
    syscalls.clear_capabilities()
    syscalls.prctl(c.PR_SET_NO_NEW_PRIVS, 1)
    syscalls.prctl(c.PR_SET_DUMPABLE, 0)


def _python() -> Iterable[Path]:
    yield Path(os.path.realpath(sys.base_prefix))
    yield Path(sys.prefix)
    yield Path(plugind.__file__).parent
    yield from (Path(entry) for entry in sys.path if entry)


def barriers(paths: Iterable[Path], uid: int) -> dict[Path, list[Path]]:
    """The folders above `paths` that `uid` cannot enter, each with the paths below it; outermost folders only."""
    found: dict[Path, list[Path]] = {}
    for path in sorted({Path(os.path.abspath(path)) for path in paths if path.is_dir()}):
        barrier = next((above for above in reversed(path.parents) if not _enterable(above, uid)), None)
        if barrier is None:
            continue
        shown = found.setdefault(barrier, [])
        if not any(path.is_relative_to(other) for other in shown):
            shown.append(path)
    return found


def _enterable(folder: Path, uid: int) -> bool:
    status = folder.stat()
    return bool(status.st_mode & (0o100 if status.st_uid == uid else 0o001))


def _open_up(barrier: Path, paths: Sequence[Path]) -> None:
    held = {path: os.open(path, os.O_PATH | os.O_CLOEXEC) for path in paths}
    flags = c.MS_NOSUID | c.MS_NODEV
    syscalls.mount("none", str(barrier), "tmpfs", flags | c.MS_NOEXEC, "size=64k,nr_inodes=256,mode=0711")
    for path, descriptor in held.items():
        path.mkdir(parents=True, exist_ok=True)
        for folder in (path, *path.parents):
            if folder.is_relative_to(barrier) and not os.path.ismount(folder):
                folder.chmod(0o711)  # whatever the umask was
        syscalls.mount(f"/proc/self/fd/{descriptor}", str(path), None, c.MS_BIND | c.MS_REC)
        os.close(descriptor)
    syscalls.mount("", str(barrier), None, c.MS_REMOUNT | c.MS_BIND | c.MS_RDONLY | flags | c.MS_NOEXEC)
