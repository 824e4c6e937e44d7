"""A template: the tiny init that is pid 1 of its own pid namespace, and under it the zygote.

Started by the launcher, one per tier. Init dies with the launcher (PDEATHSIG), everything below dies with init. From
the user namespace on neither has a capability in the host's; the zygote keeps what it needs in its own.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn, Protocol

from plugind.errors import IsolationUnavailableError
from plugind.linux import constants as c
from plugind.linux import syscalls
from plugind.sandbox import initprogram, rootfs

START_TIMEOUT_S = 20.0
MEMFD_NOEXEC = "proc/sys/vm/memfd_noexec"
"""Since Linux 6.3."""
_NAMESPACES = c.CLONE_NEWUSER | c.CLONE_NEWNS | c.CLONE_NEWIPC | c.CLONE_NEWUTS | c.CLONE_NEWNET | c.CLONE_NEWCGROUP
_ATTACHED, _UNSHARED, _MAPPED = b"in its groups", b"unshared", b"mapped"
_ZYGOTE = f"import sys; sys.path.insert(0, {rootfs.RUNTIME_DIR!r}); import plugind.sandbox.inside.zygote as z; z.main()"


@dataclass(frozen=True, slots=True)
class TemplateSpec:
    """What a template is made of. uids base..base+count-1 of the host are 0..count-1 inside."""

    tier: int
    uid_base: int
    uid_count: int
    staging: Path
    code: Path
    interpreter: rootfs.Interpreter
    programs: bool
    template_filter: bytes
    instance_filter: bytes
    memfd_noexec: bool
    """Whether the kernel can keep memfds from being executed; without, the filter allows none."""


@dataclass(slots=True)
class Template:
    """A running template. `sock` leads to the zygote; `init_pid` is init's pid in the host."""

    tier: int
    init_pid: int
    sock: socket.socket

    def kill(self) -> None:
        """End init, and with it every process below, and reap it."""
        self.sock.close()
        try:
            os.kill(self.init_pid, signal.SIGKILL)  # our own unreaped child: the pid cannot have been reused
        except ProcessLookupError:
            return
        os.waitpid(self.init_pid, 0)


class _Group(Protocol):
    """What a template needs of its cgroup (plugind.linux.cgroup)."""

    def attach(self, pid: int) -> None: ...


