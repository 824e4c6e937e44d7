"""Control groups: two drivers with one interface, v1/hybrid and unified.

A base holds `instances/` and `templates/`; each group below has a limit on memory (without swap), processes and CPU.
Where the unified hierarchy is mounted, also beside v1 controllers, a group is killed through its cgroup.kill.
Sources: Documentation/admin-guide/cgroup-v1/, Documentation/admin-guide/cgroup-v2.rst, cgroups(7).
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from plugind.errors import IsolationUnavailableError
from plugind.linux import cgroupfs

CPU_PERIOD_US = 100_000
_CONTROLLERS = ("memory", "pids", "cpu")
_UNIT = "/plugind-launcher.service"
_LEAF = "plugind-daemon"
"""Where the processes of our own group are moved. Who is in it was there before: the group above is the own one."""
_TOP = "top of unified"
_PAGE = 4096
MOST_OPEN = 256
"""Descriptors: a process may by default have 1024, and every instance needs some."""
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


@dataclass(frozen=True, slots=True)
class GroupUse:
    """What a group has at this moment: processor time so far, memory, processes and threads. -1: it cannot be read."""

    cpu_ns: int
    memory_bytes: int
    pids: int


class Group:
    """The directories of one group, one per hierarchy, by the hierarchy's name.

    What is looked at more than once stays open until the group is removed, of not more than MOST_OPEN files of all.
    """

    _opened: ClassVar[int] = 0

    def __init__(self, folders: Mapping[str, Path | str]) -> None:
        self._folders = {kind: str(folder) for kind, folder in folders.items()}
        self._places = tuple(dict.fromkeys(self._folders.values()))  # cpu and cpuacct are often one hierarchy
        self._open: dict[str, int] = {}
        made = []
        try:
            for folder in self._places:
                cgroupfs.mkdir(folder)
                made.append(folder)
        except OSError:
            for folder in made:
                cgroupfs.rmdir(folder)
            raise

    def attach(self, pid: int) -> None:
        """Move a process (the host's pid) in. May wait for an RCU grace period, some 10 ms. Raises OSError."""
        for folder in self._places:
            cgroupfs.write(f"{folder}/cgroup.procs", str(pid))

    def kill(self) -> None:
        """SIGKILL to every process, also of the groups below. Raises OSError."""
        if "unified" in self._folders:
            with contextlib.suppress(FileNotFoundError):  # before Linux 5.14
                cgroupfs.write(f"{self._folders['unified']}/cgroup.kill", "1")
                return
        for pid in self.pids():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def reins(self) -> tuple[int, int] | None:
        """Descriptors of cgroup.kill, for writing, and cgroup.events, for reading; None without a unified hierarchy.

        Whoever has them can end the group and see that it is empty, whatever user it is. Raises OSError.
        """
        kill = self.kill_descriptor()
        if kill is None:
            return None
        try:
            return kill, os.open(f"{self._folders['unified']}/cgroup.events", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            os.close(kill)
            raise

    def kill_descriptor(self) -> int | None:
        """A descriptor: write "1" and all that is in it and below dies. None without a unified hierarchy."""
        if "unified" not in self._folders:
            return None
        try:
            return os.open(f"{self._folders['unified']}/cgroup.kill", os.O_WRONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return None

    def pids(self) -> list[int]:
        """The processes in this group itself."""
        return [int(line) for line in cgroupfs.read(f"{self._places[0]}/cgroup.procs").split()]

    @property
    def can_freeze(self) -> bool:
        """Whether a group can be made to stand still: the unified hierarchy's can, with controllers or without."""
        return "unified" in self._folders and os.path.exists(f"{self._folders['unified']}/cgroup.freeze")

    def freeze(self, *, frozen: bool) -> None:
        """Have every process stand still, or go on; SIGKILL works either way. Raises OSError."""
        cgroupfs.write(f"{self._folders['unified']}/cgroup.freeze", "1" if frozen else "0")

    def tasks(self) -> int:
        """How many processes and threads there are, also below. Raises OSError."""
        return int(cgroupfs.read(f"{self._folders.get('pids', self._places[0])}/pids.current"))

    def use(self) -> GroupUse:
        """What it has now."""
        memory = lambda: int(cgroupfs.read(self._memory_file()))  # noqa: E731
        return GroupUse(cgroupfs.figure(self._cpu_ns), cgroupfs.figure(memory), cgroupfs.figure(self.tasks))

    def _cpu_ns(self) -> int:
        """Processor time of all its processes. Raises OSError, ValueError."""
        return cgroupfs.usage_ns(self._look("unified", "cpu.stat"))

    def _memory_file(self) -> str:
        """The file that says how much memory it has."""
        raise NotImplementedError

    def remove(self) -> None:
        """Remove the group, which has no living process. Raises OSError when it stays busy for two seconds."""
        while self._open:
            os.close(self._open.popitem()[1])
            Group._opened -= 1
        for folder in self._places:
            cgroupfs.rmdir(folder)

    def _look(self, kind: str, name: str) -> str:
        """What a short file says now. Raises OSError."""
        path = f"{self._folders[kind]}/{name}"
        if (descriptor := self._open.get(path)) is None:
            if Group._opened >= MOST_OPEN:
                return cgroupfs.read(path)
            descriptor = self._open[path] = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            Group._opened += 1
        return os.pread(descriptor, _PAGE, 0).decode()

    def set_limits(self, limits: GroupLimits) -> None:
        """Put limits in force. Raises OSError."""
        raise NotImplementedError

    def stats(self) -> GroupStats:
        """What it has used. Raises OSError."""
        raise NotImplementedError

    def child(self, name: str) -> Group:
        """A group below this one."""
        return type(self)({kind: f"{folder}/{name}" for kind, folder in self._folders.items()})


class V1Group(Group):
    """Controllers in hierarchies of their own; `unified`, where it is mounted too, for cgroup.kill and CPU time."""

    def set_limits(self, limits: GroupLimits) -> None:
        """See Group."""
        memory, cpu = self._folders["memory"], self._folders["cpu"]
        cgroupfs.write(f"{memory}/memory.limit_in_bytes", str(limits.memory_bytes))
        try:
            cgroupfs.write(f"{memory}/memory.memsw.limit_in_bytes", str(limits.memory_bytes))
        except FileNotFoundError:  # not there where the kernel does not account swap
            cgroupfs.write(f"{memory}/memory.swappiness", "0")
        cgroupfs.write(f"{self._folders['pids']}/pids.max", str(limits.pids))
        cgroupfs.write(f"{cpu}/cpu.cfs_period_us", str(CPU_PERIOD_US))
        cgroupfs.write(f"{cpu}/cpu.cfs_quota_us", str(limits.cpu_percent * CPU_PERIOD_US // 100))

    def stats(self) -> GroupStats:
        """See Group."""
        return GroupStats(
            cpu_ns=self._cpu_ns(),
            memory_peak_bytes=int(self._look("memory", "memory.max_usage_in_bytes")),
            oom_kills=cgroupfs.field(self._look("memory", "memory.oom_control"), "oom_kill"),
            pids_refused=cgroupfs.field(self._look("pids", "pids.events"), "max"),
        )

    def _cpu_ns(self) -> int:
        return int(self._look("cpuacct", "cpuacct.usage")) if "cpuacct" in self._folders else super()._cpu_ns()

    def _memory_file(self) -> str:
        return f"{self._folders['memory']}/memory.usage_in_bytes"


class UnifiedGroup(Group):
    """All controllers in the one v2 hierarchy."""

    def set_limits(self, limits: GroupLimits) -> None:
        """See Group."""
        folder = self._folders["unified"]
        cgroupfs.write(f"{folder}/memory.max", str(limits.memory_bytes))
        with contextlib.suppress(FileNotFoundError):  # not there where the kernel does not account swap
            cgroupfs.write(f"{folder}/memory.swap.max", "0")
        cgroupfs.write(f"{folder}/memory.oom.group", "1")
        cgroupfs.write(f"{folder}/pids.max", str(limits.pids))
        cgroupfs.write(f"{folder}/cpu.max", f"{limits.cpu_percent * CPU_PERIOD_US // 100} {CPU_PERIOD_US}")

    def stats(self) -> GroupStats:
        """See Group."""
        peak = "0"
        with contextlib.suppress(FileNotFoundError):  # it is there since Linux 5.19
            peak = self._look("unified", "memory.peak")
        return GroupStats(
            cpu_ns=self._cpu_ns(),
            memory_peak_bytes=int(peak),
            oom_kills=cgroupfs.field(self._look("unified", "memory.events"), "oom_kill"),
            pids_refused=cgroupfs.field(self._look("unified", "pids.events"), "max"),
        )

    def _memory_file(self) -> str:
        return f"{self._folders['unified']}/memory.current"

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
        """See Group: every instance dies."""
        return self._instances.kill_descriptor()

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
                cgroupfs.rmdir(group)


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
    available = cgroupfs.read(unified / "cgroup.controllers").split() if unified is not None else []
    for folder in (unified, top):
        if folder is not None and set(_CONTROLLERS) <= set(cgroupfs.read(folder / "cgroup.controllers").split()):
            return Driver("unified", {"unified": _make_inner(folder) if prepare else folder}, UnifiedGroup)
    lacking = [controller for controller in (*_CONTROLLERS, "cpuacct") if controller not in places]
    if lacking:
        raise IsolationUnavailableError("cgroup", _what_is_missing(lacking, available))
    chosen = {kind: places[kind] for kind in (*_CONTROLLERS, "cpuacct")}
    if unified is None:
        return Driver("v1", chosen, V1Group)
    if (unified / "cpu.stat").exists():  # one hierarchy less to make, enter and remove for each run
        del chosen["cpuacct"]
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
            for pid in cgroupfs.read(folder / "cgroup.procs").split():
                with contextlib.suppress(ProcessLookupError):  # it ended meanwhile
                    cgroupfs.write(leaf / "cgroup.procs", pid)
            if not cgroupfs.read(folder / "cgroup.procs").strip():
                break
    _delegate(folder)
    return folder


def _delegate(folder: Path | str) -> None:
    cgroupfs.write(f"{folder}/cgroup.subtree_control", " ".join(f"+{name}" for name in _CONTROLLERS))


def _tree(top: Path) -> list[Path]:
    """All groups below and with `top`, deepest first."""
    if not top.is_dir():
        return []
    return [Path(folder) for folder, _, _ in os.walk(top, topdown=False)]


def _kill_until_empty(group: Path) -> None:
    deadline = time.monotonic() + cgroupfs.REMOVE_TIMEOUT_S
    while pids := cgroupfs.read(group / "cgroup.procs").split():
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
        if time.monotonic() > deadline:
            raise OSError(0, f"processes {' '.join(pids)} do not die", str(group))
        time.sleep(0.005)
