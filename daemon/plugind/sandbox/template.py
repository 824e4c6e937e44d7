"""A template: the tiny init that is pid 1 of its own pid namespace, and under it the zygote.

Started by the launcher, one per tier, and one more for each environment that is in use there. Init dies with the
launcher (PDEATHSIG), everything below dies with init. From the user namespace on neither has a capability in the
host's; the zygote keeps what it needs in its own.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import time
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn, Protocol

from plugind.environments import tree
from plugind.errors import IsolationUnavailableError
from plugind.linux import constants as c
from plugind.linux import syscalls
from plugind.sandbox import channel, importing, initprogram, rootfs
from plugind.sandbox.inside.packages import PLACE, THREAD_POOLS
from plugind.sandbox.words import parse, short

START_TIMEOUT_S = 20.0
IMPORT_TIMEOUT_S = 60.0
"""With an environment, whose files are read once more and whose packages are imported."""
_MESSAGE_BYTES = 64 * 1024
MEMFD_NOEXEC = "proc/sys/vm/memfd_noexec"
"""Since Linux 6.3."""
_NAMESPACES = c.CLONE_NEWUSER | c.CLONE_NEWNS | c.CLONE_NEWIPC | c.CLONE_NEWUTS | c.CLONE_NEWNET | c.CLONE_NEWCGROUP
_ATTACHED, _UNSHARED, _MAPPED = b"in its groups", b"unshared", b"mapped"
_ZYGOTE = f"import sys; sys.path.insert(0, {rootfs.RUNTIME_DIR!r}); import plugind.sandbox.inside.zygote as z; z.main()"


@dataclass(frozen=True, slots=True)
class Kind:
    """What a template is for."""

    tier: int
    environment: str = ""
    """Digest of the environment's files; empty: the standard library alone."""

    def __str__(self) -> str:
        return f"tier {self.tier}" + (f", environment {self.environment[:12]}" if self.environment else "")


@dataclass(frozen=True, slots=True)
class Packages:
    """An environment: its files, what these have to be, and what of them is imported ahead."""

    digest: str
    files: Path
    imports: tuple[str, ...]


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
    network_filter: bytes
    """Of instances that were granted network."""
    memfd_noexec: bool
    """Whether the kernel can keep memfds from being executed; without, the filter allows none."""
    packages: Packages | None = None

    @property
    def kind(self) -> Kind:
        """What it is for."""
        return Kind(self.tier, self.packages.digest if self.packages else "")


@dataclass(slots=True)
class Template:
    """A running template. `sock` leads to the zygote; `init_pid` is init's pid in the host."""

    kind: Kind
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

    def tasks(self) -> int: ...


