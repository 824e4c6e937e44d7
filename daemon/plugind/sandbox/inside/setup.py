"""The steps of the jail, carried out by the instance itself, in the order of the jailspec.

Each step works or raises; nothing is logged and skipped. Until `user_namespace` the process is root of its
template's user namespace and of nothing else; after `capabilities` it is nobody anywhere.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import resource
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from plugind.linux import constants as c
from plugind.linux import landlock, mounts, syscalls
from plugind.sandbox.inside.packages import THREAD_POOLS

_LOCKED_DOWN = c.MS_NOSUID | c.MS_NODEV
_COUNTERS_OF_ALL = ("sockstat", "sockstat6", "protocols", "softnet_stat", "stat")
"""Below /proc/PID/net, but of the whole machine: what siblings and the host do shows in them. A mode stays with the
network namespace, whose root this process is until it has another uid."""
_NAMESPACE_COUNTS = ("cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts")


@dataclass
class Context:
    """What the steps need from the zygote, and what one step leaves for a later one."""

    stdout: int
    stderr: int
    result: int
    input: int
    control: int
    seccomp: bytes
    requests: int = -1
    """Where the inputs of a session come by; -1: it is none."""
    word: int = -1
    """Where an instance that imports ahead says that it has, and later that it is done; -1: it is none. Its `result` is
    the socket by which its one run comes."""
    namespace: int = -1
    """Of the network that it was granted; -1: it has one of its own, with nothing in it."""
    plan: int = -1
    """A mount with the files of a plan that it may read; -1: it may read none."""
    output: int = -1
    """A mount to write to; -1: it may not."""
    listener: int = field(default=-1)
    """Where the filter tells of refused calls: for the launcher, and closed here before plugin code runs."""
    sysctl: int = field(default=-1)
    """O_PATH of the template's /proc/sys/user, taken before its /proc is covered."""


def setup_session(_context: Context) -> None:
    os.setsid()


def setup_network(context: Context) -> None:
    syscalls.setns(context.namespace, c.CLONE_NEWNET)
    os.close(context.namespace)
    context.namespace = -1


def setup_plugin_files(_context: Context, digest: str) -> None:
    syscalls.mount(f"/code/{digest}", "/plugin", None, c.MS_BIND)
    syscalls.mount("", "/plugin", None, c.MS_REMOUNT | c.MS_BIND | c.MS_RDONLY | _LOCKED_DOWN)
    # An empty cover: what other plugins are made of is none of this one's business.
    syscalls.mount("none", "/code", "tmpfs", c.MS_RDONLY | c.MS_NOEXEC | _LOCKED_DOWN, "size=4k,nr_inodes=2,mode=0555")


def setup_scratch(_context: Context, path: str, size_bytes: int, inodes: int, uid: int, noexec: bool) -> None:
    options = f"size={size_bytes},nr_inodes={inodes},mode=0700,uid={uid},gid={uid}"
    syscalls.mount("none", path, "tmpfs", _LOCKED_DOWN | (c.MS_NOEXEC if noexec else 0), options)


def setup_hosts(_context: Context, text: str) -> None:
    # On the sized tmpfs, as root of the template: the plugin can neither write nor find it there.
    descriptor = os.open("/tmp/hosts", os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o444)  # noqa: S108
    with open(descriptor, "w") as stream:
        stream.write(text)
        os.fchmod(descriptor, 0o444)  # whatever the umask is
    syscalls.mount("/tmp/hosts", "/etc/hosts", None, c.MS_BIND)  # noqa: S108
    flags = c.MS_REMOUNT | c.MS_BIND | c.MS_RDONLY | c.MS_NOEXEC | _LOCKED_DOWN
    syscalls.mount("", "/etc/hosts", None, flags)
    os.unlink("/tmp/hosts")  # noqa: S108


def setup_plan_files(context: Context, path: str) -> None:
    # Nothing has to be looked up, mounted or read here: it comes as it is to be.
    mounts.move_mount(context.plan, path)
    os.close(context.plan)
    context.plan = -1


def setup_output_folder(context: Context, path: str) -> None:
    mounts.move_mount(context.output, path)
    os.close(context.output)
    context.output = -1


