"""A real terminal: tmux with a server of its own, that nobody else's sessions are in."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import time
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Self

import pytest

from tests.support.pace import stretched

IN_CI = os.environ.get("CI") == "true"


def needed() -> None:
    """Where there is no tmux the test is not made, and says so; in CI that is a failure."""
    if shutil.which("tmux") is None:
        why = "tmux is missing: apt-get install tmux (`make setup` does)"
        if IN_CI:
            pytest.fail(f"{why}, and in CI a test may not be skipped for lack of it", pytrace=False)
        pytest.skip(why)


class Terminal:
    """Runs one command; when that ends, its exit code is the last line. Gone with `with`."""

    def __init__(self, command: Sequence[str | Path], columns: int = 120, lines: int = 40) -> None:
        needed()
        self._server = f"plugind-test-{uuid.uuid4().hex[:12]}"
        self._command = f"{shlex.join(map(str, command))}; echo ended with $?; exec sleep 600"
        self._size = (columns, lines)

    def __enter__(self) -> Self:
        columns, lines = self._size
        self._tmux("-f", "/dev/null", "new-session", "-d", "-x", str(columns), "-y", str(lines), self._command)
        return self

    def __exit__(self, *_: object) -> None:
        self._tmux("kill-server")
        Path(os.environ.get("TMUX_TMPDIR", "/tmp"), f"tmux-{os.getuid()}", self._server).unlink(missing_ok=True)

    def _tmux(self, *arguments: str) -> str:
        environment = {name: value for name, value in os.environ.items() if name != "TMUX"} | {"LC_ALL": "C.UTF-8"}
        done = subprocess.run(
            ["tmux", "-L", self._server, *arguments], capture_output=True, text=True, env=environment, check=True
        )
        return done.stdout

    def keys(self, *keys: str) -> None:
        """Type them; names as tmux has them: Enter, Escape, Tab."""
        self._tmux("send-keys", *keys)

    def screen(self) -> str:
        """What is to be seen."""
        return self._tmux("capture-pane", "-p")

    def until(self, shows: Callable[[str], bool], seconds: float = 15) -> str:
        """The screen, as soon as that holds."""
        deadline = time.monotonic() + stretched(seconds)
        while not shows(screen := self.screen()):
            assert time.monotonic() < deadline, screen
            time.sleep(0.05)
        return screen