class Starting:
    """A template on its way. It says something on `sock`; then `go_on` takes the next step."""

    def __init__(self, spec: TemplateSpec, group: _Group) -> None:
        """Begin. Raises OSError."""
        self._spec = spec
        self._group = group
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.sock, sync_theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        pid = syscalls.clone(c.CLONE_NEWPID | c.CLONE_NEWNS)
        if pid == 0:
            for end in (ours, self.sock):  # the launcher's: as long as we have them too, we cannot see that it is gone
                end.close()
            _become_init(spec, sync_theirs, theirs)
        theirs.close()
        sync_theirs.close()
        self.template = Template(spec.kind, pid, ours)
        self.imported: importing.Imported | None = None
        """What its zygote is, and what it could not import: of one with an environment, when it is ready."""
        self._patience_s = IMPORT_TIMEOUT_S if spec.packages else START_TIMEOUT_S
        self._began_ns = time.monotonic_ns()
        self.deadline_ns = self._began_ns + int(self._patience_s * 10**9)
        for each in (self.sock, ours):
            each.settimeout(self._patience_s)
        try:
            group.attach(pid)
            self.sock.send(_ATTACHED)
        except OSError:
            self.abandon()
            raise

    def go_on(self) -> bool:
        """Take one step; whether the template is ready. Waits for its word, if that is not there.

        Raises IsolationUnavailableError with the failing step, OSError: then nothing of it is left.
        """
        try:
            if self.sock is not self.template.sock:
                self._map_users()
                return False
            self._hear_zygote()
        except BaseException:
            self.abandon()
            raise
        self.sock.settimeout(None)
        return True

    def abandon(self) -> None:
        """End it. No effect on what was abandoned before."""
        if self.sock is not self.template.sock:
            self.sock.close()
        if self.template.sock.fileno() >= 0:
            self.template.kill()

    def _map_users(self) -> None:
        spec, pid = self._spec, self.template.init_pid
        self._expect(_UNSHARED)
        # A process that still is root outside unshared the namespace, its parent writes the maps: this order also
        # passes where AppArmor restricts user namespaces of the unprivileged.
        for name, text in (
            ("setgroups", "deny"),
            ("uid_map", f"0 {spec.uid_base} {spec.uid_count}"),
            ("gid_map", f"0 {spec.uid_base} {spec.uid_count}"),
        ):
            Path(f"/proc/{pid}/{name}").write_text(text)
        self.sock.send(_MAPPED)
        self.sock.close()
        self.sock = self.template.sock
        self._greet()

    def _greet(self) -> None:
        imports = self._spec.packages.imports if self._spec.packages else ()
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        with contextlib.ExitStack() as stack:
            filters = []
            for program in (self._spec.instance_filter, self._spec.network_filter):
                filters.append(os.memfd_create("seccomp", os.MFD_CLOEXEC))
                stack.callback(os.close, filters[-1])
                os.write(filters[-1], program)
            socket.send_fds(self.sock, [json.dumps({"imports": imports}).encode()], filters)

    def _hear_zygote(self) -> None:
        data, pid = self._receive()
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 0)
        said = parse(data)
        if said.get("op") != "ready":
            raise self._failed(data)
        wall_ms = (time.monotonic_ns() - self._began_ns) // 10**6
        try:
            seen = importing.look(pid, self._group.tasks(), said.get("failed"), wall_ms)
        except (OSError, ValueError) as error:
            raise IsolationUnavailableError(f"template of {self._spec.kind}", str(error)) from error
        self.imported = seen if self._spec.packages else None

    def _expect(self, wanted: bytes) -> None:
        data, _ = self._receive()
        if data != wanted:
            raise self._failed(data)

    def _receive(self) -> tuple[bytes, int]:
        """A message and the pid, in our namespace, of who sent it: 0 before that is asked for."""
        try:
            data, control, _, _ = self.sock.recvmsg(_MESSAGE_BYTES, socket.CMSG_SPACE(channel.UCRED.size))
        except OSError as error:
            raise IsolationUnavailableError(f"template of {self._spec.kind}", f"no answer: {error}") from error
        pids = [channel.UCRED.unpack(content)[0] for _, kind, content in control if kind == socket.SCM_CREDENTIALS]
        return data, pids[0] if pids else 0

    def _failed(self, data: bytes) -> IsolationUnavailableError:
        told = short(data.decode(errors="replace")) or "it ended"
        return IsolationUnavailableError(f"template of {self._spec.kind}", told)


def start(spec: TemplateSpec, group: _Group) -> Template:
    """Start a template and wait until its zygote answers.

    Raises IsolationUnavailableError with the failing step, OSError.
    """
    starting = Starting(spec, group)
    while not starting.go_on():
        pass
    return starting.template


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
    packages = spec.packages.files if spec.packages else None
    rootfs.build(spec.staging, spec.code, spec.interpreter, programs=spec.programs, packages=packages)
    initprogram.place(spec.staging)
    if spec.packages:
        _verify(spec.packages, spec.staging / PLACE.lstrip("/"))
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


def _verify(packages: Packages, shown: Path) -> None:
    # Still root, and what is read here is what will be imported: only root can write it, and the mount is read-only.
    found = tree.digest_of(shown)
    if found != packages.digest:
        raise IsolationUnavailableError(
            "environment", f"expected files with the digest {packages.digest}, got {found}: build it again"
        )


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
    if spec.packages:
        # A thread would not survive the clone of an instance, and a pool of them is made by a mere import.
        environment |= {"HOME": "/tmp", "TMPDIR": "/tmp", **dict.fromkeys(THREAD_POOLS, "1")}  # noqa: S108
    os.execve(spec.interpreter.executable, arguments, environment)  # noqa: S606
