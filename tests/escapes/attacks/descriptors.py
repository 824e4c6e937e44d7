"""Attacks by descriptors: what an instance inherits, what it can reopen, what ioctls do, what it can be flooded with."""

import fcntl
import mmap
import os
import socket
import stat
import sys

import raw

MANY = 4096


def inherited():
    """Every descriptor there is, found by asking for each number and not by a listing."""
    found = {}
    for number in range(MANY):
        try:
            status = os.fstat(number)
        except OSError:
            continue
        found[number] = [stat.S_IFMT(status.st_mode), fcntl.fcntl(number, fcntl.F_GETFL) & os.O_ACCMODE]
    links = {name: os.readlink(f"/proc/self/fd/{name}") for name in map(str, found)}
    return {"descriptors": found, "links": links, "cwd": os.getcwd()}


def climb(path):
    """The host's file by every way up that descriptors, the working directory and /proc offer."""
    tries = {path: path, "/proc/1/root": f"/proc/1/root{path}", "/proc/self/root": f"/proc/self/root{path}"}
    up = "../" * 40 + path.lstrip("/")
    tries["up"] = up
    tries["cwd up"] = f"/proc/self/cwd/{up}"
    tries["task"] = f"/proc/thread-self/root/{up}"
    for number in range(64):
        tries[f"descriptor {number}"] = f"/proc/self/fd/{number}/{up}"
    answers = {name: raw.caught(_read, target) for name, target in tries.items()}
    for number in range(64):
        answers[f"openat {number}"] = raw.caught(lambda at: os.read(os.open(up, os.O_RDONLY, dir_fd=at), 100), number)
    os.chdir("/")
    for _ in range(50):
        os.chdir("..")
    answers["chdir"] = raw.caught(_read, path.lstrip("/"))
    return answers


def _read(path):
    with open(path) as file:
        return file.read()


def overwrite_executables():
    """Open for writing, truncate, chmod, map shared: the interpreter, its libraries and the plugin itself."""
    mapped = {line.split()[-1] for line in open("/proc/self/maps") if line.split()[-1].startswith("/")}
    answers = {}
    for target in ["/proc/self/exe", sys.executable, *sorted(mapped), __file__]:
        answers[f"write {target}"] = raw.caught(os.open, target, os.O_WRONLY)
        answers[f"append {target}"] = raw.caught(os.open, target, os.O_RDWR | os.O_APPEND)
        answers[f"truncate {target}"] = raw.caught(os.truncate, target, 0)
        answers[f"chmod {target}"] = raw.caught(os.chmod, target, 0o777)
        answers[f"times {target}"] = raw.caught(os.utime, target)
        answers[f"reopen {target}"] = raw.caught(_reopen_for_writing, target)
        answers[f"map {target}"] = raw.caught(_map_shared, target)
    return answers


def _reopen_for_writing(path):
    return os.open(f"/proc/self/fd/{os.open(path, os.O_PATH)}", os.O_WRONLY)


def _map_shared(path):
    descriptor = os.open(path, os.O_RDONLY)
    return mmap.mmap(descriptor, 1, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)


def write_through_memory_file():
    """/proc/self/mem writes through page protections: onto the file that a read-only mapping shows."""
    with open(sys.executable, "rb") as file:
        view = mmap.mmap(file.fileno(), 4096, mmap.MAP_SHARED, mmap.PROT_READ)
        address = _mapped_at(os.path.realpath(sys.executable))
        answer = raw.caught(_poke, address)
        return {"answer": answer, "still": view[:4] == b"\x7fELF"}


def _mapped_at(path):
    for line in open("/proc/self/maps"):
        if line.split()[-1] == path and line.split()[1] == "r--s":
            return int(line.split("-")[0], 16)
    raise RuntimeError(f"{path} is not mapped shared")


def _poke(address):
    with open("/proc/self/mem", "r+b", buffering=0) as memory:
        memory.seek(address)
        return memory.write(b"evil")


def reopen_pipes():
    """Its own pipes by /proc: the other direction of the same pipe."""
    return {
        f"{number} {flags}": raw.caught(os.open, f"/proc/self/fd/{number}", flags | os.O_NONBLOCK)
        for number in (1, 2, 3)
        for flags in (os.O_RDONLY, os.O_WRONLY, os.O_RDWR)
    }


IOCTLS = {
    "TIOCSTI": 0x5412,
    "TIOCLINUX": 0x541C,
    "TIOCSCTTY": 0x540E,
    "TIOCSTI with high bits": 0x5412 | 1 << 32,
    "TIOCLINUX with high bits": 0x541C | 1 << 32,
    "FS_IOC_SETFLAGS": 0x40086602,
    "FIBMAP": 1,
    "FITRIM": 0xC0185879,
    "FICLONE": 0x40049409,
    "FS_IOC_GETVERSION": 0x80087601,
    "NS_GET_USERNS": 0xB701,
    "NS_GET_PARENT": 0xB702,
    "PIDFD_GET_USER_NAMESPACE": 0xFF09,
    "RNDADDENTROPY": 0x40085203,
    "RNDCLEARPOOL": 0x5206,
    "SIOCGIFCONF": 0x8912,
    "SIOCETHTOOL": 0x8946,
}


def ioctls():
    """What terminals, file systems, namespaces, the random device and interfaces are asked by ioctl."""
    ends = socket.socketpair()
    scratch = os.open("/tmp/file", os.O_RDWR | os.O_CREAT)
    descriptors = [0, 1, 3, ends[0].fileno(), scratch, os.open("/dev/urandom", os.O_RDONLY)]
    for path in ("/proc/self/ns/user", "/proc/self/ns/net"):
        try:
            descriptors.append(os.open(path, os.O_RDONLY))
        except OSError:
            pass  # its owner is root, because the process is not dumpable
    return {
        name: sorted({raw.attempt("ioctl", descriptor, request, raw.buffer(), name=name) for descriptor in descriptors})
        for name, request in IOCTLS.items()
    }


LISTENER_IOCTLS = {"NOTIF_RECV": 0xC0502100, "NOTIF_SEND": 0xC0182101, "ID_VALID": 0x40082102, "ADDFD": 0x40182103}


def answer_own_notifications():
    """Ask every descriptor whether it is the listener of this instance's own filter."""
    for number in range(MANY):
        try:
            link = os.readlink(f"/proc/self/fd/{number}")
        except OSError:
            continue
        if "seccomp" in link:
            return {"listener": link}
    answers = {}
    for name, request in LISTENER_IOCTLS.items():
        for number in range(8):
            answers[f"{name} {number}"] = raw.attempt("ioctl", number, request, raw.buffer(), name=name)
    return answers


def pass_through_result_pipe(count):
    """SCM_RIGHTS on descriptor 3, and then a flood of descriptors in flight in its own sockets."""
    answers = {"on the result": raw.answer(raw.syscall("sendmsg", 3, raw.buffer(), 0))}
    sent = 0
    ends = socket.socketpair()
    ends[0].setblocking(False)
    try:
        while sent < count:
            socket.send_fds(ends[0], [b"x"], [0] * 200)
            sent += 200
    except OSError as error:
        answers["in flight"] = error.errno
    answers["sent"] = sent
    return answers


def exhaust():
    """Open as many descriptors as there can be: by file, by pipe, by eventfd, and in many processes."""
    opened = []
    answers = {}
    for name, make in (("pipes", os.pipe), ("files", lambda: [os.open("/dev/null", os.O_RDONLY)])):
        try:
            while len(opened) < 10**6:
                opened += make()
        except OSError as error:
            answers[name] = [len(opened), error.errno]
        while opened:
            os.close(opened.pop())
    return answers
