"""A package of an environment: all this it tries while it is imported, and keeps what came of it."""

import ctypes
import os
import signal
import socket
import time

from told import told

OPEN_BY_HANDLE_AT, INIT_MODULE = {"x86_64": (304, 175), "aarch64": (265, 105)}[os.uname().machine]
libc = ctypes.CDLL(None, use_errno=True)
seen = {"user namespace": os.readlink("/proc/self/ns/user")}


def attempt(what):
    def run(action):
        try:
            seen[what] = f"done: {action()!r:.200}"
        except Exception as error:
            seen[what] = f"refused: {type(error).__name__}: {error}"
        return action

    return run


def check(result):
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


@attempt("read a file of the host")
def _():
    return open(told["canary"]).read()


@attempt("read it through init")
def _():
    return open("/proc/1/root" + told["canary"]).read()


@attempt("read the launcher's environment variables")
def _():
    found = [open(f"/proc/{pid}/environ").read() for pid in os.listdir("/proc") if pid.isdigit()]
    if "PLUGIND_CANARY" not in str(found):
        raise PermissionError("not there")
    return found


@attempt("see a process of the host")
def _():
    return [pid for pid in told["pids"] if os.readlink(f"/proc/{pid}/exe")]


@attempt("connect to the host")
def _():
    return socket.create_connection(("127.0.0.1", told["port"]), 1)


@attempt("change what the host does with cores")
def _():
    return open("/proc/sys/kernel/core_pattern", "w").write("|/bin/true")


@attempt("write into the environment")
def _():
    return open("/environment/more.py", "w")


@attempt("make the environment writable")
def _():
    return check(libc.mount(b"", b"/environment", None, 0x1020, None)) or open(
        "/environment/more.py", "w"
    )  # bind,remount


@attempt("write into the interpreter")
def _():
    return open(os.__file__, "a")


@attempt("write beside the daemon's own code")
def _():
    return open("/runtime/plugind/__init__.py", "a")


@attempt("become a user of the host")
def _():
    return os.setuid(10**9)


@attempt("set the clock")
def _():
    return time.clock_settime(time.CLOCK_REALTIME, time.time())


@attempt("open a disk")
def _():
    os.mknod("/dev/sda", 0o60600, os.makedev(8, 0))
    return open("/dev/sda", "rb")


@attempt("open the kernel's log")
def _():
    return check(libc.klogctl(3, ctypes.create_string_buffer(64), 64))


@attempt("open a file by its handle")
def _():
    return check(libc.syscall(OPEN_BY_HANDLE_AT, -100, ctypes.create_string_buffer(64), 0))


@attempt("load a module into the kernel")
def _():
    return check(libc.syscall(INIT_MODULE, b"", 0, b""))


@attempt("enter another user namespace")
def _():
    return check(libc.setns(os.open("/proc/1/ns/user", os.O_RDONLY), 0x10000000))


@attempt("outlive the launcher")
def _():
    return check(libc.prctl(1, 0)) or os.kill(1, signal.SIGSTOP) or open("/proc/1/status").read().index("T (stopped)")


@attempt("reach the cgroups")
def _():
    return os.listdir("/sys/fs/cgroup")
