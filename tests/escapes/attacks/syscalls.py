"""Attacks by system calls: those that no plugin may make, those that are refused, and their arguments."""

import ctypes
import errno
import os
import socket
import struct
import threading

import raw

NULL = 0
NAMESPACES = {
    "time": 0x80,
    "mount": 0x20000,
    "cgroup": 0x2000000,
    "uts": 0x4000000,
    "ipc": 0x8000000,
    "user": 0x10000000,
    "pid": 0x20000000,
    "net": 0x40000000,
}


def one(call, arguments=(), name=""):
    """One call with these arguments: numbers, or texts for pointers to them."""
    given = [value.encode() if isinstance(value, str) else value for value in arguments]
    return raw.attempt(call, *given, name=name)


def from_a_thread(call, arguments=()):
    answers = []
    thread = threading.Thread(target=lambda: answers.append(one(call, arguments)))
    thread.start()
    thread.join()
    return answers


def from_a_child(call, arguments=()):
    """The child makes the call; the parent goes on and returns something, if it is let."""
    code = raw.child(one, call, arguments)
    raw.say(f"the parent goes on after {code}")
    return code


def all_of(calls):
    """Each call by its number with no arguments that could do anything; what each answered."""
    return {name: raw.attempt(number, *[0] * 6, name=name) for name, number in calls.items()}


def clone_flags():
    """clone with each flag that makes a namespace; the child, should there be one, ends at once."""
    answers = {}
    for name, flag in NAMESPACES.items():
        for high in (0, 1 << 40):
            pid = raw.syscall("clone", flag | high | 17, 0, 0, 0, 0)
            if pid == 0:
                os._exit(7)
            if pid > 0:
                os.waitpid(pid, 0)
            answers[f"{name} {high:#x}"] = raw.answer(pid) if pid < 0 else "a child"
    return answers


