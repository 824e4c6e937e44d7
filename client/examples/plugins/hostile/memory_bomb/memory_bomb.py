"""HOSTILE. Takes memory until something stops it.

Expected: the memory limit holds for the whole tree of processes, and the run ends as `out_of_memory`. Files in the
scratch folder are memory too, but its size is limited by itself: that attack ends with "no space left" and nothing more.
Even without a jail it stops by itself at MOST_BYTES.
"""

from __future__ import annotations

import errno
import os
import time
from pathlib import Path
from typing import Any

CHUNK_BYTES = 8 * 1024 * 1024
MOST_BYTES = 512 * 1024 * 1024


def run(payload: dict[str, Any], context: Any) -> dict[str, str]:
    """The plugin's entrypoint."""
    attack = payload["attack"]
    if attack == "heap":
        _heap(MOST_BYTES)
    elif attack == "children":
        _children()
    elif attack == "files":
        return {"survived": f"files: {_files(Path(context.scratch_dir))}"}
    return {"survived": attack}


def _heap(most_bytes: int) -> None:
    taken = [bytearray(b"x" * CHUNK_BYTES) for _ in range(most_bytes // CHUNK_BYTES)]
    time.sleep(0.5 if taken else 0)


def _children() -> None:
    """Sixteen processes, none of which takes much by itself."""
    children = []
    for _ in range(16):
        pid = os.fork()
        if pid == 0:
            _heap(MOST_BYTES // 16)
            time.sleep(2)
            os._exit(0)
        children.append(pid)
    for pid in children:
        os.waitpid(pid, 0)


def _files(folder: Path) -> str:
    """Fills the scratch folder. Returns how it ended."""
    chunk = b"x" * CHUNK_BYTES
    path = folder / "full"
    try:
        with path.open("wb", buffering=0) as file:
            for _ in range(MOST_BYTES // CHUNK_BYTES):
                file.write(chunk)
    except OSError as error:
        return errno.errorcode.get(error.errno or 0, str(error.errno))
    finally:
        path.unlink(missing_ok=True)
    return "nothing stopped it"
