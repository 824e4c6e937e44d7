"""Attacks of one instance on another: its sockets, its memory, its processes, and what it may leave for the next."""

import ctypes
import errno
import fcntl
import os
import socket
import struct
import sys
import time

import raw


def abstract_socket(name):
    """A socket of the host or a sibling: connect, and send from half of a pair."""
    target = b"\0" + name.encode()
    answers = {"socket": raw.caught(socket.socket, socket.AF_UNIX), "inet": raw.caught(socket.socket)}
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_SEQPACKET):
        try:
            ours, theirs = socket.socketpair(socket.AF_UNIX, kind)
        except OSError as error:
            answers[f"pair {kind.name}"] = errno.errorcode[error.errno]
            continue
        answers[f"connect {kind.name}"] = raw.caught(ours.connect, target)
        answers[f"bind {kind.name}"] = raw.caught(ours.bind, b"\0plugin")
        answers[f"sendto {kind.name}"] = raw.caught(ours.sendto, b"x", target)
        theirs.close()
        answers[f"orphan sendto {kind.name}"] = raw.caught(ours.sendto, b"x", target)
    return answers


def hold_canary(secret, seconds):
    """Keep a secret in memory, in a file, in the environment, in the title and on the stack, and stay."""
    kept = [secret * 100]
    os.environ["CANARY"] = secret
    for folder in ("/tmp", "/dev/shm"):
        with open(f"{folder}/canary", "w") as file:
            file.write(secret)
    raw.syscall("prctl", 15, secret[:15].encode())
    raw.say("holding")
    time.sleep(seconds)
    return len(kept)


def hunt_canary(first, last):
    """Every process by number: its memory, environment and files, signals and descriptors of it."""
    answers = {"seen": [], "signalled": [], "opened": []}
    own = os.getpid()
    for pid in range(first, last):
        if pid == own:
            continue
        if any(os.path.exists(f"/proc/{pid}/{name}") for name in ("status", "mem", "environ", "cmdline", "root", "fd")):
            answers["seen"].append(pid)
        if raw.syscall("kill", pid, 0) != -errno.ESRCH:
            answers["signalled"].append(pid)
        if raw.syscall("pidfd_open", pid, 0) != -errno.ESRCH:
            answers["opened"].append(pid)
    answers["kill everybody"] = raw.answer(raw.syscall("kill", -1, 9))
    answers["kill the group"] = raw.answer(raw.syscall("kill", -2, 9))
    answers["/tmp"] = os.listdir("/tmp") + os.listdir("/dev/shm")
    answers["environment"] = sorted(os.environ)
    answers["proc"] = sorted(os.listdir("/proc"))
    return answers


def read_other_process(call, pid):
    """ptrace(PTRACE_ATTACH) or process_vm_readv of a pid."""
    here = raw.buffer()
    vector = struct.pack("QQ", ctypes.addressof(here), 4096)
    arguments = (16, pid, 0, 0) if call == "ptrace" else (pid, vector, 1, vector, 1, 0)
    return raw.attempt(call, *arguments)


def leave_marks():
    """What is there at first; then marks wherever something can be written."""
    folders = ("/tmp", "/dev/shm", "/plugin", "/code", "/grant", "/etc", "/dev", "/")
    found = {folder: raw.caught(lambda at: sorted(os.listdir(at)), folder) for folder in folders}
    found["environment"] = sorted(os.environ)
    found["umask"] = os.umask(0o022)
    found["priority"] = os.getpriority(os.PRIO_PROCESS, 0)
    found["modules"] = hasattr(sys, "a_mark")
    found["flags"] = fcntl.fcntl(0, fcntl.F_GETFL)
    sys.a_mark = True
    os.nice(1)
    os.environ["MARK"] = "1"
    fcntl.fcntl(0, fcntl.F_SETFL, os.O_NONBLOCK)
    for folder in folders:
        raw.caught(os.mkdir, f"{folder}/mark")
    raw.syscall("shmget", 0x4D41, 4096, 0o1666)
    return found


def clear_flags():
    """The flags of descriptor 0 as they were at first."""
    fcntl.fcntl(0, fcntl.F_SETFL, 0)


def counters(seconds):
    """Which files below /proc/self/net have changed after a while, and which cannot be read."""
    before = _net_files()
    time.sleep(seconds)
    after = _net_files()
    return {
        "changed": sorted(name for name in before if before[name] != after.get(name)),
        "refused": sorted(name for name, text in before.items() if text is None),
        "read": sum(text is not None for text in before.values()),
    }


def _net_files():
    found = {}
    for folder, _, names in os.walk("/proc/self/net", onerror=lambda error: found.update({error.filename: None})):
        for name in names:
            try:
                with open(os.path.join(folder, name), "rb") as file:
                    found[os.path.join(folder, name)] = file.read()
            except OSError:
                found[os.path.join(folder, name)] = None
    return found
