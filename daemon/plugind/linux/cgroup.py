"""Control groups: two drivers with one interface, v1/hybrid and unified.

A base holds `instances/` and `templates/`; each group below has a limit on memory (without swap), processes and CPU.
Where the unified hierarchy is mounted, also beside v1 controllers, a group is killed through its cgroup.kill.
Sources: Documentation/admin-guide/cgroup-v1/, Documentation/admin-guide/cgroup-v2.rst, cgroups(7).
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import signal
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from plugind.errors import IsolationUnavailableError

CPU_PERIOD_US = 100_000
REMOVE_TIMEOUT_S = 2.0
_CONTROLLERS = ("memory", "pids", "cpu")
_UNIT = "/plugind-launcher.service"
_LEAF = "plugind-daemon"
"""Where the processes of our own group are moved. Who is in it was there before: the group above is the own one."""
_TOP = "top of unified"
_NANOSECONDS = 1000
_MOVES = 10
"""Passes over a group's processes, which can fork while they are moved."""


@dataclass(frozen=True, slots=True)
class GroupLimits:
    """What a group may have: bytes without swap, processes and threads, percent of one CPU."""

    memory_bytes: int
    pids: int
    cpu_percent: int


@dataclass(frozen=True, slots=True)
class GroupStats:
    """What a group has used and been refused since it was made."""

    cpu_ns: int
    memory_peak_bytes: int
    oom_kills: int
    pids_refused: int


