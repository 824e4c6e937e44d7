"""The program that a template's init becomes: it waits for the zygote, and ends with it, and so does all else in there.

A Python process that does the same keeps megabytes that were the launcher's. This is one page of machine code, because
no program of the host's can be counted on to wait for a process, without a loader and libraries.
Sources: elf(5), wait4(2), exit_group(2).
"""

from __future__ import annotations

import platform
import struct
from pathlib import Path
from typing import Final

from plugind.sandbox import rootfs

PATH: Final = f"{rootfs.RUNTIME_DIR}/plugind-init"
"""In the template's root; ps shows the last part as its name."""
ZYGOTE_PID: Final = 2
"""In the template's pid namespace: the first process after init."""
_ADDRESS: Final = 0x400000
_LARGEST_PAGE: Final = 0x10000
_HEADER: Final = struct.Struct("<16s HHI QQQ I HHHHHH")
_SEGMENT: Final = struct.Struct("<II QQQQQQ")
_MACHINES: Final = {
    "x86_64": (
        62,
        bytes.fromhex(
            "bf02000000 31f6 31d2 4531d2"  # mov edi, 2; xor esi, esi; xor edx, edx; xor r10d, r10d
            "b83d000000 0f05"  #              mov eax, 61; syscall     wait4(ZYGOTE_PID, NULL, 0, NULL)
            "31ff b8e7000000 0f05"  #         xor edi, edi; mov eax, 231; syscall     exit_group(0)
        ),
    ),
    "aarch64": (
        183,
        bytes.fromhex(
            "400080d2 010080d2 020080d2 030080d2"  # mov x0, 2; mov x1, 0; mov x2, 0; mov x3, 0
            "882080d2 010000d4"  #                   mov x8, 260; svc 0     wait4(ZYGOTE_PID, NULL, 0, NULL)
            "000080d2 c80b80d2 010000d4"  #          mov x0, 0; mov x8, 94; svc 0     exit_group(0)
        ),
    ),
}
"""By machine: its number in ELF, and what it is to do."""


def program(machine: str) -> bytes:
    """The whole file. Raises OSError on an architecture plugind does not know."""
    if machine not in _MACHINES:
        raise OSError(f"plugind runs on {' and '.join(_MACHINES)}, this is {machine}")
    number, code = _MACHINES[machine]
    begin = _HEADER.size + _SEGMENT.size
    size = begin + len(code)
    kind = b"\x7fELF" + bytes((2, 1, 1))  # 64 bits, little-endian, version 1
    header = _HEADER.pack(
        kind, 2, number, 1, _ADDRESS + begin, _HEADER.size, 0, 0, _HEADER.size, _SEGMENT.size, 1, 0, 0, 0
    )
    segment = _SEGMENT.pack(1, 5, 0, _ADDRESS, _ADDRESS, size, size, _LARGEST_PAGE)  # loaded; read and execute
    return header + segment + code


def place(root: Path) -> None:
    """Write it into a template's root. Raises OSError.

    Nobody may read it, which an exec would show by the process: it is not dumpable, as init is before. Nobody but
    real root can trace it then, or open what is below its /proc. Source: prctl(2), PR_SET_DUMPABLE.
    """
    path = root / PATH.lstrip("/")
    path.write_bytes(program(platform.machine()))
    path.chmod(0o111)