def start(spec: TemplateSpec, group: _Group) -> Template:
    """Start a template and wait until its zygote answers. Raises IsolationUnavailableError with the failing step."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    sync, sync_theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    pid = syscalls.clone(c.CLONE_NEWPID | c.CLONE_NEWNS)
    if pid == 0:
        for end in (ours, sync):  # the launcher's: as long as we have them too, we cannot see that it is gone
            end.close()
        _become_init(spec, sync_theirs, theirs)
    theirs.close()
    sync_theirs.close()
    template = Template(spec.tier, pid, ours)
    try:
        with sync:
            _map_users(spec, group, pid, sync)
        _greet(spec, ours)
    except BaseException:
        template.kill()
        raise
    return template


def _map_users(spec: TemplateSpec, group: _Group, pid: int, sync: socket.socket) -> None:
    sync.settimeout(START_TIMEOUT_S)
    group.attach(pid)
    sync.send(_ATTACHED)
    _expect(sync, _UNSHARED, spec.tier)
    # A process that still is root outside unshared the namespace, its parent writes the maps: this order also
    # passes where AppArmor restricts user namespaces of the unprivileged.
    for name, text in (
        ("setgroups", "deny"),
        ("uid_map", f"0 {spec.uid_base} {spec.uid_count}"),
        ("gid_map", f"0 {spec.uid_base} {spec.uid_count}"),
    ):
        Path(f"/proc/{pid}/{name}").write_text(text)
    sync.send(_MAPPED)


def _greet(spec: TemplateSpec, sock: socket.socket) -> None:
    sock.settimeout(START_TIMEOUT_S)
    program = os.memfd_create("seccomp", os.MFD_CLOEXEC)
    try:
        os.write(program, spec.instance_filter)
        socket.send_fds(sock, [b"{}"], [program])
    finally:
        os.close(program)
    _expect(sock, b'{"op": "ready"}', spec.tier)
    sock.settimeout(None)


def _expect(sock: socket.socket, wanted: bytes, tier: int) -> None:
    try:
        answer = sock.recv(4096)
    except OSError as error:
        raise IsolationUnavailableError(f"template of tier {tier}", f"no answer: {error}") from error
    if answer != wanted:
        told = answer.decode(errors="replace") or "it ended"
        raise IsolationUnavailableError(f"template of tier {tier}", told)


def _become_init(spec: TemplateSpec, sync: socket.socket, zygote_end: socket.socket) -> NoReturn:
    """In the clone. Each step works, or the launcher is told and this process ends."""
    try:
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_DFL)
        os.setsid()
        os.setgroups([])
        syscalls.set_name("plugind-init")
        if sync.recv(64) != _ATTACHED:
            raise IsolationUnavailableError("cgroup", "the launcher did not put init into its group")
        _setup(spec, sync)
        _serve(spec, zygote_end)
    except BaseException as error:  # noqa: BLE001 - whatever it is, the launcher is to know
        for sock in (sync, zygote_end):  # it listens to one after the other
            with contextlib.suppress(OSError):  # the launcher is gone, or has no ear for this one any more
                sock.send(f"{type(error).__name__}: {error}".encode()[:1000])
    finally:
        os._exit(1)


def _setup(spec: TemplateSpec, sync: socket.socket) -> None:
    syscalls.mount("", "/", None, c.MS_REC | c.MS_PRIVATE)
    rootfs.build(spec.staging, spec.code, spec.interpreter, programs=spec.programs)
    initprogram.place(spec.staging)
    # A full proc, of this pid namespace only: instances may mount their own (subset=pid) only where one is visible.
    syscalls.mount("proc", str(spec.staging / "proc"), "proc", c.MS_NOSUID | c.MS_NODEV | c.MS_NOEXEC)
    if spec.memfd_noexec:
        (spec.staging / MEMFD_NOEXEC).write_text("2")  # inherited by the pid namespaces below
    rootfs.enter(spec.staging)
    syscalls.unshare(_NAMESPACES)
    sync.send(_UNSHARED)
    if sync.recv(64) != _MAPPED:
        raise IsolationUnavailableError("user_namespace", "the launcher wrote no map")
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)
    # After the last change of credentials, which would clear it. init is not dumpable since then.
    syscalls.prctl(c.PR_SET_PDEATHSIG, signal.SIGKILL)
    syscalls.sethostname("template")


def _serve(spec: TemplateSpec, zygote_end: socket.socket) -> NoReturn:
    """Start the zygote and become what only waits for its end (initprogram.py), powerless, without a descriptor."""
    pid = os.fork()
    if pid == 0:
        _exec_zygote(spec, zygote_end)
    if pid != initprogram.ZYGOTE_PID:
        raise IsolationUnavailableError(
            "init", f"expected the zygote to be process {initprogram.ZYGOTE_PID}, got {pid}"
        )
    # Orphans of the zygote are the kernel's to reap; those of instances end with their pid namespaces.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    syscalls.close_all_but({zygote_end.fileno()})  # which the exec closes; until then it takes what fails
    syscalls.prctl(c.PR_SET_SECUREBITS, c.SECUREBITS_LOCKED)
    syscalls.drop_capabilities()
    syscalls.prctl(c.PR_SET_NO_NEW_PRIVS, 1)
    syscalls.seccomp_load(spec.template_filter)
    os.execve(initprogram.PATH, ["plugind-init"], {})  # noqa: S606


def _exec_zygote(spec: TemplateSpec, zygote_end: socket.socket) -> NoReturn:
    null = os.open("/dev/null", os.O_RDWR)
    end = os.dup(zygote_end.fileno())
    os.dup2(null, 0)
    os.dup2(null, 1)
    # Standard error stays the launcher's: a zygote that cannot start says why in the daemon's log.
    os.dup2(end, 3, inheritable=True)
    syscalls.close_all_but({0, 1, 2, 3})
    syscalls.prctl(c.PR_SET_NO_NEW_PRIVS, 1)
    syscalls.seccomp_load(spec.template_filter)
    arguments = [spec.interpreter.executable, "-I", "-S", "-B", "-c", _ZYGOTE]
    # Symbols are looked up once, here, and not by each instance, where each would be a page written.
    environment = {"LANG": "C.UTF-8", "PYTHONUTF8": "1", "LD_BIND_NOW": "1"}
    os.execve(spec.interpreter.executable, arguments, environment)  # noqa: S606
