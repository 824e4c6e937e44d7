"""Writing files that matter: whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path


def write_new(path: Path, data: bytes, mode: int) -> None:
    """A file that is not there yet. Of two that write it at once, one does.

    Raises:
        FileExistsError: it is there.
        OSError: it cannot be written; then there is none.
    """
    _written(path, data, mode, os.link)


def replace(path: Path, data: bytes) -> None:
    """The file with this content, whatever was there before.

    Raises:
        OSError: it cannot be written; then it is as before.
    """
    _written(path, data, 0o644, os.replace)


def _written(path: Path, data: bytes, mode: int, put: Callable[[Path, Path], object]) -> None:
    """Written beside, and then put where it belongs."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}")
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
        file.write(data)
    try:
        put(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
