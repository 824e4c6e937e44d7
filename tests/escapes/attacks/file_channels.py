"""Channels between two instances over files that both see, and can only read. Each has two ends, send_… and receive_…."""

import ctypes
import errno
import fcntl
import mmap
import os
import signal
import struct

import raw
from clock import for_each_slot, on_the_clock, wait_until

SHARED_FILE = os.path.dirname(os.__file__) + "/LICENSE.txt"
UNUSED_FILE = os.path.dirname(os.__file__) + "/turtle.py"


def send_page_cache(start, slot, bits):
    """Read a page of a file that nobody uses, or have it forgotten."""
    descriptor = os.open(UNUSED_FILE, os.O_RDONLY)

    def work(bit):
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        if bit:
            os.pread(descriptor, 1, 0)

    for number, bit in enumerate(bits):
        wait_until(start + slot * number)
        work(bit)
    return "sent"


def receive_page_cache(start, slot, count):
    """RWF_NOWAIT tells whether a page is in memory without reading it."""
    descriptor = os.open(UNUSED_FILE, os.O_RDONLY)

    def look(_):
        try:
            return os.preadv(descriptor, [bytearray(1)], 0, os.RWF_NOWAIT) == 1
        except BlockingIOError:
            return False

    return on_the_clock(start, slot, look, [0] * count)


def _receive_by_trying(start, slot, count, take, release):
    def look(_):
        try:
            take()
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.EACCES):
                raise
            return True
        release()
        return False

    return on_the_clock(start, slot, look, [0] * count)


def send_flock(start, slot, bits):
    file = open(SHARED_FILE if os.path.exists(SHARED_FILE) else os.__file__)
    return for_each_slot(
        start, slot, bits, lambda: fcntl.flock(file, fcntl.LOCK_EX), lambda: fcntl.flock(file, fcntl.LOCK_UN)
    )


def receive_flock(start, slot, count):
    file = open(SHARED_FILE if os.path.exists(SHARED_FILE) else os.__file__)
    return _receive_by_trying(
        start,
        slot,
        count,
        lambda: fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB),
        lambda: fcntl.flock(file, fcntl.LOCK_UN),
    )


_LOCK = struct.Struct("hhqqi4x")


def _lock_command(command, kind):
    return lambda file: fcntl.fcntl(file, command, _LOCK.pack(kind, 0, 0, 1, 0))


def send_record_lock(start, slot, bits, ofd):
    file = open(os.__file__)
    command = 37 if ofd else fcntl.F_SETLK
    return for_each_slot(
        start,
        slot,
        bits,
        lambda: _lock_command(command, fcntl.F_RDLCK)(file),
        lambda: _lock_command(command, fcntl.F_UNLCK)(file),
    )


def receive_record_lock(start, slot, count, ofd):
    """A read lock of somebody else is what a write lock would conflict with."""
    file = open(os.__file__)
    command = 36 if ofd else fcntl.F_GETLK
    look = lambda _: _LOCK.unpack(_lock_command(command, fcntl.F_WRLCK)(file))[0] != fcntl.F_UNLCK
    return on_the_clock(start, slot, look, [0] * count)


def send_lease(start, slot, bits):
    file = open(os.__file__)
    return for_each_slot(
        start,
        slot,
        bits,
        lambda: fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_RDLCK),
        lambda: fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_UNLCK),
    )


def receive_lease(start, slot, count):
    file = open(os.__file__)
    return on_the_clock(start, slot, lambda _: fcntl.fcntl(file, fcntl.F_GETLEASE) != fcntl.F_UNLCK, [0] * count)


def send_opens(start, slot, bits):
    def burst():
        for _ in range(20):
            open(os.__file__).close()

    return for_each_slot(start, slot, bits, burst, lambda: None)


def receive_inotify(start, slot, count):
    """inotify tells of every open of a file, whoever opens it."""
    watcher = raw.libc.inotify_init1(os.O_NONBLOCK)
    if watcher < 0:
        raise OSError(ctypes.get_errno(), "inotify_init1")
    if raw.libc.inotify_add_watch(watcher, os.__file__.encode(), 0x20) < 0:
        raise OSError(ctypes.get_errno(), "inotify_add_watch")

    def look(_):
        try:
            return bool(os.read(watcher, 65536))
        except BlockingIOError:
            return False

    return on_the_clock(start, slot, look, [0] * count)


def receive_fanotify(start, slot, count):
    watcher = raw.syscall("fanotify_init", 0x2, 0)  # FAN_NONBLOCK
    if watcher < 0:
        raise OSError(-watcher, "fanotify_init")
    return on_the_clock(start, slot, lambda _: bool(os.read(watcher, 65536)), [0] * count)


def receive_dnotify(start, slot, count):
    folder = os.open(os.path.dirname(os.__file__), os.O_RDONLY)
    seen = []
    signal.signal(signal.SIGIO, lambda *_: seen.append(1))
    fcntl.fcntl(folder, fcntl.F_NOTIFY, fcntl.DN_ACCESS | fcntl.DN_MULTISHOT)
    look = lambda _: bool(seen) and not seen.clear()
    return on_the_clock(start, slot, look, [0] * count)


def receive_cachestat(start, slot, count):
    descriptor = os.open(UNUSED_FILE, os.O_RDONLY)
    span, found = struct.pack("QQ", 0, 4096), raw.buffer(64)

    def look(_):
        result = raw.syscall("cachestat", descriptor, span, found, 0)
        if result < 0:
            raise OSError(-result, "cachestat")
        return struct.unpack_from("Q", found)[0] > 0

    return on_the_clock(start, slot, look, [0] * count)


def receive_mincore(start, slot, count):
    descriptor = os.open(UNUSED_FILE, os.O_RDONLY)
    view = mmap.mmap(descriptor, 4096, mmap.MAP_SHARED, mmap.PROT_READ)
    address = next(int(line.split("-")[0], 16) for line in open("/proc/self/maps") if UNUSED_FILE in line)
    seen = raw.buffer(1)

    def look(_):
        raw.syscall("mincore", address, 4096, seen)
        return bool(seen.raw[0] & 1)

    answer = on_the_clock(start, slot, look, [0] * count)
    view.close()
    return answer


def send_access_time(start, slot, bits):
    def touch():
        with open(UNUSED_FILE) as file:
            file.read(1)
        for path in ("/dev/null", "/dev/zero"):
            with open(path, "r+b", buffering=0) as device:
                device.write(b"x")
                device.read(1)

    return for_each_slot(start, slot, bits, touch, lambda: None)


def receive_access_time(start, slot, count):
    """Times, link counts, sizes and free space of what both see: anything that changes."""
    before = [None]

    def look(_):
        now = []
        for path in (UNUSED_FILE, "/dev/null", "/dev/zero", "/", "/dev", "/plugin", "/code", "/etc"):
            status, space = os.stat(path), os.statvfs(path)
            now.append((status.st_atime_ns, status.st_mtime_ns, status.st_ctime_ns, status.st_nlink))
            if space.f_type if hasattr(space, "f_type") else False:
                now.append(space.f_bfree)
        changed = before[0] is not None and now != before[0]
        before[0] = now
        return changed

    return on_the_clock(start, slot, look, [0] * count)
