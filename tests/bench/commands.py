"""The same program by other people's commands: alone, in bwrap, firejail and crun. What one refuses here is told."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.bench.plugins import PAYLOAD

PYTHON = os.path.realpath(sys.executable)
PLAIN = "python3, no jail"
TEXT = json.dumps(PAYLOAD).encode() + b"\n"
BWRAP = "bwrap --ro-bind / / --unshare-all --die-with-parent --proc /proc --dev /dev".split()
FIREJAIL = "firejail --quiet --noprofile --net=none --caps.drop=all --nonewprivs --seccomp --".split()
UNIFIED = Path("/sys/fs/cgroup/unified")


@dataclass
class Command:
    """One command line that runs the program; `refused`: why it does not, here."""

    name: str
    line: list[str]
    refused: str = ""

    def arguments(self) -> list[str]:
        """Of the next run."""
        return self.line

    def once(self) -> None:
        """Run it. Raises CalledProcessError."""
        subprocess.run(self.arguments(), input=TEXT, capture_output=True, check=True, timeout=20)

    @contextlib.contextmanager
    def opened(self) -> Iterator[int]:
        """One that has answered and waits for the end of its input; its pid."""
        with subprocess.Popen(self.arguments(), stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(TEXT)
            process.stdin.flush()
            process.stdout.readline()
            yield process.pid

    def attempt(self) -> bool:
        """Whether it runs; else `refused` says why not."""
        if not shutil.which(self.line[0]):
            self.refused = "it is not installed (make setup installs it)"
            return False
        try:
            self.once()
        except subprocess.SubprocessError as error:
            told = getattr(error, "stderr", None) or str(error).encode()
            self.refused = " ".join(told.decode(errors="replace").split())[-200:]
            return False
        self.refused = ""
        return True


class Container(Command):
    """A container has an id, which has to be another one each time."""

    _numbers = itertools.count(1)

    def arguments(self) -> list[str]:
        return [*self.line, f"plugind-bench-{os.getpid()}-{next(self._numbers)}"]


@contextlib.contextmanager
def all_commands(program: Path) -> Iterator[list[Command]]:
    """All of them, tried once."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="plugind-bench-crun-")))
        own = [PYTHON, str(program)]
        commands = [Command(PLAIN, own), Command("bwrap", [*BWRAP, *own]), Command("firejail", [*FIREJAIL, *own])]
        for command in commands:
            command.attempt()
        yield [*commands, crun(folder, own, stack)]


def crun(folder: Path, program: list[str], stack: contextlib.ExitStack) -> Command:
    """With groups of its own where it can, as our jail has them. crun 1.8 refuses the hybrid hierarchy.

    There it gets a mount namespace in which the unified half is covered: nothing outside it changes.
    """
    write_container(folder, program)
    command = Container("crun", [])
    for prefix in ([], covered(stack)):
        for manager in ("cgroupfs", "disabled"):
            command.line = [*prefix, "crun", f"--cgroup-manager={manager}", "run", "-b", str(folder)]
            if command.attempt():
                command.name = "crun" if manager == "cgroupfs" else "crun, no groups"
                return command
        if not shutil.which("crun") or not UNIFIED.is_dir():
            break
    return command


def covered(stack: contextlib.ExitStack) -> list[str]:
    """What enters a mount namespace without the unified hierarchy, as long as `stack` is open."""
    if not shutil.which("crun") or not UNIFIED.is_dir() or os.geteuid():
        return []
    script = f"mount -t tmpfs none {UNIFIED} && echo ready && read -r _"
    holder = stack.enter_context(
        subprocess.Popen(
            ["unshare", "--mount", "--propagation", "private", "sh", "-c", script],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
    )
    assert holder.stdout is not None
    holder.stdout.readline()
    return ["nsenter", f"--mount=/proc/{holder.pid}/ns/mnt", "--"]


def write_container(folder: Path, program: list[str]) -> None:
    """An OCI bundle whose root is this machine's, read-only, as bwrap's is."""
    root = folder / "rootfs"
    root.mkdir()
    binds: list[dict[str, Any]] = []
    for path in Path("/").iterdir():
        if path.is_symlink():
            (root / path.name).symlink_to(path.readlink())
        elif path.is_dir() and path.name not in ("proc", "dev", "sys"):
            binds.append({"destination": str(path), "type": "bind", "source": str(path), "options": ["rbind", "ro"]})
    proc = {"destination": "/proc", "type": "proc", "source": "proc"}
    dev = {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"]}
    kinds = ("pid", "network", "ipc", "uts", "mount")
    config = {
        "ociVersion": "1.0.0",
        "process": {
            "terminal": False,
            "user": {"uid": 0, "gid": 0},
            "args": program,
            "env": ["PATH=/usr/bin:/bin"],
            "cwd": "/",
            "noNewPrivileges": True,
        },
        "root": {"path": "rootfs", "readonly": True},
        "mounts": [proc, dev, *binds],
        "linux": {"namespaces": [{"type": kind} for kind in kinds]},
    }
    (folder / "config.json").write_text(json.dumps(config))
