"""Attempts that a jail answers with an error, so that the plugin lives on and can make the next one.

Each is a function that returns what it achieved as text, an empty text for nothing, or raises OSError.
"""

from __future__ import annotations

import array
import ctypes
import os
import platform
import resource
import signal
import socket
import stat
import struct
import sys
import threading
from collections.abc import Callable

TIOCSTI = 0x5412
TIOCLINUX = 0x541C
IN_CHILD_EXIT = 42
# The smallest programs there are: exit(42).
_EXIT_42 = {
    "x86_64": (62, bytes.fromhex("bf2a000000 b83c000000 0f05")),
    "aarch64": (183, bytes.fromhex("400580d2 a80b80d2 010000d4")),
}


def overwrite_interpreter() -> str:
    """CVE-2019-5736: /proc/self/exe is the program that everybody else runs too."""
    with open("/proc/self/exe", "r+b"):
        return "opened for writing"


def write_outside_scratch() -> str:
    """A file anywhere but in /tmp and /dev/shm."""
    folders = [
        "/",
        "/etc",
        "/usr",
        "/usr/lib",
        "/usr/bin",
        "/bin",
        "/dev",
        "/run",
        "/var/tmp",
        "/proc",
        "/sys",
        "/code",
    ]
    folders += [os.path.dirname(os.path.abspath(__file__)), sys.base_prefix, os.path.dirname(os.__file__)]
    written = []
    for folder in folders:
        path = os.path.join(folder, "plugin-was-here")
        try:
            os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o644))
        except OSError:
            continue
        os.unlink(path)
        written.append(folder)
    return ", ".join(written)


def change_own_code() -> str:
    """The files of this plugin, which the next run will execute."""
    with open(__file__, "r+b"):
        return "opened for writing"


def kernel_settings() -> str:
    """Files through which root controls the kernel."""
    paths = ("/proc/sys/kernel/core_pattern", "/proc/sysrq-trigger", "/proc/self/uid_map", "/sys/kernel/uevent_helper")
    opened = []
    for path in paths:
        try:
            os.close(os.open(path, os.O_WRONLY))
        except OSError:
            continue
        opened.append(path)
    return ", ".join(opened)


def oom_protection() -> str:
    """Make the kernel kill everybody else first."""
    with open("/proc/self/oom_score_adj", "w") as file:
        file.write("-1000")
    return "protected"


def nested_cgroup() -> str:
    """A control group of one's own has no limits."""
    for root in ("/sys/fs/cgroup", "/sys/fs/cgroup/unified", "/sys/fs/cgroup/memory", "/sys/fs/cgroup/pids"):
        if os.path.isdir(root):
            os.mkdir(f"{root}/plugin-was-here")
            return root
    raise FileNotFoundError(2, "no control groups to be seen")


def tiocsti() -> str:
    """CVE-2017-5226: put keystrokes into the terminal of whoever started this."""
    return _ioctls(TIOCSTI)


def tiocsti_high_bits() -> str:
    """CVE-2019-10063: the kernel looks at 32 bits of the request, a filter may look at 64."""
    return _ioctls(TIOCSTI | 1 << 32)


def tioclinux() -> str:
    """CVE-2023-28100: the same through the clipboard of a virtual console."""
    return _ioctls(TIOCLINUX)


def _ioctls(request: int) -> str:
    libc = ctypes.CDLL(None, use_errno=True)
    key = ctypes.create_string_buffer(b"\n")
    worked = [fd for fd in range(3) if libc.ioctl(fd, ctypes.c_ulong(request), key) == 0]
    if not worked:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return f"descriptors {worked}"


def become_root() -> str:
    """uid 0, of whatever namespace."""
    os.setuid(0)
    return f"uid {os.getuid()}"


def become_somebody_else() -> str:
    """The uid next door may be another plugin's."""
    os.setuid(os.getuid() + 1)
    return f"uid {os.getuid()}"


def drop_groups() -> str:
    """Fewer groups can mean more rights: mode 0604."""
    os.setgroups([])
    return "changed"


def capabilities() -> str:
    """What the kernel says about this process: any capability, no_new_privs off, no filter."""
    with open("/proc/self/status") as file:
        status = dict(line.rstrip("\n").split(":\t", 1) for line in file if ":\t" in line)
    found = [
        f"{name} {status[name]}" for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb") if int(status[name], 16)
    ]
    if status["NoNewPrivs"].strip() != "1":
        found.append("privileges can be gained by exec")
    if status["Seccomp"].strip() != "2":
        found.append("no system call filter")
    return ", ".join(found)


def device_node() -> str:
    """A disk is a disk, whatever its node is called."""
    os.mknod("/tmp/disk", stat.S_IFBLK | 0o600, os.makedev(8, 0))
    os.unlink("/tmp/disk")
    return "made"


def internet_socket() -> str:
    """Any connection to anywhere."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM):
        return "socket opened"


def raw_socket() -> str:
    """Packets of one's own making."""
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW):
        return "socket opened"


