"""Each fact about the kernel and the machine, one small function. Those about control groups are in groupfacts.py."""

from __future__ import annotations

import errno
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Final

from plugind.errors import IsolationUnavailableError
from plugind.sandbox import uids as ranges
from plugind.sandbox.machine import Machine

PROFILE: Final = "plugind-launcher"
"""The AppArmor profile of the launcher and of what it starts (packaging/apparmor)."""
_CAPABILITIES: Final = {
    "CAP_CHOWN": 0, "CAP_DAC_OVERRIDE": 1, "CAP_KILL": 5, "CAP_SETGID": 6, "CAP_SETUID": 7, "CAP_SETPCAP": 8,
    "CAP_SYS_ADMIN": 21,
}  # fmt: skip
"""What the launcher uses, by the bit's number. Source: linux/capability.h."""
_ACTIONS: Final = ("kill_process", "errno", "user_notif", "allow")
_LANDLOCK: Final = ("files", "refer", "truncate", "tcp", "ioctl_dev", "scopes", "audit")
"""What each version of Landlock's interface added, from 1 on. Source: landlock(7)."""
_KNOWN: Final = ("x86_64", "aarch64")
_ANOTHER_MACHINE: Final = f"a machine with {' or '.join(_KNOWN)}"
_ONLY_ROOT: Final = "only root can find out"
_UNFETTERED: Final = "this looks like a container: run plugind in a privileged one, on the host or in a VM"


@dataclass(frozen=True, slots=True)
class Feature:
    """One fact. `ok` is None where it takes root to find out."""

    name: str
    ok: bool | None
    found: str
    remedy: str = ""
    """How to get it, in words."""
    command: str = ""
    """A shell command that gets it, where there is one."""
    instead: str = ""
    """What is done, or lost, without it where no tier needs it."""


def architecture(machine: Machine) -> Feature:
    """System call numbers and filters are known for two."""
    return Feature("architecture", machine.architecture in _KNOWN, machine.architecture, _ANOTHER_MACHINE)


def kernel(machine: Machine) -> Feature:
    """The oldest one that plugind is made for is Debian 12's."""
    wsl = "microsoft" in machine.release.lower()
    return Feature(
        "kernel",
        machine.version >= (6, 1),
        machine.release,
        "Linux 6.1 or newer, as in Debian 12 and Ubuntu 24.04",
        "wsl --update" if wsl else "",
        "what counts is what the other lines say; nothing older than 6.1 is tested",
    )


def root(machine: Machine) -> Feature:
    """The launcher has to be root, with the capabilities that root has outside of containers."""
    if not machine.is_root:
        # The daemon may well have it: nobody who only looks needs it.
        return Feature("root", None, f"this is uid {machine.uid}", "start the daemon with sudo")
    lacking = _capabilities_lacking(machine)
    if lacking:
        return Feature("root", False, f"uid 0 without {', '.join(lacking)}", _UNFETTERED)
    return Feature("root", True, "this is root")


def _capabilities_lacking(machine: Machine) -> list[str]:
    for line in (machine.text("/proc/self/status") or "").splitlines():
        if line.startswith("CapEff:"):
            effective = int(line.split()[1], 16)
            return [name for name, bit in _CAPABILITIES.items() if not effective >> bit & 1]
    return ["/proc/self/status, which tells the capabilities"]


def seccomp(machine: Machine) -> Feature:
    """The actions that the filters use."""
    actions = (machine.text("/proc/sys/kernel/seccomp/actions_avail") or "").split()
    lacking = [action for action in _ACTIONS if action not in actions]
    found = f"without {', '.join(lacking)}" if lacking else f"actions {', '.join(_ACTIONS)}"
    return Feature(
        "seccomp", not lacking, found if actions else "none", "Linux 5.0 or newer with CONFIG_SECCOMP_FILTER"
    )