class Group:
    """The directories of one group, one per hierarchy, by the hierarchy's name."""

    def __init__(self, folders: Mapping[str, Path]) -> None:
        self._folders = folders
        self._places = tuple(dict.fromkeys(folders.values()))  # cpu and cpuacct are often one hierarchy
        with contextlib.ExitStack() as undo:
            for folder in self._places:
                folder.mkdir(exist_ok=True)
                undo.callback(_rmdir, folder)
            undo.pop_all()

    def attach(self, pid: int) -> None:
        """Move a process (the host's pid) in. May wait for an RCU grace period, some 10 ms. Raises OSError."""
        for folder in self._places:
            _write(folder / "cgroup.procs", str(pid))

    def kill(self) -> None:
        """SIGKILL to every process, also of the groups below. Raises OSError."""
        unified = self._folders.get("unified")
        if unified is not None and (unified / "cgroup.kill").exists():
            _write(unified / "cgroup.kill", "1")
            return
        for pid in self.pids():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def reins(self) -> tuple[int, int] | None:
        """Descriptors of cgroup.kill, for writing, and cgroup.events, for reading; None without a unified hierarchy.

        Whoever has them can end the group and see that it is empty, whatever user it is. Raises OSError.
        """
        unified = self._folders.get("unified")
        if unified is None or not (unified / "cgroup.kill").exists():
            return None
        kill = os.open(unified / "cgroup.kill", os.O_WRONLY | os.O_CLOEXEC)
        try:
            return kill, os.open(unified / "cgroup.events", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            os.close(kill)
            raise

    def pids(self) -> list[int]:
        """The processes in this group itself."""
        folder = self._places[0]
        return [int(line) for line in (folder / "cgroup.procs").read_text().split()]

    @property
    def can_freeze(self) -> bool:
        """Whether a group can be made to stand still: the unified hierarchy's can, with controllers or without."""
        unified = self._folders.get("unified")
        return unified is not None and (unified / "cgroup.freeze").exists()

    def freeze(self, *, frozen: bool) -> None:
        """Have every process stand still, or go on; SIGKILL works either way. Raises OSError."""
        _write(self._folders["unified"] / "cgroup.freeze", "1" if frozen else "0")

    def tasks(self) -> int:
        """How many processes and threads there are, also below. Raises OSError."""
        return int(_read(self._folders.get("pids", self._places[0]) / "pids.current"))

    def remove(self) -> None:
        """Remove the group, which has no living process. Raises OSError when it stays busy for two seconds."""
        for folder in self._places:
            _rmdir(folder)

    def set_limits(self, limits: GroupLimits) -> None:
        """Put limits in force. Raises OSError."""
        raise NotImplementedError

    def stats(self) -> GroupStats:
        """What it has used. Raises OSError."""
        raise NotImplementedError

    def child(self, name: str) -> Group:
        """A group below this one."""
        return type(self)({kind: folder / name for kind, folder in self._folders.items()})


class V1Group(Group):
    """Controllers in hierarchies of their own; `unified`, where it is mounted too, for cgroup.kill."""

    def set_limits(self, limits: GroupLimits) -> None:
        """See Group."""
        memory = self._folders["memory"]
        _write(memory / "memory.limit_in_bytes", str(limits.memory_bytes))
        with_swap = memory / "memory.memsw.limit_in_bytes"
        if with_swap.exists():  # not there where the kernel does not account swap
            _write(with_swap, str(limits.memory_bytes))
        else:
            _write(memory / "memory.swappiness", "0")
        _write(self._folders["pids"] / "pids.max", str(limits.pids))
        _write(self._folders["cpu"] / "cpu.cfs_period_us", str(CPU_PERIOD_US))
        _write(self._folders["cpu"] / "cpu.cfs_quota_us", str(limits.cpu_percent * CPU_PERIOD_US // 100))

    def stats(self) -> GroupStats:
        """See Group."""
        memory = self._folders["memory"]
        return GroupStats(
            cpu_ns=int(_read(self._folders["cpuacct"] / "cpuacct.usage")),
            memory_peak_bytes=int(_read(memory / "memory.max_usage_in_bytes")),
            oom_kills=_field(_read(memory / "memory.oom_control"), "oom_kill"),
            pids_refused=_field(_read(self._folders["pids"] / "pids.events"), "max"),
        )


class UnifiedGroup(Group):
    """All controllers in the one v2 hierarchy."""

    def set_limits(self, limits: GroupLimits) -> None:
        """See Group."""
        folder = self._folders["unified"]
        _write(folder / "memory.max", str(limits.memory_bytes))
        if (folder / "memory.swap.max").exists():
            _write(folder / "memory.swap.max", "0")
        _write(folder / "memory.oom.group", "1")
        _write(folder / "pids.max", str(limits.pids))
        _write(folder / "cpu.max", f"{limits.cpu_percent * CPU_PERIOD_US // 100} {CPU_PERIOD_US}")

    def stats(self) -> GroupStats:
        """See Group."""
        folder = self._folders["unified"]
        peak = folder / "memory.peak"  # since Linux 5.19
        return GroupStats(
            cpu_ns=_field(_read(folder / "cpu.stat"), "usage_usec") * _NANOSECONDS,
            memory_peak_bytes=int(_read(peak)) if peak.exists() else 0,
            oom_kills=_field(_read(folder / "memory.events"), "oom_kill"),
            pids_refused=_field(_read(folder / "pids.events"), "max"),
        )

    def child(self, name: str) -> Group:
        """See Group; a parent has to hand its controllers down first."""
        _delegate(self._folders["unified"])
        return super().child(name)


class Base:
    """The daemon's own groups: one subtree for instances, one for templates."""

    def __init__(self, top: Group) -> None:
        self._top = top
        self._instances = top.child("instances")
        self._templates = top.child("templates")

    def create(self, name: str, limits: GroupLimits) -> Group:
        """A group with limits for one instance. Raises OSError; then nothing is left of it."""
        group = self._instances.child(name)
        try:
            group.set_limits(limits)
        except OSError:
            group.remove()
            raise
        return group

    def create_template(self, name: str) -> Group:
        """A group without limits of its own, for an init and its zygote."""
        return self._templates.child(name)

    def kill_descriptor(self) -> int | None:
        """A descriptor: write "1" and every instance dies. None where no unified hierarchy is mounted."""
        unified = self._instances._folders.get("unified")  # noqa: SLF001 - the same file's own
        if unified is None or not (unified / "cgroup.kill").exists():
            return None
        return os.open(unified / "cgroup.kill", os.O_WRONLY | os.O_CLOEXEC)

    def remove(self) -> None:
        """Remove what is left; every process in it must be gone."""
        for group in (self._instances, self._templates, self._top):
            group.remove()


class Driver:
    """One way of using this machine's cgroups. `folders` are the places, by hierarchy, where a base is made."""

    def __init__(self, name: str, folders: Mapping[str, Path], kind: type[Group]) -> None:
        self.name = name
        self._folders = folders
        self._kind = kind

    def create_base(self, name: str) -> Base:
        """Our own subtree, new. Raises OSError."""
        return Base(self._kind({kind: folder / f"plugind-{name}" for kind, folder in self._folders.items()}))

    def sweep(self, name: str) -> None:
        """Kill and remove what an earlier daemon of that name left behind. Raises OSError."""
        for folder in self._folders.values():
            top = folder / f"plugind-{name}"
            for group in [path for path in _tree(top) if (path / "cgroup.procs").exists()]:
                _kill_until_empty(group)
            for group in _tree(top):
                _rmdir(group)


def detect(mounts: str | None = None, own: str | None = None, *, prepare: bool = True) -> Driver:
    """The driver that fits, from the text of /proc/self/mounts and /proc/self/cgroup.

    `prepare` readies this process's own group for groups below it; without, nothing is changed.
    Raises IsolationUnavailableError naming the controller that is missing.
    """
    mounts = Path("/proc/self/mounts").read_text() if mounts is None else mounts
    own = Path("/proc/self/cgroup").read_text() if own is None else own
    places = dict(_places(mounts, own))
    unified = places.get("unified")
    top = places.pop(_TOP, None)
    available = _read(unified / "cgroup.controllers").split() if unified is not None else []
    for folder in (unified, top):
        if folder is not None and set(_CONTROLLERS) <= set(_read(folder / "cgroup.controllers").split()):
            return Driver("unified", {"unified": _make_inner(folder) if prepare else folder}, UnifiedGroup)
    lacking = [controller for controller in (*_CONTROLLERS, "cpuacct") if controller not in places]
    if lacking:
        raise IsolationUnavailableError("cgroup", _what_is_missing(lacking, available))
    chosen = {kind: places[kind] for kind in (*_CONTROLLERS, "cpuacct")}
    if unified is None:
        return Driver("v1", chosen, V1Group)
    return Driver("v1/hybrid", {"unified": unified, **chosen}, V1Group)


def _what_is_missing(lacking: list[str], available: list[str]) -> str:
    """`lacking` are the controllers without a v1 hierarchy, `available` those of the unified one."""
    if len(lacking) == len(_CONTROLLERS) + 1 and set(available) & set(_CONTROLLERS):
        missing = [controller for controller in _CONTROLLERS if controller not in available]
        return f"the unified hierarchy lacks the controllers {', '.join(missing)}"
    return f"no hierarchy with the controllers {', '.join(lacking)} is mounted"


def _places(mounts: str, own: str) -> Iterator[tuple[str, Path]]:
    """Hierarchy (a controller, or "unified") and the group in it below which a base is made.

    In the unified hierarchy, and as a unit of systemd in every one, that is this process's own: it is delegated.
    Else in v1 hierarchies it is the root: whoever put this process into a group gave it limits that are not meant for
    plugins. The unified hierarchy's root (`_TOP`) is there for one who is no unit and has no controllers in the own
    group, as in a login session.
    """
    paths = {}
    for line in own.splitlines():
        _, controllers, path = line.split(":", 2)
        for controller in (controllers or "unified").split(","):
            paths[controller] = path
    for line in mounts.splitlines():
        _, where, kind, options, *_ = line.split()
        if kind == "cgroup2":
            names: Iterable[str] = ("unified",)
        elif kind == "cgroup":
            names = options.split(",")
        else:
            continue
        top = where.encode().decode("unicode_escape")
        for name in names:
            if name in paths:
                path = paths[name].removesuffix(f"/{_LEAF}")
                below = path if kind == "cgroup2" or path.endswith(_UNIT) else ""
                yield name, Path(top + below)
                if kind == "cgroup2" and not path.endswith(_UNIT):
                    yield _TOP, Path(top)


def _make_inner(folder: Path) -> Path:
    """v2: a group with processes cannot have groups with controllers below, unless it is the root."""
    if (folder / "cgroup.type").exists():  # the root has none
        leaf = folder / _LEAF
        leaf.mkdir(exist_ok=True)
        for _ in range(_MOVES):
            for pid in _read(folder / "cgroup.procs").split():
                with contextlib.suppress(ProcessLookupError):  # it ended meanwhile
                    _write(leaf / "cgroup.procs", pid)
            if not _read(folder / "cgroup.procs").strip():
                break
    _delegate(folder)
    return folder


def _delegate(folder: Path) -> None:
    _write(folder / "cgroup.subtree_control", " ".join(f"+{name}" for name in _CONTROLLERS))


def _tree(top: Path) -> list[Path]:
    """All groups below and with `top`, deepest first."""
    if not top.is_dir():
        return []
    return [Path(folder) for folder, _, _ in os.walk(top, topdown=False)]


def _kill_until_empty(group: Path) -> None:
    deadline = time.monotonic() + REMOVE_TIMEOUT_S
    while pids := _read(group / "cgroup.procs").split():
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
        if time.monotonic() > deadline:
            raise OSError(0, f"processes {' '.join(pids)} do not die", str(group))
        time.sleep(0.005)


def _rmdir(folder: Path) -> None:
    deadline = time.monotonic() + REMOVE_TIMEOUT_S
    while True:
        try:
            folder.rmdir()
        except FileNotFoundError:
            return
        except OSError as error:
            # EBUSY: the last process is dead and not yet reaped.
            if error.errno != errno.EBUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.001)
        else:
            return


def _write(path: Path, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, text.encode())
    finally:
        os.close(descriptor)


def _read(path: Path) -> str:
    # Not Path.read_text: several of these lie between a run's end and its answer.
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    text = b""
    try:
        while chunk := os.read(descriptor, 64 * 1024):
            text += chunk
    finally:
        os.close(descriptor)
    return text.decode()


def _field(text: str, name: str) -> int:
    found = re.search(rf"^{name} (\d+)$", text, re.MULTILINE)
    return int(found[1]) if found else 0