def setup_proc(context: Context) -> None:
    context.sysctl = os.open("/proc/sys/user", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    syscalls.mount("proc", "/proc", "proc", c.MS_NOEXEC | _LOCKED_DOWN, "subset=pid")
    if os.readlink("/proc/self") != str(os.getpid()) or os.path.exists("/proc/sys"):
        raise OSError(0, "the mounted proc is not this instance's own with subset=pid", "/proc")
    for name in _COUNTERS_OF_ALL:
        with contextlib.suppress(FileNotFoundError):  # this kernel has none
            os.chmod(f"/proc/self/net/{name}", 0)


def setup_hostname(_context: Context, name: str) -> None:
    syscalls.sethostname(name)


def setup_cgroup_namespace(context: Context) -> None:
    # Only now: a cgroup namespace shows as root the group in which it was made.
    if os.read(context.control, 16) != b"go":
        raise OSError(0, "the launcher did not put this instance into its groups")
    syscalls.unshare(c.CLONE_NEWCGROUP)


def setup_descriptors(context: Context) -> None:
    # Away from the low numbers first, so that dup2 below never overwrites one that is still needed.
    # Opened anew: an open file that siblings share has a state that they can signal each other by.
    null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
    last = context.requests if context.requests >= 0 else context.word
    moved = [_move_high(fd) for fd in (null, context.stdout, context.stderr, context.result, last) if fd >= 0]
    context.input, context.control = _move_high(context.input), _move_high(context.control)
    context.sysctl = _move_high(context.sysctl)
    for target, source in enumerate(moved):
        os.dup2(source, target, inheritable=target < 3)
    context.result = 3
    if context.requests >= 0:
        context.requests = 4
    elif context.word >= 0:
        context.word = 4
    syscalls.close_all_but({*range(len(moved)), context.input, context.control, context.sysctl})
    os.chdir("/tmp")  # noqa: S108 - the instance's own tmpfs
    kept = {name: os.environ[name] for name in THREAD_POOLS if name in os.environ}
    os.environ.clear()
    os.environ.update(
        kept,
        HOME="/tmp",  # noqa: S108
        TMPDIR="/tmp",  # noqa: S108
        PATH="/usr/bin:/bin",
        LANG="C.UTF-8",
        PYTHONDONTWRITEBYTECODE="1",
    )


def _move_high(descriptor: int) -> int:
    return fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, 64)


def setup_rlimits(_context: Context, limits: dict[str, int]) -> None:
    for name, value in limits.items():
        # The CPU backstop sends SIGXCPU at the soft limit, which a plugin could ignore, and SIGKILL at the hard one.
        hard = value + 1 if name == "CPU" else value
        # 1 at best; 0 where the launcher was started with that and may not raise it.
        soft = min(value, resource.getrlimit(resource.RLIMIT_CORE)[1] & _LONG_MAX) if name == "CORE" else value
        resource.setrlimit(_RLIMITS[name], (soft, min(soft, hard) if name == "CORE" else hard))


_LONG_MAX = 2**63 - 1  # of RLIM_INFINITY, which Python shows as -1

# Python names no constants for the last three on some builds: bits/resource.h
_RLIMITS = {
    "CPU": resource.RLIMIT_CPU,
    "FSIZE": resource.RLIMIT_FSIZE,
    "CORE": resource.RLIMIT_CORE,
    "NOFILE": resource.RLIMIT_NOFILE,
    "MEMLOCK": resource.RLIMIT_MEMLOCK,
    "SIGPENDING": 11,
    "MSGQUEUE": 12,
    "NICE": 13,
    "RTPRIO": 14,
}


def setup_identity(_context: Context, uid: int) -> None:
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)


def setup_user_namespace(context: Context, outside: int, inside: int) -> None:
    # A process that changed its uid is not dumpable, and then /proc/self/uid_map belongs to root.
    syscalls.prctl(c.PR_SET_DUMPABLE, 1)
    syscalls.unshare(c.CLONE_NEWUSER)
    for name, text in (
        ("setgroups", "deny"),
        ("uid_map", f"{inside} {outside} 1"),
        ("gid_map", f"{inside} {outside} 1"),
    ):
        _write(f"/proc/self/{name}", text)
    for kind in _NAMESPACE_COUNTS:
        _write(f"max_{kind}_namespaces", "0", context.sysctl)
    os.close(context.sysctl)


def _write(path: str, text: str, folder: int | None = None) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC, dir_fd=folder)
    try:
        os.write(descriptor, text.encode())
    finally:
        os.close(descriptor)


def setup_capabilities(_context: Context) -> None:
    # After the user namespace, whose creation resets securebits.
    syscalls.prctl(c.PR_SET_SECUREBITS, c.SECUREBITS_LOCKED)
    syscalls.drop_capabilities()


def setup_no_new_privileges(_context: Context) -> None:
    syscalls.prctl(c.PR_SET_NO_NEW_PRIVS, 1)
    syscalls.prctl(c.PR_SET_DUMPABLE, 0)
    os.umask(0o077)


def setup_landlock(_context: Context, abi: int, rules: dict[str, list[str]], network: bool) -> None:
    landlock.restrict(abi, rules, network=network)


def setup_seccomp(context: Context) -> None:
    context.listener = syscalls.seccomp_listen(context.seccomp)


_STEPS: dict[str, Callable[..., None]] = {
    "session": setup_session,
    "network": setup_network,
    "plugin_files": setup_plugin_files,
    "scratch": setup_scratch,
    "hosts": setup_hosts,
    "plan_files": setup_plan_files,
    "output_folder": setup_output_folder,
    "proc": setup_proc,
    "hostname": setup_hostname,
    "cgroup_namespace": setup_cgroup_namespace,
    "descriptors": setup_descriptors,
    "rlimits": setup_rlimits,
    "identity": setup_identity,
    "user_namespace": setup_user_namespace,
    "capabilities": setup_capabilities,
    "no_new_privileges": setup_no_new_privileges,
    "landlock": setup_landlock,
    "seccomp": setup_seccomp,
}


class StepError(Exception):
    """A step failed; the first argument names it."""


def carry_out(context: Context, steps: list[tuple[str, dict[str, Any]]]) -> None:
    """All steps in order. Raises StepError with the step's name and the reason."""
    for name, arguments in steps:
        try:
            _STEPS[name](context, **arguments)
        except Exception as error:  # whatever it is, nothing may run in half a jail
            raise StepError(name, f"{type(error).__name__}: {error}") from error
