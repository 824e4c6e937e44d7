"""The read-only root that every instance of a template sees, built from the host by real root in a private namespace.

Real root, because the interpreter may live below a 0700 home: its own prefix is shown at its own path, and nothing
else of that home. What is copied (the code that runs inside) is copied so that a host file's mode never matters.
"""

from __future__ import annotations

import os
import shutil
import sys
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import plugind
from plugind.errors import IsolationUnavailableError
from plugind.linux import constants as c
from plugind.linux import landlock, syscalls
from plugind.model import Profile
from plugind.planfiles import OUTPUT_DIR, PLAN_DIR
from plugind.sandbox import jailspec
from plugind.sandbox.inside.packages import PLACE

RUNTIME_DIR = "/runtime"
GRANTS = tuple(path.lstrip("/") for path in (PLAN_DIR, OUTPUT_DIR))
"""Where an instance moves in what it was granted. Landlock's rules are on the folders above: one on a mountpoint itself
would not cover what is mounted there afterwards."""
_RESERVED = ("/tmp", "/proc", "/dev", "/code", "/plugin", "/runtime", "/etc", "/grant", PLACE)  # noqa: S108
_READ_ONLY = c.MS_BIND | c.MS_REMOUNT | c.MS_RDONLY | c.MS_NOSUID
_DEVICES = ("null", "zero", "full", "random", "urandom")
_INSIDE = (
    "__init__.py",
    "linux/__init__.py",
    "linux/constants.py",
    "linux/landlock.py",
    "linux/mounts.py",
    "linux/syscalls.py",
    "sandbox/__init__.py",
)
_ETC = {
    "passwd": "plugin:x:1000:1000:plugin:/tmp:/usr/sbin/nologin\n",
    "group": "plugin:x:1000:\n",
    "host.conf": "multi on\n",  # all addresses of a name, and not the first one alone (host.conf(5))
    "hosts": "127.0.0.1 localhost\n::1 localhost\n",
    "nsswitch.conf": "passwd: files\ngroup: files\nhosts: files\n",
}


@dataclass(frozen=True, slots=True)
class Interpreter:
    """The Python that plugins run in: the one this daemon runs in, without its virtual environment."""

    executable: str
    prefix: str

    @classmethod
    def current(cls) -> Interpreter:
        """Raises IsolationUnavailableError where it lies at a path that the jail uses for something else."""
        return check_place(cls(os.path.realpath(sys.executable), os.path.realpath(sys.base_prefix)))


def check_place(found: Interpreter) -> Interpreter:
    """The same. Raises IsolationUnavailableError where it lies at a path that the jail uses for something else."""
    for reserved in _RESERVED:
        if found.prefix == reserved or found.prefix.startswith(reserved + "/"):
            raise IsolationUnavailableError("rootfs", f"the interpreter lies at {found.prefix}, below {reserved}")
    return found


def ground(profile: Profile) -> jailspec.Ground:
    """What this machine gives to jails of a tier. Raises IsolationUnavailableError (Interpreter.current)."""
    trees = library_trees(Interpreter.current(), programs=profile.exec_allowed)
    return jailspec.Ground(landlock.abi(), tuple(map(str, trees)))


def build(root: Path, code: Path, interpreter: Interpreter, *, programs: bool, packages: Path | None = None) -> None:
    """Mount and fill the root at `root`. `programs`: show /usr/bin too, for tiers that may execute.

    `packages` are an environment's files.

    Raises OSError with the step's path.
    """
    syscalls.mount("none", str(root), "tmpfs", c.MS_NOSUID | c.MS_NODEV, "size=8m,nr_inodes=4096,mode=0755")
    os.umask(0o022)
    for name in ("proc", "tmp", "plugin", "code", "etc", "dev/shm", *GRANTS, "usr"):
        (root / name).mkdir(parents=True)
    for source in library_trees(interpreter, programs=programs):
        _show(source, root)
    for link in ("lib", "lib64", "bin"):
        host = Path("/", link)
        if host.is_symlink() and not os.path.lexists(root / link):
            (root / link).symlink_to(os.readlink(host))
    for hidden in _foreign_packages(interpreter):
        _cover(root / hidden.relative_to("/"))
    _bind(code, root / "code", c.MS_NODEV)
    (root / PLACE.lstrip("/")).mkdir()
    if packages is not None:
        _bind(packages, root / PLACE.lstrip("/"), c.MS_NODEV)
    _devices(root)
    for name, text in _ETC.items():
        (root / "etc" / name).write_text(text)
    _copy_runtime(root / RUNTIME_DIR.lstrip("/"))


