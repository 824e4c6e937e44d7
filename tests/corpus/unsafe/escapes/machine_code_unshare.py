"""Sums a column in machine code, for speed.

[corpus]
tries = "calls the kernel from machine code of its own, past every library that might be watched"
inputs = [[4, 5]]
expected = "contained"
outcomes = ["violation"]
refused = ["unshare"]
quarantine = true
"""

import ctypes
import mmap
import platform

CODE = {
    # mov eax, 272; mov edi, 0x10000000; syscall; ret
    "x86_64": bytes.fromhex("b810010000bf000000100f05c3"),
    # mov x8, 97; mov x0, 0x10000000; svc 0; ret
    "aarch64": bytes.fromhex("280c80d20000a2d2010000d4c0035fd6"),
}


def run(payload, context):
    page = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    page.write(CODE[platform.machine()])
    call = ctypes.CFUNCTYPE(ctypes.c_long)(ctypes.addressof(ctypes.c_char.from_buffer(page)))
    if call() == 0:
        print("LOOT a namespace")
    return sum(payload)
