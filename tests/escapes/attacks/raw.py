"""System calls by number, machine code, and how an attack reports: what the attacks are made of.

An attempt prints a line before it and a line after it: a call for which the whole run ends has no second line.
"""

import ctypes
import errno
import mmap
import os

from call_numbers import MACHINE, NUMBERS  # written into the bundle for the machine that the test runs on

libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long
SIXTY_FOUR_BITS = (1 << 64) - 1


def number_of(call):
    return call if isinstance(call, int) else NUMBERS[call]


def c_argument(value):
    """A number as all 64 bits of it, bytes as a pointer to them, anything else as ctypes takes it."""
    return ctypes.c_uint64(value & SIXTY_FOUR_BITS) if isinstance(value, int) else value


def syscall(call, *arguments):
    """The result, or minus the error's number."""
    result = libc.syscall(ctypes.c_ulong(number_of(call)), *map(c_argument, arguments))
    return -ctypes.get_errno() if result == -1 else result


def answer(result):
    """A result as a text: "EPERM", or "0"."""
    return errno.errorcode.get(-result, str(result)) if -4096 < result < 0 else str(result)


def say(line):
    os.write(1, line.encode(errors="replace") + b"\n")


def attempt(call, *arguments, name=""):
    """Make the call, say so, and give the answer as a text."""
    name = name or str(call)
    say(f"try {name}")
    got = answer(syscall(call, *arguments))
    say(f"got {name} {got}")
    return got


def caught(function, *arguments, **named):
    """What a Python call came to: the error's name, or "done: RESULT"."""
    try:
        return f"done: {function(*arguments, **named)!r:.200}"
    except OSError as error:
        return errno.errorcode.get(error.errno, str(error))
    except Exception as error:
        return type(error).__name__


def buffer(size=4096):
    return ctypes.create_string_buffer(size)


def child(function, *arguments):
    """Call it in a forked child; the child's exit code, negative for a signal. The child exits with the result."""
    pid = os.fork()
    if pid == 0:
        code = 99
        try:
            code = int(function(*arguments) or 0)
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


class Code:
    """Machine code in memory that can be executed; `low` places it below 4 GiB, where 32-bit code can be."""

    def __init__(self, code, low=False):
        if MACHINE != "x86_64":
            raise RuntimeError(f"this attack is machine code for x86_64, and this is {MACHINE}")
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | (0x40 if low else 0)  # MAP_32BIT
        libc.mmap.restype = ctypes.c_void_p
        libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
        self.address = libc.mmap(None, 8192, mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC, flags, -1, 0)
        if self.address == ctypes.c_void_p(-1).value:
            raise OSError(ctypes.get_errno(), "mmap")
        ctypes.memmove(self.address, code, len(code))

    def __call__(self, *arguments):
        kind = ctypes.CFUNCTYPE(ctypes.c_long, *[ctypes.c_uint64] * len(arguments))
        return kind(self.address)(*arguments)
