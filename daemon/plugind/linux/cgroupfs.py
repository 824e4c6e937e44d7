"""The files of control group file systems: made, written, read and removed. All raise OSError.

With texts and descriptors, not with Path: these calls are much of what the launcher does for a run.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable
from pathlib import Path

REMOVE_TIMEOUT_S = 2.0
_NANOSECONDS = 1000


def mkdir(folder: str) -> None:
    """Make a group, unless it is there."""
    try:
        os.mkdir(folder, 0o755)
    except FileExistsError:
        if not os.path.isdir(folder):
            raise


def rmdir(folder: Path | str) -> None:
    """Remove a group, unless it is gone. Waits two seconds for its last process to be reaped."""
    deadline = time.monotonic() + REMOVE_TIMEOUT_S
    while True:
        try:
            os.rmdir(folder)
        except FileNotFoundError:
            return
        except OSError as error:
            # EBUSY: the last process is dead and not yet reaped.
            if error.errno != errno.EBUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.001)
        else:
            return


def write(path: Path | str, text: str) -> None:
    """Write a file that is there."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, text.encode())
    finally:
        os.close(descriptor)


def read(path: Path | str) -> str:
    """All that a file says."""
    # Not Path.read_text: several of these lie between a run's end and its answer.
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    text = b""
    try:
        while chunk := os.read(descriptor, 64 * 1024):
            text += chunk
    finally:
        os.close(descriptor)
    return text.decode()


def field(text: str, name: str) -> int:
    """The number in the line that begins with that word; 0 where there is none."""
    _, found, rest = f"\n{text}".partition(f"\n{name} ")
    return int(rest.partition("\n")[0]) if found else 0


def figure(read: Callable[[], int]) -> int:
    """What is read, or -1: a figure that cannot be read is not told, and never guessed."""
    try:
        return read()
    except (OSError, ValueError):
        return -1


def usage_ns(text: str) -> int:
    """Of cpu.stat, which a group of the unified hierarchy has with the controller and without."""
    return field(text, "usage_usec") * _NANOSECONDS