def seccomp_notify(machine: Machine) -> Feature:
    """Whether another process can really answer for a system call, and no signal interrupts it (WAIT_KILLABLE_RECV)."""
    error = machine.attempts.seccomp_notify()
    remedy = "a container's runtime may listen to system calls itself: run plugind on the host or in a VM"
    if machine.architecture not in _KNOWN:
        remedy = _ANOTHER_MACHINE
    elif machine.version < (5, 19):
        remedy = "Linux 5.19 or newer"
    return Feature("seccomp_notify", not error, error or "a call was answered by another process", remedy)


def libseccomp(machine: Machine) -> Feature:
    """The library that builds the filters; it knows user notifications since 2.5."""
    version = machine.libseccomp()
    found = ".".join(map(str, version)) if version else "not found, or ldconfig does not know it"
    enough = version is not None and version >= (2, 5, 0)
    return Feature("libseccomp", enough, found, "libseccomp 2.5 or newer", "sudo apt-get install libseccomp2")


def user_namespaces(machine: Machine) -> Feature:
    """Every template and every instance has one."""
    most = (machine.text("/proc/sys/user/max_user_namespaces") or "").strip()
    if most == "0":
        command = "echo user.max_user_namespaces=65536 | sudo tee /etc/sysctl.d/60-plugind.conf; sudo sysctl --system"
        return Feature("user_namespaces", False, "user.max_user_namespaces is 0", "allow some", command)
    if not most:
        return Feature("user_namespaces", False, "not in this kernel", "a kernel with CONFIG_USER_NS")
    error = machine.attempts.user_namespace()
    if error and not machine.is_root:
        return Feature("user_namespaces", None, f"not for uid {machine.uid} ({error}); {_ONLY_ROOT}")
    return Feature("user_namespaces", not error, error or "available", _UNFETTERED)


def apparmor(machine: Machine) -> Feature:
    """Ubuntu: a process without CAP_SYS_ADMIN gets a user namespace that is worth something by a profile only.

    The launcher has it, but an instance's own user namespace is made by the instance. decisions/0009.
    """
    text = machine.text("/proc/sys/kernel/apparmor_restrict_unprivileged_userns")
    if text is None or text.strip() == "0":
        return Feature("apparmor", True, "user namespaces are not restricted")
    label = _label(machine)
    if label.split(" ")[0] == PROFILE:  # and not a stack of it with another: that would have to allow it too
        return Feature("apparmor", True, f"user namespaces are restricted, and allowed by the profile {PROFILE}")
    found = f"user namespaces are restricted, and this process is {label}"
    if not machine.path(f"/etc/apparmor.d/{PROFILE}").exists():
        remedy = f"load the profile {PROFILE}, as packaging/install.sh does; then start plugind anew"
        return Feature("apparmor", False, found, remedy, "sudo packaging/apparmor/load.sh")
    remedy = f"the service has the profile; start by hand, and ask doctor, below `aa-exec -p {PROFILE} --`"
    command = f'sudo aa-exec -p {PROFILE} -- "$(command -v plugind)" serve --standalone'
    return Feature("apparmor", False, found, remedy, command)


def _label(machine: Machine) -> str:
    """What AppArmor calls this process, such as `unconfined` or `plugind-launcher (unconfined)`."""
    for name in ("apparmor/current", "current"):  # the second belongs to whichever security module came first
        text = machine.text(f"/proc/self/attr/{name}")
        if text:
            return text.strip("\0\n ")
    return "of unknown confinement"


def pidfd(machine: Machine) -> Feature:
    """Signals that cannot hit another process."""
    error = machine.attempts.pidfd()
    return Feature("pidfd", not error, error or "available", "Linux 5.3 or newer")


def proc_subset_pid(machine: Machine) -> Feature:
    """A proc without anything but processes."""
    if not machine.is_root:
        return Feature("proc_subset_pid", None, _ONLY_ROOT)
    error = machine.attempts.proc_subset_pid()
    remedy = _UNFETTERED if machine.version >= (5, 8) else "Linux 5.8 or newer"
    return Feature("proc_subset_pid", not error, error or "available", remedy)


