"""Boots the machine and passes on what it prints, until it has told pytest's exit status and powered off."""

from __future__ import annotations

import os
import re
import selectors
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.vm.told import NotPossibleError, say, tail

BOOT_S = 240
"""A boot takes some fifteen seconds; on a machine that does other things too it may take a few times that."""
SILENCE_S = 600
"""The longest that one test may need."""
END_S = 60
_UP, _EXIT = re.compile(r"^plugind-vm: up "), re.compile(r"^plugind-vm: exit (\d+)$")
KERNEL_ARGUMENTS = (
    *("console=ttyS0", "root=/dev/vda", "rw", "panic=-1", "net.ifnames=0"),
    *("systemd.unit=vm-test.target", "systemd.show_status=1", "systemd.unified_cgroup_hierarchy=1"),
    "tsc=reliable",  # without it the kernel trusts only timers that are read by leaving the machine, ten times slower
    "mitigations=off",  # they cost time, and guard a processor that is not there
)

CPU = "qemu64"
"""The plainest: where a processor has vector instructions, libraries use them, and emulated they are slow (a start of Python: 2.5 times)."""


@dataclass(frozen=True)
class Drives:
    """Files on this machine. `root` is read only; `disk` is the code under test."""

    kernel: Path
    initrd: Path
    root: Path
    disk: Path


def boot(drives: Drives, console: Path) -> int:
    """pytest's exit status. Raises NotPossibleError with the console's last lines when there is none."""
    began = time.monotonic()
    say("booting …")
    with subprocess.Popen(_command(drives, console), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as machine:
        try:
            return _follow(machine, began)
        except NotPossibleError as error:
            raise NotPossibleError(f"{error}. The end of its console:\n{tail(console)}") from None
        finally:
            machine.kill()


def _command(drives: Drives, console: Path) -> list[str]:
    cpus = min(2, os.cpu_count() or 1)
    return [
        *(
            "qemu-system-x86_64",
            "-M",
            "q35",
            "-accel",
            "tcg,thread=multi",
            "-cpu",
            CPU,
            "-smp",
            str(cpus),
            "-m",
            "2048",
        ),
        *("-nodefaults", "-no-user-config", "-display", "none", "-monitor", "none", "-no-reboot"),
        *("-kernel", str(drives.kernel), "-initrd", str(drives.initrd), "-append", " ".join(KERNEL_ARGUMENTS)),
        *("-drive", f"file={drives.root},format=raw,if=virtio,snapshot=on"),
        *("-drive", f"file={drives.disk},format=raw,if=virtio,cache=unsafe"),
        *("-serial", f"file:{console}", "-serial", "stdio"),
    ]


def _follow(machine: subprocess.Popen[bytes], began: float) -> int:
    status = None
    lines = Lines(machine, began + BOOT_S)
    for line in lines:
        lines.deadline = time.monotonic() + SILENCE_S
        if _UP.match(line):
            say(f"booted: {time.monotonic() - began:.0f} s")
        found = _EXIT.match(line)
        if found:
            status = int(found[1])
            lines.deadline = time.monotonic() + END_S
        else:
            print(line, flush=True)
    if status is None:
        ended = "it was ended: it said nothing for too long" if machine.poll() is None else "it ended"
        raise NotPossibleError(f"the machine told no exit status; {ended}")
    return status


class Lines:
    """What it prints, line by line, until it ends or `deadline` (time.monotonic()) has passed, which may be moved."""

    def __init__(self, machine: subprocess.Popen[bytes], deadline: float) -> None:
        assert machine.stdout is not None
        self._stream = machine.stdout.fileno()
        self.deadline = deadline

    def __iter__(self) -> Iterator[str]:
        rest = b""
        with selectors.DefaultSelector() as selector:
            selector.register(self._stream, selectors.EVENT_READ)
            while selector.select(max(0, self.deadline - time.monotonic())):
                data = os.read(self._stream, 65536)
                if not data:
                    break
                *lines, rest = (rest + data).split(b"\n")
                for line in lines:
                    yield line.decode(errors="replace").rstrip("\r")