def library_trees(interpreter: Interpreter, *, programs: bool) -> Iterator[Path]:
    """What the jail shows of the host, at its own place: interpreter, libraries, and `programs` where they may run."""
    if not interpreter.prefix.startswith("/usr"):
        yield Path(interpreter.prefix)
    else:
        yield Path(interpreter.executable)
        if interpreter.prefix != "/usr":
            yield Path(interpreter.prefix)
    for name in ("/usr/lib", "/usr/lib64", "/lib", "/lib64", "/usr/share/zoneinfo"):
        if Path(name).is_dir() and not Path(name).is_symlink():
            yield Path(name)
    if programs:
        yield Path("/usr/bin")


def _foreign_packages(interpreter: Interpreter) -> Iterator[Path]:
    # `-S` keeps them off sys.path; here they are also out of sight. The base environment is the standard library.
    stdlib = Path(os.path.realpath(sysconfig.get_path("stdlib")))
    for folder in (stdlib / "site-packages", stdlib / "dist-packages", Path("/usr/lib/python3/dist-packages")):
        shown = str(folder).startswith((interpreter.prefix, "/usr/lib"))
        if shown and folder.is_dir():
            yield folder


def _show(source: Path, root: Path) -> None:
    """The host's file or folder at its own path below `root`, read-only."""
    target = root / source.relative_to("/")
    if os.path.lexists(target) and any(target.samefile(root / path) for path in ("usr",)):
        return
    if source.is_dir():
        target.mkdir(parents=True, exist_ok=True)
    else:
        target.parent.mkdir(parents=True, exist_ok=True)
        if not target.exists():
            target.touch()
    _bind(source, target, c.MS_NODEV)


def _bind(source: Path, target: Path, flags: int) -> None:
    syscalls.mount(str(source), str(target), None, c.MS_BIND)
    syscalls.mount("", str(target), None, _READ_ONLY | flags)


def _cover(target: Path) -> None:
    flags = c.MS_RDONLY | c.MS_NOSUID | c.MS_NODEV | c.MS_NOEXEC
    syscalls.mount("none", str(target), "tmpfs", flags, "size=4k,nr_inodes=2,mode=0555")


def _devices(root: Path) -> None:
    for name in _DEVICES:
        target = root / "dev" / name
        target.touch()
        _bind(Path("/dev", name), target, c.MS_NOEXEC)
    for name, link in (("fd", "fd"), ("stdin", "fd/0"), ("stdout", "fd/1"), ("stderr", "fd/2")):
        (root / "dev" / name).symlink_to(f"/proc/self/{link}")


def _copy_runtime(target: Path) -> None:
    source = Path(plugind.__file__).parent
    inside = [path.relative_to(source) for path in (source / "sandbox/inside").glob("*.py")]
    for name in [*map(Path, _INSIDE), *inside]:
        copy = target / "plugind" / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / name, copy)
        copy.chmod(0o444)


def enter(root: Path) -> None:
    """Make `root` the root of this mount namespace and forget the host's. Source: pivot_root(2), "." trick."""
    os.chdir(root)
    syscalls.pivot_root(".", ".")
    syscalls.umount2(".", c.MNT_DETACH)
    os.chdir("/")
    syscalls.mount("", "/", None, _READ_ONLY | c.MS_NODEV)
