"""What `make test-vm` tells the person who waits for it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

_TAIL_LINES = 40


class NotPossibleError(Exception):
    """The machine cannot be made or booted here."""


def say(text: str) -> None:
    """One line, at once."""
    print(f"test-vm: {text}", flush=True)


@contextlib.contextmanager
def phase(name: str) -> Iterator[None]:
    """Says that it begins, and how many seconds it took."""
    say(f"{name} …")
    began = time.monotonic()
    yield
    say(f"{name}: {time.monotonic() - began:.0f} s")


def run(command: Sequence[str | Path], log: Path, **environment: str) -> None:
    """Run a command; what it prints goes into `log`, and its last lines to the person if it fails. Nothing of it outlives us."""
    with (
        log.open("ab") as output,
        subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment or None,
            start_new_session=True,
        ) as process,
    ):
        try:
            code = process.wait()
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise
    if code != 0:
        raise NotPossibleError(f"{' '.join(map(str, command))[:200]} failed with status {code}:\n{tail(log)}")


def tail(log: Path) -> str:
    """Its last lines."""
    lines = log.read_text(errors="replace").splitlines() if log.exists() else []
    return "\n".join(lines[-_TAIL_LINES:])
