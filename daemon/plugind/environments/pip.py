"""pip, as it fetches and unpacks wheels: whatever is in them, none of it runs."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Final

from plugind.environments import shelf
from plugind.errors import InvalidEnvironmentError

_KEPT_LINES: Final = 40
_SHOWN_LINES: Final = 8
_SHOWN_CHARS: Final = 300
_STEP = re.compile(r"(?:Collecting|Downloading|Using cached|Processing|Installing) .*")
_OF_OUR_LOCK = re.compile(r" \(from -r .*\(line [0-9]+\)\)")
"""Where pip found a requirement: in a file that is gone, with other lines than the lock."""
_NOISE = re.compile(r"(?:WARNING: Retrying|\[notice\]|DEPRECATION:)")


def install(lock: Path, target: Path, scratch: Path, wheels: Path | None, progress: Callable[[str], None]) -> None:
    """Unpack what a lock names into a folder. `scratch` is for pip's own files.

    Nobody's code runs: wheels only, nothing is compiled, and nothing resolved. Where pip looks for wheels is set in
    the machine's own configuration of it, unless they come from a folder.
    Raises InvalidEnvironmentError with what pip said, OSError.
    """
    options = ["--require-hashes", "--no-deps", "--only-binary", ":all:", "--no-compile"]
    if wheels:
        options += ["--no-index", "--find-links", str(wheels)]
    # -I: neither this folder nor a variable decides which pip is run, as root.
    command = [sys.executable, "-I", "-m", "pip", "install", "--no-input", "--disable-pip-version-check"]
    command += ["--progress-bar", "off", *options, "--target", str(target), "-r", str(lock)]
    surroundings = os.environ | {"PIP_ROOT_USER_ACTION": "ignore", "TMPDIR": str(scratch)}
    said: deque[str] = deque(maxlen=_KEPT_LINES)
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=surroundings,
        encoding="utf-8",
        errors="replace",
    )
    with process:
        try:
            for line in process.stdout or ():
                said.append(line.rstrip())
                if _STEP.match(line.strip()):
                    progress(_OF_OUR_LOCK.sub("", line.strip()))
        except BaseException:
            process.kill()
            process.wait()
            raise
    if process.returncode:
        raise _explained(list(said), wheels)


def _explained(said: list[str], wheels: Path | None) -> InvalidEnvironmentError:
    """What a person is told: pip's last words, and what to do about them."""
    lines = [_OF_OUR_LOCK.sub("", line)[:_SHOWN_CHARS] for line in said if line and not _NOISE.match(line)]
    first = next((number for number, line in enumerate(lines) if line.startswith("ERROR:")), -_SHOWN_LINES)
    lines = lines[first:][:_SHOWN_LINES]
    text = "\n".join(lines)
    if "No module named pip" in text:
        return InvalidEnvironmentError(
            f"expected pip for {sys.executable}, got none: `{sys.executable} -m ensurepip` installs it, or your "
            "distribution's package of it (python3-pip)"
        )
    remedy = "see what it says"
    if "DO NOT MATCH THE HASHES" in text:
        remedy = "a file is not the one that the lock names: find out why before you write the lock anew"
    elif "No matching distribution found" in text:
        wanted = f"for CPython {platform.python_version()} ({shelf.abi()})"
        if wheels:
            remedy = f"put a wheel of it {wanted} into {wheels}, or write the lock for this Python"
        else:
            remedy = f"there is no wheel of it {wanted}, or the index cannot be reached: --wheels DIR needs none"
    return InvalidEnvironmentError(f"expected pip to install what the lock names, but it failed: {remedy}", *lines)
