"""What the control groups give: the driver, what it lacks, and whether a plugin's ceilings fit into them.

Changes nothing: what a kernel has is seen in a group that is there, or known by its version.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from plugind.errors import IsolationUnavailableError
from plugind.linux import cgroup
from plugind.model import Profile
from plugind.sandbox.facts import Feature
from plugind.sandbox.machine import Machine

_BOOT: Final = "boot with systemd, or mount a cgroup2 with the controllers memory, pids and cpu"


def cgroups(machine: Machine) -> Feature:
    """Without limits nothing runs."""
    try:
        name = _driver(machine)
    except IsolationUnavailableError as error:
        return Feature("cgroups", False, str(error).removeprefix("cgroup: "), _BOOT)
    except OSError as error:
        return Feature("cgroups", False, f"{error.filename}: {error.strerror}", _BOOT)
    mounted = _mounted(machine, "unified" if name == "unified" else "memory")
    if mounted is not None and mounted[1]:
        found = f"driver {name}, mounted read-only at {mounted[0]}"
        return Feature("cgroups", False, found, "this looks like a container: run plugind on the host or in a VM")
    return Feature("cgroups", True, f"driver {name}, with memory, pids and cpu", _BOOT)


def cgroup_kill(machine: Machine) -> Feature:
    """All processes of a run in one write, by whoever holds the descriptor."""
    instead = "processes are killed one by one, and the kill switch needs the launcher"
    if _mounted(machine, "unified") is None:
        remedy = "boot with the unified hierarchy, alone or beside the others"
        return Feature("cgroup_kill", False, "no unified hierarchy is mounted", remedy, instead=instead)
    there = _has(machine, "cgroup.kill", beside="cgroup.procs", since=(5, 14))
    found = "available" if there else "not in this kernel"
    return Feature("cgroup_kill", there, found, "Linux 5.14 or newer", instead=instead)


def memory_peak(machine: Machine) -> Feature:
    """How much memory a run used at most."""
    there = not _is_unified(machine) or _has(machine, "memory.peak", beside="memory.max", since=(5, 19))
    found = "available" if there else "not in this kernel"
    return Feature(
        "memory_peak", there, found, "Linux 5.19 or newer", instead="the usage of a run says 0 bytes of memory"
    )


def swap(machine: Machine) -> Feature:
    """A plugin's memory limit is one of memory, not of memory and then swap."""
    if len((machine.text("/proc/swaps") or "").splitlines()) < 2:  # the first line is the heading
        return Feature("swap", True, "there is none")
    unified = _is_unified(machine)
    if unified:
        counted = _has(machine, "memory.swap.max", beside="memory.max", since=(4, 5))
    else:
        mounted = _mounted(machine, "memory")
        counted = mounted is not None and (mounted[0] / "memory.memsw.limit_in_bytes").exists()
    instead = "a plugin can use swap beyond its limit" if unified else "a plugin's memory may be written to the swap"
    found = "there, and counted for each group" if counted else "there, and not counted for each group"
    return Feature("swap", counted, found, "boot with swapaccount=1, or turn it off", "sudo swapoff -a", instead)


ALL: Final[tuple[Callable[[Machine], Feature], ...]] = (cgroups, cgroup_kill, memory_peak, swap)


def tight(machine: Machine, profile: Profile) -> list[str]:
    """Which ceilings of a tier are above what this machine, or the group plugind would be in, has at all."""
    found = []
    memory, tasks = _least(machine, "memory.max", _total(machine)), _least(machine, "pids.max", _most_tasks(machine))
    if memory is not None and profile.ceilings.memory_bytes > memory:
        had, may = _mebibytes(memory), _mebibytes(profile.ceilings.memory_bytes)
        found.append(f"a plugin may ask for {may} of memory and there are {had}: lower memory_bytes in the policy")
    if tasks is not None and profile.ceilings.pids > tasks:
        may = str(profile.ceilings.pids)
        found.append(f"a plugin may ask for {may} processes and there can be {tasks}: lower pids in the policy")
    return found


def _mebibytes(count: int) -> str:
    return f"{count >> 20} MiB"


def _total(machine: Machine) -> int | None:
    for line in (machine.text("/proc/meminfo") or "").splitlines():
        if line.startswith("MemTotal:"):
            return int(line.split()[1]) * 1024
    return None


def _most_tasks(machine: Machine) -> int | None:
    numbers = [machine.text(f"/proc/sys/kernel/{name}") for name in ("pid_max", "threads-max")]
    return min((int(text) for text in numbers if text), default=None)


def _least(machine: Machine, name: str, own: int | None) -> int | None:
    """The lowest of what the machine has and of the limits on the groups above ours (unified hierarchy)."""
    limits = [text for group in _groups_above(machine) for text in _words(group / name)]
    numbers = [int(text) for text in limits if text.isdecimal()]  # not `max`
    return min(numbers if own is None else [own, *numbers], default=None)


def _groups_above(machine: Machine) -> Iterator[Path]:
    """This process's own group in the unified hierarchy and those above it."""
    mounted = _mounted(machine, "unified")
    for line in (machine.text("/proc/self/cgroup") or "").splitlines():
        number, _, path = line.split(":", 2)
        if mounted is not None and number == "0":
            parts = [part for part in path.split("/") if part]
            yield from (mounted[0].joinpath(*parts[:depth]) for depth in range(len(parts) + 1))


def _driver(machine: Machine) -> str:
    mounts, own = machine.text("/proc/self/mounts") or "", machine.text("/proc/self/cgroup") or ""
    return cgroup.detect(mounts, own, prepare=False).name


def _is_unified(machine: Machine) -> bool:
    try:
        return _driver(machine) == "unified"
    except (IsolationUnavailableError, OSError):
        mounted = _mounted(machine, "unified")
        return mounted is not None and "memory" in _words(mounted[0] / "cgroup.controllers")


def _mounted(machine: Machine, hierarchy: str) -> tuple[Path, bool] | None:
    """Where a controller's hierarchy, or "unified", is mounted, and whether read-only."""
    found = None
    for line in (machine.text("/proc/self/mounts") or "").splitlines():
        _, where, kind, options, *_ = line.split()
        words = options.split(",")
        names = {"cgroup2": ["unified"], "cgroup": words}.get(kind, [])
        if hierarchy in names:
            found = Path(where.encode().decode("unicode_escape")), "ro" in words
    return found


def _has(machine: Machine, name: str, beside: str, since: tuple[int, int]) -> bool:
    """Whether groups of the unified hierarchy have a file, looked up in one that has `beside`.

    Not in the uppermost group, which has few files; without another one the kernel's version tells.
    """
    mounted = _mounted(machine, "unified")
    groups = sorted(mounted[0].iterdir()) if mounted is not None and mounted[0].is_dir() else []
    for group in groups:
        if (group / beside).exists():
            return (group / name).exists()
    return machine.version >= since


def _words(path: Path) -> list[str]:
    try:
        return path.read_text().split()
    except OSError:
        return []
