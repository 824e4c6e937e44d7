"""What this kernel and machine give, found out by trying where that is possible; what each tier needs of it.

`plugindctl doctor` shows it, the launcher refuses a tier by it. Each fact is one small function.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import re
import select
import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from plugind.errors import IsolationUnavailableError
from plugind.linux import cgroup, seccomp, syscalls
from plugind.linux import constants as c
from plugind.model import Profile
from plugind.sandbox import uids

_SYS_LANDLOCK_CREATE_RULESET: Final = 444
_LANDLOCK_VERSION: Final = 1
_WORKED: Final = b"\0worked"
"""What a child says that came through: to say nothing is to have died."""


@dataclass(frozen=True, slots=True)
class Feature:
    """One fact. `ok` is None where it takes root to find out."""

    name: str
    ok: bool | None
    found: str
    remedy: str = ""


@dataclass(frozen=True, slots=True)
class Check:
    """A fact and the tiers that need it."""

    name: str
    ok: bool | None
    found: str
    needed_by: tuple[int, ...]
    remedy: str


def probe() -> dict[str, Feature]:
    """All facts by name. Changes nothing that outlives it; tries in forked children."""
    return {feature.name: feature for feature in (fact() for fact in _FACTS)}


def missing(profile: Profile, features: Mapping[str, Feature]) -> list[str]:
    """What this tier needs and the machine lacks, each with what was found. An unknown name is missing."""
    lacking = []
    for name in profile.requires:
        feature = features.get(name)
        if feature is None:
            lacking.append(f"{name} (no such feature is known)")
        elif not feature.ok:
            lacking.append(f"{name} ({feature.found})")
    return lacking


def checks(features: Mapping[str, Feature], profiles: Mapping[int, Profile]) -> list[Check]:
    """All facts, with who needs them."""
    return [
        Check(
            feature.name,
            feature.ok,
            feature.found,
            tuple(tier for tier, profile in sorted(profiles.items()) if feature.name in profile.requires),
            feature.remedy,
        )
        for feature in features.values()
    ]


def _architecture() -> Feature:
    machine = platform.machine()
    return Feature("architecture", machine in ("x86_64", "aarch64"), machine, "plugind runs on x86_64 and aarch64")


def _kernel(release: str = "") -> Feature:
    release = release or os.uname().release
    found = re.match(r"(\d+)\.(\d+)", release)
    version = (int(found[1]), int(found[2])) if found else (0, 0)
    return Feature("kernel", version >= (6, 1), release, "Linux 6.1 or newer, as in Debian 12 and Ubuntu 24.04")


def _root() -> Feature:
    if os.geteuid() == 0:
        return Feature("root", True, "this is root")
    # The daemon may well have it: nobody who only looks needs it.
    return Feature("root", None, f"this is uid {os.geteuid()}", "start the daemon with sudo")


def _seccomp() -> Feature:
    path = Path("/proc/sys/kernel/seccomp/actions_avail")
    actions = path.read_text().split() if path.exists() else []
    wanted = {"kill_process", "errno", "allow"}
    found = f"actions {' '.join(actions)}" if actions else "none"
    return Feature("seccomp", wanted <= set(actions), found, "a kernel with CONFIG_SECCOMP_FILTER")


def _seccomp_notify() -> Feature:
    def attempt() -> None:
        syscalls.prctl(c.PR_SET_NO_NEW_PRIVS, 1)
        syscalls.seccomp_listen(seccomp.template_filter())

    error = _in_child(attempt)
    return Feature("seccomp_notify", not error, error or "available", "Linux 5.19 or newer")


def _user_namespaces() -> Feature:
    error = _in_child(lambda: syscalls.unshare(c.CLONE_NEWUSER))
    remedy = "sysctl user.max_user_namespaces=65536"
    if error and os.geteuid() != 0:
        return Feature("user_namespaces", None, f"not for this user ({error}); run as root to find out", remedy)
    return Feature("user_namespaces", not error, error or "available", remedy)


def _apparmor(path: Path = Path("/proc/sys/kernel/apparmor_restrict_unprivileged_userns")) -> Feature:
    restricted = path.exists() and path.read_text().strip() == "1"
    found = "user namespaces of the unprivileged are restricted" if restricted else "no restriction of user namespaces"
    # The launcher is root, but an instance's own user namespace is made by a process that is not.
    remedy = "sysctl kernel.apparmor_restrict_unprivileged_userns=0, until packaging brings an AppArmor profile"
    return Feature("apparmor", not restricted, found, remedy)


def _cgroups() -> Feature:
    remedy = "mount the memory, pids and cpu controllers: boot with systemd, or mount a cgroup2"
    try:
        driver = cgroup.detect(prepare=False)
    except (IsolationUnavailableError, OSError) as error:
        return Feature("cgroups", False, str(error), remedy)
    return Feature("cgroups", True, f"driver {driver.name}", remedy)


def _pidfd() -> Feature:
    def attempt() -> None:
        descriptor = os.pidfd_open(os.getpid())
        signal.pidfd_send_signal(descriptor, signal.SIGCONT)

    error = _in_child(attempt)
    return Feature("pidfd", not error, error or "available", "Linux 5.3 or newer")


def _proc_subset() -> Feature:
    if os.geteuid() != 0:
        return Feature("proc_subset_pid", None, "run as root to find out", "")

    def attempt() -> None:
        syscalls.unshare(c.CLONE_NEWNS)
        syscalls.mount("", "/", None, c.MS_REC | c.MS_PRIVATE)
        syscalls.mount("proc", "/proc", "proc", c.MS_NOSUID | c.MS_NODEV | c.MS_NOEXEC, "subset=pid")

    error = _in_child(attempt)
    return Feature("proc_subset_pid", not error, error or "available", "Linux 5.8 or newer")


def _memfd_noexec(path: Path = Path("/proc/sys/vm/memfd_noexec")) -> Feature:
    there = path.exists()
    found = "available" if there else "no sysctl vm.memfd_noexec"
    remedy = "Linux 6.3 or newer; or take memfd_noexec out of `requires` in the tier's profile"
    return Feature("memfd_noexec", there, found, remedy)


def _landlock() -> Feature:
    libc = ctypes.CDLL(None, use_errno=True)
    version = libc.syscall(_SYS_LANDLOCK_CREATE_RULESET, None, ctypes.c_size_t(0), _LANDLOCK_VERSION)
    found = f"ABI {version}" if version > 0 else "not there"
    return Feature("landlock", version > 0, found, "boot with lsm=landlock,…; no tier of this version uses it yet")


def _uids() -> Feature:
    taken = uids.conflicts_here()
    found = "; ".join(taken) or f"{uids.FIRST} to {uids.LAST} are free"
    return Feature("uids", not taken, found, "give those users and subordinate ids other numbers")


def _journal() -> Feature:
    there = Path("/run/systemd/journal/socket").exists()
    return Feature("journald", there, "there" if there else "no socket", "without it records are in the ledger only")


_FACTS: Final[tuple[Callable[[], Feature], ...]] = (
    _architecture,
    _kernel,
    _root,
    _seccomp,
    _seccomp_notify,
    _user_namespaces,
    _apparmor,
    _cgroups,
    _pidfd,
    _proc_subset,
    _memfd_noexec,
    _uids,
    _landlock,
    _journal,
)


def _in_child(attempt: Callable[[], object]) -> str:
    """Why an attempt fails in a process of its own; empty when it works."""
    reader, writer = os.pipe2(os.O_CLOEXEC)
    pid = os.fork()
    if pid == 0:
        try:
            attempt()
            os.write(writer, _WORKED)
        except BaseException as error:  # noqa: BLE001 - whatever it is, it did not work
            told = (error.strerror if isinstance(error, OSError) else "") or repr(error)
            os.write(writer, told.encode(errors="replace")[:1000])
        finally:
            os._exit(0)
    os.close(writer)
    with contextlib.ExitStack() as stack:
        stack.callback(os.waitpid, pid, 0)
        stack.callback(os.close, reader)
        if not select.select([reader], [], [], 5)[0]:
            os.kill(pid, signal.SIGKILL)
            return "no answer within 5 s"
        answer = os.read(reader, 1000)
        return "" if answer == _WORKED else answer.decode(errors="replace") or "it died"