def memfd_noexec(machine: Machine) -> Feature:
    """Files in memory that nobody can execute."""
    there = machine.text("/proc/sys/vm/memfd_noexec") is not None
    found = "available" if there else "no sysctl vm.memfd_noexec"
    return Feature("memfd_noexec", there, found, "Linux 6.3 or newer", instead="memfd_create is refused")


def uids(machine: Machine) -> Feature:
    """The range of plugind: nobody else's, and there at all."""
    taken = machine.taken_uids()
    if not _mapped(machine):
        found = f"{ranges.FIRST} to {ranges.LAST} do not exist in this user namespace"
        return Feature("uids", False, found, "this is a rootless container: run plugind on the host or in a VM")
    found = "; ".join(taken) or f"{ranges.FIRST} to {ranges.LAST} are free"
    return Feature("uids", not taken, found, "give those users and subordinate ids other numbers")


def _mapped(machine: Machine) -> bool:
    for line in (machine.text("/proc/self/uid_map") or "").splitlines():
        first, _, count = map(int, line.split())
        if first <= ranges.FIRST and first + count > ranges.LAST:
            return True
    return False


def interpreter(machine: Machine) -> Feature:
    """The Python that plugins run in: every uid has to be able to read it."""
    remedy = "a Python that everybody can read, such as the system's: PYTHON=/usr/bin/python3 packaging/setup.sh"
    try:
        found = machine.interpreter()
    except IsolationUnavailableError as error:
        return Feature("interpreter", False, str(error), remedy)
    for path, wanted in _read_by_plugins(found.prefix, found.executable, machine.standard_library):
        try:
            mode = machine.path(path).stat().st_mode
        except OSError as error:
            if error.errno == errno.EACCES and not machine.is_root:  # below a closed home: no hindrance for root
                return Feature("interpreter", None, f"{path}: {_ONLY_ROOT}", remedy)
            return Feature("interpreter", False, f"{path}: {error.strerror}", remedy)
        if mode & wanted != wanted:
            return Feature("interpreter", False, f"{path} has mode {stat.S_IMODE(mode):04o}", remedy)
    return Feature("interpreter", True, found.executable, remedy)


def _read_by_plugins(prefix: str, executable: str, library: str) -> Iterator[tuple[str, int]]:
    """Paths that are bound into a jail as they are, and the mode bits that a stranger needs of each.

    What is above the prefix does not matter: the jail has folders of its own there.
    """
    enter, read = stat.S_IXOTH, stat.S_IROTH
    yield executable, enter | read
    inner = PurePosixPath(library)
    for folder in (inner, *inner.parents):
        if folder.is_relative_to(prefix):
            yield str(folder), enter
    for name in ("os.py", "encodings/__init__.py"):
        yield f"{library}/{name}", read


def landlock(machine: Machine) -> Feature:
    """A second fence around files, beside mounts."""
    version = machine.landlock_abi()
    found = f"ABI {version}: {', '.join(_LANDLOCK[:version])}" if version > 0 else "not there"
    remedy = "Linux 5.13 or newer, started with landlock in lsm="
    return Feature("landlock", version > 0, found, remedy, instead="mounts and uids alone keep files apart")


def journald(machine: Machine) -> Feature:
    """Where the audit's mirror is."""
    there = machine.path("/run/systemd/journal/socket").exists()
    found = "there" if there else "no socket"
    return Feature("journald", there, found, "boot with systemd", instead="records are in the ledger only")


ALL: Final[tuple[Callable[[Machine], Feature], ...]] = (
    architecture,
    kernel,
    root,
    seccomp,
    seccomp_notify,
    libseccomp,
    user_namespaces,
    apparmor,
    pidfd,
    proc_subset_pid,
    memfd_noexec,
    uids,
    interpreter,
    landlock,
    journald,
)
