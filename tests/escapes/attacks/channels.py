"""Channels between two instances: over descriptors, sockets, futexes and names. Each has two ends, send_… and receive_…."""

import ctypes
import fcntl
import glob
import mmap
import os
import socket
import sys
import threading
import time

import raw
from clock import for_each_slot, on_the_clock, wait_until

# --- flags of a descriptor that both inherited -----------------------------------------------------------------------


def send_flags(start, slot, bits):
    plain = fcntl.fcntl(0, fcntl.F_GETFL) & ~os.O_NONBLOCK
    return for_each_slot(
        start,
        slot,
        bits,
        lambda: fcntl.fcntl(0, fcntl.F_SETFL, plain | os.O_NONBLOCK),
        lambda: fcntl.fcntl(0, fcntl.F_SETFL, plain),
    )


def receive_flags(start, slot, count):
    look = lambda _: bool(fcntl.fcntl(0, fcntl.F_GETFL) & os.O_NONBLOCK)
    return on_the_clock(start, slot, look, [0] * count)


def send_signal_number(start, slot, bits):
    """F_SETSIG on the same description carries five bits at once."""
    return for_each_slot(
        start, slot, bits, lambda: fcntl.fcntl(0, fcntl.F_SETSIG, 42), lambda: fcntl.fcntl(0, fcntl.F_SETSIG, 0)
    )


def receive_signal_number(start, slot, count):
    return on_the_clock(start, slot, lambda _: fcntl.fcntl(0, fcntl.F_GETSIG) == 42, [0] * count)


# --- Unix sockets: socket() is refused, a pair is not -----------------------------------------------------------------


def _orphan():
    """A datagram socket without a peer and with a name: of a pair, whose other end is closed, by autobind."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
    ours.send(b"x")  # this gives it an abstract name
    theirs.close()
    try:
        ours.send(b"x")  # and this takes away its dead peer
    except OSError:
        pass
    return ours


def receive_datagrams(start, slot, count):
    """Wait for datagrams at the abstract name that autobind gave; what came in which slot."""
    orphan = _orphan()
    orphan.settimeout(0)
    look = lambda _: raw.caught(orphan.recv, 16).startswith("done")
    return on_the_clock(start, slot, look, [0] * count)


def send_datagrams(start, slot, bits):
    """To every abstract name of this network namespace, which /proc/self/net/unix lists."""
    orphan = _orphan()
    own = orphan.getsockname()

    def tell():
        for line in open("/proc/self/net/unix"):
            name = line.split()[-1]
            if name.startswith("@") and name[1:].encode() != own[1:]:
                raw.caught(orphan.sendto, b"1", b"\0" + name[1:].encode())

    return for_each_slot(start, slot, bits, tell, lambda: None)


def send_socket_count(start, slot, bits):
    """Sockets are counted by network namespace: there are more of them, or fewer."""
    kept = []
    return for_each_slot(start, slot, bits, lambda: kept.extend(socket.socketpair() for _ in range(40)), kept.clear)


def receive_socket_count(start, slot, count):
    """How many there are, by /proc/self/net."""

    def look(_):
        return len(open("/proc/self/net/unix").readlines()) > 60

    return on_the_clock(start, slot, look, [0] * count)


# --- futexes: a page of a file that both map is one key --------------------------------------------------------------


def _shared_page():
    """The address of the first page of a file that all instances see, mapped shared and read-only."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
    descriptor = os.open(os.path.realpath(sys.executable), os.O_RDONLY)
    address = libc.mmap(None, 4096, mmap.PROT_READ, mmap.MAP_SHARED, descriptor, 0)
    ctypes.string_at(address, 4)
    return address


def _futex(address, operation, value, timeout=None):
    pointer = ctypes.byref(timeout) if timeout is not None else 0
    return raw.syscall("futex", address, operation, value, pointer, 0, 0xFFFFFFFF)


class _Timespec(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


def receive_futex(start, slot, count):
    address = _shared_page() + 4 * 7
    value = ctypes.c_uint32.from_buffer_copy(ctypes.string_at(address, 4)).value
    seen = []
    for number in range(count):
        wait_until(start + slot * number)
        left = start + slot * (number + 0.9) - time.time()
        result = _futex(address, 0, value, _Timespec(0, int(max(left, 0.001) * 1e9)))
        seen.append(result == 0)
    return seen


def send_futex(start, slot, bits):
    address = _shared_page() + 4 * 7
    woken = on_the_clock(start, slot, lambda bit: _futex(address, 1, 100) if bit else None, bits)
    return [got for got in woken if got is not None]


def send_exiting_thread(start, slot, bits):
    """The kernel itself wakes: when a thread ends whose tid address lies on that page."""
    address = _shared_page() + 4 * 7

    def end():
        raw.syscall("set_tid_address", address)

    def signal_by_exit(bit):
        if bit:
            thread = threading.Thread(target=end, daemon=True)
            thread.start()
            time.sleep(0.005)

    on_the_clock(start, slot, signal_by_exit, bits)
    raw.say("sent")
    sys.stdout.flush()
    return "sent"


# --- what is named: shared memory, queues, semaphores, keys, the machine's name ---------------------------------------------


def send_named(start, slot, bits):
    """Everything at once under well-known names, as long as the last bit lasts."""
    answers = {
        "shmget": raw.answer(raw.syscall("shmget", 0x504C55, 4096, 0o1666)),
        "semget": raw.answer(raw.syscall("semget", 0x504C55, 1, 0o1666)),
        "msgget": raw.answer(raw.syscall("msgget", 0x504C55, 0o1666)),
        "mq_open": raw.answer(raw.syscall("mq_open", b"plugin", os.O_CREAT | os.O_RDWR, 0o666, 0)),
        "shm": raw.caught(lambda: open("/dev/shm/plugin", "w").write("sent")),
        "tmp": raw.caught(lambda: open("/tmp/plugin", "w").write("sent")),
        "sethostname": raw.answer(raw.syscall("sethostname", b"sent", 4)),
        "name": raw.answer(raw.syscall("prctl", 15, b"sent")),
    }
    wait_until(start + slot * len(bits))
    return answers


def receive_named(start, slot, count):
    """The same names, from the other side, in the middle of the time."""
    wait_until(start + slot * count / 2)
    return {
        "shmget": raw.answer(raw.syscall("shmget", 0x504C55, 4096, 0o666)),
        "semget": raw.answer(raw.syscall("semget", 0x504C55, 1, 0o666)),
        "msgget": raw.answer(raw.syscall("msgget", 0x504C55, 0o666)),
        "mq_open": raw.answer(raw.syscall("mq_open", b"plugin", os.O_RDWR, 0, 0)),
        "shm": os.listdir("/dev/shm"),
        "tmp": os.listdir("/tmp"),
        "host": os.uname().nodename,
        "processes": sorted(name for name in os.listdir("/proc") if name.isdigit()),
        "ipc": glob.glob("/proc/sysvipc/*"),
        "net": glob.glob("/proc/net/*") + glob.glob("/proc/self/net/*"),
    }
