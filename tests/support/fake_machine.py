"""Machines that are not here: the files that facts are read from, below a folder, and attempts that end as a test says.

A Fake is what somebody would tell of a machine; `build` makes of it what plugind looks at.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

from plugind.sandbox import uids
from plugind.sandbox.machine import Attempts, Machine
from plugind.sandbox.rootfs import Interpreter

ALL_CAPABILITIES = "000001ffffffffff"
DOCKER_CAPABILITIES = "00000000a80425fb"
REFUSED = "Operation not permitted"
ACTIONS = "kill_process kill_thread trap errno user_notif trace log allow"
V1 = ("memory", "pids", "cpu", "cpuacct")


@dataclass(frozen=True)
class Fake:
    """A machine with a kernel of today that has all there is, unless something is said."""

    release: str = "6.18.5"
    architecture: str = "x86_64"
    uid: int = 0
    capabilities: str = ALL_CAPABILITIES
    uid_map: str = "0 0 4294967295"
    taken_uids: tuple[str, ...] = ()
    actions: str = ACTIONS
    notify: str = ""
    libseccomp: tuple[int, int, int] | None = (2, 5, 5)
    most_user_namespaces: str | None = "62835"
    user_namespace: str = ""
    restricted: str | None = None
    label: str = "unconfined"
    profile_installed: bool = False
    pidfd: str = ""
    proc_subset_pid: str = ""
    memfd_noexec: bool = True
    landlock: int = 7
    journald: bool = True
    interpreter_mode: int = 0o755
    hierarchy: str = "unified"
    """unified, hybrid, v1 or none."""
    controllers: str = "cpuset cpu io memory pids"
    session: str | None = None
    """Controllers of the group that this process is in, where it is not the uppermost."""
    lacks: frozenset[str] = field(default_factory=frozenset)
    """Files that groups would have."""
    read_only: bool = False
    swap: bool = False
    memory_mib: int = 16384
    pid_max: int = 4194304


MODERN = Fake()
DEBIAN_12 = replace(MODERN, release="6.1.0-30-amd64", memfd_noexec=False, landlock=2, libseccomp=(2, 5, 4))
DEBIAN_12_HYBRID = replace(DEBIAN_12, hierarchy="hybrid")
UBUNTU_24_04 = replace(MODERN, release="6.8.0-50-generic", restricted="1", landlock=4)
UBUNTU_24_04_INSTALLED = replace(UBUNTU_24_04, profile_installed=True)
UBUNTU_24_04_SERVICE = replace(UBUNTU_24_04_INSTALLED, label="plugind-launcher (unconfined)")
NO_LANDLOCK = replace(MODERN, landlock=0)
NO_USER_NOTIF = replace(
    MODERN, release="4.19.0-27-amd64", notify="Invalid argument", actions=ACTIONS.replace(" user_notif", ""),
    memfd_noexec=False, landlock=0, lacks=frozenset({"cgroup.kill", "memory.peak"}), pidfd="Function not implemented",
    proc_subset_pid="Invalid argument",
)  # fmt: skip
KERNEL_5_13 = replace(
    MODERN, release="5.13.0-52-generic", notify="Invalid argument", memfd_noexec=False, landlock=1,
    lacks=frozenset({"cgroup.kill", "memory.peak"}),
)  # fmt: skip
NO_MEMORY_PEAK = replace(
    MODERN, release="5.15.0-100-generic", notify="Invalid argument", memfd_noexec=False, landlock=1,
    lacks=frozenset({"memory.peak"}),
)  # fmt: skip
NO_PIDS = replace(MODERN, controllers="cpu memory io")
NO_GROUPS = replace(MODERN, hierarchy="none")
SESSION = replace(MODERN, session="memory pids")
NO_USER_NAMESPACES = replace(MODERN, most_user_namespaces="0", user_namespace="No space left on device")
CONTAINER = replace(
    MODERN, capabilities=DOCKER_CAPABILITIES, user_namespace=REFUSED, proc_subset_pid=REFUSED, read_only=True,
    journald=False,
)  # fmt: skip
ROOTLESS = replace(CONTAINER, capabilities=ALL_CAPABILITIES, uid_map="0 1000 1\n1 100000 65536")
WSL = replace(
    MODERN, release="5.15.153.1-microsoft-standard-WSL2", notify="Invalid argument", memfd_noexec=False,
    landlock=0, hierarchy="hybrid", journald=False, lacks=frozenset({"memory.peak"}),
)  # fmt: skip
AARCH64 = replace(MODERN, architecture="aarch64")
RISCV = replace(MODERN, architecture="riscv64", notify="plugind runs on x86_64 and aarch64, this is riscv64")
SOMEBODY = replace(MODERN, uid=1000, capabilities="0" * 16)


def build(fake: Fake, top: Path) -> Machine:
    """The machine, with its files below `top`."""
    put(top, "proc/self/status", f"Name:\tpython3\nCapEff:\t{fake.capabilities}\n")
    put(top, "proc/self/uid_map", fake.uid_map + "\n")
    put(top, "proc/self/attr/current", fake.label + "\n")
    put(top, "proc/sys/kernel/seccomp/actions_avail", fake.actions + "\n")
    put(top, "proc/sys/user/max_user_namespaces", fake.most_user_namespaces)
    put(top, "proc/sys/kernel/apparmor_restrict_unprivileged_userns", fake.restricted)
    put(top, "proc/sys/vm/memfd_noexec", "0\n" if fake.memfd_noexec else None)
    put(top, "proc/sys/kernel/pid_max", f"{fake.pid_max}\n")
    put(top, "proc/meminfo", f"MemTotal: {fake.memory_mib * 1024:>12} kB\nMemFree: 1 kB\n")
    put(top, "proc/swaps", "Filename Type Size Used Priority\n" + "/swapfile file 2097148 0 -2\n" * fake.swap)
    put(top, "etc/apparmor.d/plugind-launcher", "profile" if fake.profile_installed else None)
    put(top, "run/systemd/journal/socket", "" if fake.journald else None)
    _groups(fake, top)
    _interpreter(fake, top)
    return Machine(
        architecture=fake.architecture,
        release=fake.release,
        uid=fake.uid,
        top=top,
        interpreter=lambda: Interpreter("/opt/python/bin/python3", "/opt/python"),
        standard_library="/opt/python/lib/python3.11",
        libseccomp=lambda: fake.libseccomp,
        landlock_abi=lambda: fake.landlock,
        taken_uids=lambda: list(fake.taken_uids),
        attempts=Attempts(
            user_namespace=lambda: fake.user_namespace,
            pidfd=lambda: fake.pidfd,
            proc_subset_pid=lambda: fake.proc_subset_pid,
            seccomp_notify=lambda: fake.notify,
        ),
    )


def put(top: Path, name: str, text: str | None) -> None:
    """A file; with None nothing."""
    if text is None:
        return
    path = top / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def _groups(fake: Fake, top: Path) -> None:
    mounted = {"unified": ("unified",), "hybrid": (*V1, "unified"), "v1": V1, "none": ()}[fake.hierarchy]
    own = "" if fake.session is None else "/user.slice/session-1.scope"
    options = "ro" if fake.read_only else "rw"
    mounts = [f"proc {top}/proc proc rw 0 0"]
    for name in mounted:
        kind = "cgroup2" if name == "unified" else "cgroup"
        mounts.append(f"cgroup {top}/groups/{name} {kind} {options},nosuid,{name} 0 0")
        put(top, f"groups/{name}/cgroup.procs", "")
    put(top, "proc/self/mounts", "\n".join(mounts) + "\n")
    put(top, "proc/self/cgroup", "".join(f"3:{name}:/\n" for name in V1) + f"0::{own or '/'}\n")
    if "unified" in mounted:
        controllers = fake.controllers if fake.hierarchy == "unified" else ""
        put(top, "groups/unified/cgroup.controllers", controllers + "\n")
        below = {"cgroup.procs", "cgroup.kill"}
        if "memory" in controllers:
            below |= {"memory.max", "memory.peak", "memory.swap.max"}
        for name in sorted(below - fake.lacks):
            put(top, f"groups/unified/user.slice/{name}", "max\n")
        if own:
            put(top, f"groups/unified{own}/cgroup.controllers", f"{fake.session}\n")
    if "memory" in mounted and "memory.memsw.limit_in_bytes" not in fake.lacks:
        put(top, "groups/memory/memory.memsw.limit_in_bytes", "9223372036854771712\n")


def _interpreter(fake: Fake, top: Path) -> None:
    for name in ("bin/python3", "lib/python3.11/os.py", "lib/python3.11/encodings/__init__.py"):
        put(top, f"opt/python/{name}", "")
        (top / "opt/python" / name).chmod(fake.interpreter_mode)


TAKEN = (f"mallory has the subordinate ids {uids.FIRST} to {uids.FIRST + 65535}",)