def clone3_flags():
    """clone3's flags lie in memory, where no filter can look; and threads, for which libc asks clone3 first, work."""
    answers = {}
    for name, flag in NAMESPACES.items():
        arguments = struct.pack("11Q", flag, 0, 0, 0, 17, 0, 0, 0, 0, 0, 0)
        pid = raw.syscall("clone3", arguments, len(arguments))
        if pid == 0:
            os._exit(7)
        if pid > 0:
            os.waitpid(pid, 0)
        answers[name] = raw.answer(pid) if pid < 0 else "a child"
    ran = []
    threads = [threading.Thread(target=ran.append, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    answers["threads"] = len(ran)
    return answers


def sockets(families):
    """A socket of each family, and a pair of each but AF_UNIX."""
    answers = {}
    for family in families:
        for kind in (1, 3):
            answers[f"{family} {kind}"] = raw.attempt("socket", family, kind, 0, name=f"socket {family}")
    return answers


def socket_pairs():
    """Pairs of other families than AF_UNIX, also with high bits; and the pair that is allowed."""
    pair = raw.buffer(8)
    answers = {
        f"{family:#x}": raw.attempt("socketpair", family, 1, 0, pair) for family in (2, 10, 16, 30, 40, 2 | 1 << 32)
    }
    answers["allowed"] = raw.answer(raw.syscall("socketpair", 1, 1, 0, pair))
    return answers


PRCTLS = [
    *range(80),
    0x41555856,  # PR_GET_AUXV
    0x59616D61,  # PR_SET_PTRACER
    0x4D4D4C4F,
]
HARMLESS_PRCTLS = {1, 2, 3, 15, 16, 23, 30, 36, 37, 38, 39, 40}


def prctls():
    """Every option but those that are harmless, also with bits above 32."""
    answers = {}
    for option in PRCTLS:
        for high in (0, 1 << 32):
            if option not in HARMLESS_PRCTLS:
                answers[f"{option} {high >> 32}"] = raw.attempt(
                    "prctl", option | high, 0, 0, 0, 0, name=f"prctl {option}"
                )
    return answers


def undo_filters():
    """Another filter, a strict mode, a listener; and what they would have changed."""
    program = struct.pack("HBBI", 6, 0, 0, 0x7FFF0000)  # return ALLOW
    here = ctypes.create_string_buffer(program)
    header = struct.pack("H6xQ", 1, ctypes.addressof(here))
    answers = {
        "seccomp filter": raw.attempt("seccomp", 1, 0, header, name="seccomp filter"),
        "seccomp listener": raw.attempt("seccomp", 1, 8, header, name="seccomp listener"),
        "seccomp strict": raw.attempt("seccomp", 0, 0, 0, name="seccomp strict"),
        "seccomp sizes": raw.attempt("seccomp", 3, 0, raw.buffer(), name="seccomp sizes"),
        "prctl": raw.attempt("prctl", 22, 2, header, 0, 0, name="prctl seccomp"),
    }
    status = dict(line.split(":\t", 1) for line in open("/proc/self/status") if ":\t" in line)
    answers["mode"] = status["Seccomp"].strip()
    answers["filters"] = status["Seccomp_filters"].strip()
    return answers


def personalities():
    """READ_IMPLIES_EXEC, ADDR_NO_RANDOMIZE, a 32-bit machine, an old kernel's bugs."""
    return {
        f"{value:#x}": raw.attempt("personality", value, name=f"personality {value:#x}")
        for value in (0x400000, 0x40000, 0x8, 0x100000, 0x20000, 0x800000, 0x1000000, 0xFFFFFFFF << 32, 1 << 32)
    }


def fcntls():
    """What fcntl can do besides duplicating and flags: leases, notification, locks of descriptions, hints."""
    file = os.open(__file__, os.O_RDONLY)
    commands = {
        "F_SETLEASE": 1024,
        "F_GETLEASE": 1025,
        "F_NOTIFY": 1026,
        "F_OFD_GETLK": 36,
        "F_OFD_SETLK": 37,
        "F_OFD_SETLKW": 38,
        "F_SET_RW_HINT": 1036,
        "F_SET_FILE_RW_HINT": 1038,
        "F_NOTIFY with high bits": 1026 | 1 << 32,
        "F_SETLEASE with high bits": 1024 | 1 << 32,
    }
    return {name: raw.attempt("fcntl", file, command, raw.buffer(), name=name) for name, command in commands.items()}


def open_by_handle():
    """The handle of the root directory of a file system, made by hand: inode 2 of what the interpreter lies on."""
    base = os.open(os.path.dirname(os.__file__), os.O_RDONLY)
    handle = struct.pack("IiII", 8, 1, 2, 0)
    return raw.attempt("open_by_handle_at", base, handle, os.O_RDONLY)


def openat2_ways(path):
    """The ways of openat2 out of a folder; none is a way out of the jail."""
    at = os.open("/tmp", os.O_RDONLY)
    answers = {}
    for resolve in (0, 0x01, 0x02, 0x04, 0x08, 0x10, 0x20):
        for target in (path, "../" * 30 + path.lstrip("/"), f"/proc/self/root{path}", f"/proc/1/cwd/../../..{path}"):
            how = struct.pack("QQQ", os.O_RDONLY, 0, resolve)
            answers[f"{resolve} {target}"] = raw.answer(raw.syscall("openat2", at, target.encode(), how, len(how)))
    return answers


def landlock_undo(path):
    """A ruleset that allows everything takes nothing away from what is forbidden already."""
    attributes = struct.pack("QQ", (1 << 13) - 1, 0)
    ruleset = raw.syscall("landlock_create_ruleset", attributes, len(attributes), 0)
    answers = {"create": "ok" if ruleset >= 0 else raw.answer(ruleset)}
    if ruleset >= 0:
        root = os.open("/", os.O_PATH)
        rule = struct.pack("=Qi", (1 << 13) - 1, root)
        answers["add"] = raw.answer(raw.syscall("landlock_add_rule", ruleset, 1, rule, 0))
        answers["restrict"] = raw.answer(raw.syscall("landlock_restrict_self", ruleset, 0))
    answers["open"] = raw.caught(open, path)
    answers["write"] = raw.caught(open, "/etc/passwd", "a")
    answers["make"] = raw.caught(os.mkdir, "/etc/x")
    return answers


def flood(call, count):
    """More refused calls than a run may make."""
    for _ in range(count):
        raw.syscall(call, 0, 0, 0)
    return "went on"


def cross_process():
    """Descriptors, memory and advice of other processes by pidfd: of its own child too."""
    pid = os.fork()
    if pid == 0:
        threading.Event().wait(5)
        os._exit(0)
    pidfd = os.pidfd_open(pid)
    try:
        return {
            "pidfd_getfd": raw.attempt("pidfd_getfd", pidfd, 3, 0),
            "process_madvise": raw.attempt("process_madvise", pidfd, struct.pack("QQ", 4096, 4096), 1, 4, 0),
            "process_mrelease": raw.attempt("process_mrelease", pidfd, 0),
            "kcmp": raw.attempt("kcmp", os.getpid(), pid, 0, 0, 0),
            "migrate_pages": raw.attempt("migrate_pages", pid, 0, 0, 0),
            "move_pages": raw.attempt("move_pages", pid, 0, 0, 0, 0, 0),
        }
    finally:
        os.kill(pid, 9)
        os.waitpid(pid, 0)


def signal_everybody():
    """SIGKILL and SIGSTOP by number to everything outside, and to all at once."""
    reached = [pid for pid in [*range(2, 3000), 2**22 - 1] for _ in [0] if raw.syscall("kill", pid, 0) != -errno.ESRCH]
    answers = {"reached": reached}
    for name, target in (("all", -1), ("group of init", -2), ("tgkill", 2)):
        call = ("tgkill", 2, 2, 9) if name == "tgkill" else ("kill", target, 9)
        answers[name] = raw.answer(raw.syscall(*call))
    answers["queue"] = raw.answer(raw.syscall("rt_sigqueueinfo", 2, 9, raw.buffer(128)))
    return answers


def in_kernel_programs():
    """Classic BPF on half of a pair: JIT-compiled code of the plugin in the kernel."""
    ours, _theirs = socket.socketpair()
    here = ctypes.create_string_buffer(struct.pack("HBBI", 6, 0, 0, 0xFFFF))
    return {
        "SO_ATTACH_FILTER": raw.caught(
            ours.setsockopt, socket.SOL_SOCKET, 26, struct.pack("H6xQ", 1, ctypes.addressof(here))
        ),
        "SO_ATTACH_BPF": raw.caught(ours.setsockopt, socket.SOL_SOCKET, 50, struct.pack("i", 3)),
        "SO_ATTACH_REUSEPORT_CBPF": raw.caught(
            ours.setsockopt, socket.SOL_SOCKET, 51, struct.pack("H6xQ", 1, ctypes.addressof(here))
        ),
        "SO_SNDBUFFORCE": raw.caught(ours.setsockopt, socket.SOL_SOCKET, 32, struct.pack("i", 1 << 28)),
        "SO_MARK": raw.caught(ours.setsockopt, socket.SOL_SOCKET, 36, struct.pack("i", 1)),
    }


def disturb_the_machine():
    """Flush every file system, take memory out of service, move memory that others use."""
    page = raw.buffer(8192)
    address = (ctypes.addressof(page) + 4095) & ~4095
    return {
        "sync": raw.attempt("sync"),
        "MADV_HWPOISON": raw.answer(raw.syscall("madvise", address, 4096, 100)),
        "MADV_SOFT_OFFLINE": raw.answer(raw.syscall("madvise", address, 4096, 101)),
        "MPOL_MF_MOVE_ALL": raw.answer(raw.syscall("mbind", address, 4096, 2, b"\1" + bytes(7), 64, 4)),
    }


def flush_file_system():
    """Write out all that the host has not written yet, of the file system that the interpreter lies on."""
    return raw.attempt("syncfs", os.open(os.__file__, os.O_RDONLY))