def netlink_socket() -> str:
    """The kernel's own configuration protocol."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW):
        return "socket opened"


def abstract_socket() -> str:
    """CVE-2020-15257: abstract unix sockets have no file and no permissions."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as unix:
        try:
            unix.connect("\0/containerd-shim/s.sock")
        except ConnectionRefusedError:
            return "socket opened"
        return "connected"


def vsock_socket() -> str:
    """The way from a virtual machine to its host."""
    with socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM):
        return "socket opened"


def realtime_priority() -> str:
    """Whoever has it runs, and nobody else."""
    os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(50))
    return "real-time"


def negative_nice() -> str:
    """Before everybody else in the queue."""
    os.setpriority(os.PRIO_PROCESS, 0, -20)
    return "nice -20"


def raise_limits() -> str:
    """Core dumps can be fed to a program of the host; open files are kernel memory."""
    raised = []
    for name in ("RLIMIT_CORE", "RLIMIT_NOFILE", "RLIMIT_MSGQUEUE", "RLIMIT_RTPRIO"):
        kind = getattr(resource, name)
        try:
            resource.setrlimit(kind, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        except (OSError, ValueError):
            continue
        raised.append(name)
    return ", ".join(raised)


def program_in_memory() -> str:
    """Native code from an anonymous file: never on a disk, never in a bundle."""
    descriptor = os.memfd_create("program")
    with open(descriptor, "wb", closefd=False) as file:
        file.write(_tiny_program())
    return _execute(lambda: os.execve(descriptor, ["program"], {}))


def program_in_scratch() -> str:
    """Native code from the scratch folder. The host's programs would do, but the jail may not show any."""
    path = "/tmp/program"
    with open(path, "wb") as file:
        file.write(_tiny_program())
    os.chmod(path, 0o700)
    try:
        return _execute(lambda: os.execve(path, ["program"], {}))
    finally:
        os.unlink(path)


def _tiny_program() -> bytes:
    machine, code = _EXIT_42[platform.machine()]
    size = 64 + 56 + len(code)
    ident = b"\x7fELF\x02\x01\x01" + bytes(9)
    header = struct.pack("<16sHHIQQQIHHHHHH", ident, 2, machine, 1, 0x400078, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    segment = struct.pack("<IIQQQQQQ", 1, 5, 0, 0x400000, 0x400000, size, size, 0x1000)
    return header + segment + code


def _execute(execute: Callable[[], None]) -> str:
    """In a child, because a successful execution replaces the process."""
    child = os.fork()
    if child == 0:
        try:
            execute()
        except OSError as error:
            os._exit(min(error.errno or 1, 40))
        os._exit(1)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code == IN_CHILD_EXIT:
        return "executed"
    raise OSError(code, os.strerror(code) if code > 0 else f"killed by {signal.Signals(-code).name}")


def signal_others() -> str:
    """Anybody but ourselves."""
    reached = []
    for pid in (*range(1, 200), os.getppid()):
        if pid in {0, os.getpid()}:
            continue
        try:
            os.kill(pid, 0)
        except OSError:
            continue
        reached.append(str(pid))
    return ", ".join(reached)


def shared_memory_of_others() -> str:
    """System V shared memory has no path, only a number that can be guessed."""
    libc = ctypes.CDLL(None, use_errno=True)
    found = [number for number in range(64) if libc.shmctl(number, 13, ctypes.create_string_buffer(256)) >= 0]
    return ", ".join(map(str, found))


def pass_descriptors() -> str:
    """A result on a socket could be flooded with descriptors: is it one?"""
    for descriptor in range(3, 8):
        try:
            end = socket.socket(fileno=os.dup(descriptor))
        except OSError:
            continue
        with end:
            end.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [0]))])
            return f"descriptor {descriptor} takes descriptors"
    return ""


def terminal() -> str:
    """The terminal of whoever started the daemon."""
    os.close(os.open("/dev/tty", os.O_RDWR))
    return "opened"


def threads_still_work() -> str:
    """No attack: what clone3's refusal must not break. Returns an empty text when all is well."""
    seen: list[int] = []
    threads = [threading.Thread(target=seen.append, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return "" if sorted(seen) == [0, 1, 2] else "threads are broken"


ATTEMPTS: dict[str, Callable[[], str]] = {
    function.__name__: function
    for function in (
        overwrite_interpreter,
        write_outside_scratch,
        change_own_code,
        kernel_settings,
        oom_protection,
        nested_cgroup,
        tiocsti,
        tiocsti_high_bits,
        tioclinux,
        become_root,
        become_somebody_else,
        drop_groups,
        capabilities,
        device_node,
        internet_socket,
        raw_socket,
        netlink_socket,
        abstract_socket,
        vsock_socket,
        realtime_priority,
        negative_nice,
        raise_limits,
        program_in_memory,
        program_in_scratch,
        signal_others,
        shared_memory_of_others,
        pass_descriptors,
        terminal,
        threads_still_work,
    )
}
