"""Programs that are measured from outside and do their work on request: one JSON object a line, each way.

A process of its own is small and single-threaded: what forks is not slowed down by the size of the bench.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self

ROOT = Path(__file__).parents[2]


class Worker:
    """The bench's end. `refused` says why it cannot work; empty: it can."""

    def __init__(self, module: str, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", f"tests.bench.{module}", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        self.refused: str = self.hear().get("refused", "")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def pid(self) -> int:
        """Its process."""
        return self.process.pid

    def tell(self, do: str, **fields: object) -> None:
        """Ask, without waiting for the answer."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"do": do, **fields}) + "\n")
        self.process.stdin.flush()

    def hear(self) -> dict[str, Any]:
        """The next answer."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.process.args}: ended with {self.process.wait()} instead of an answer")
        return json.loads(line)

    def ask(self, do: str, **fields: object) -> dict[str, Any]:
        """Ask, and its answer."""
        self.tell(do, **fields)
        return self.hear()

    def close(self) -> None:
        """Let it end."""
        for stream in (self.process.stdin, self.process.stdout):
            with contextlib.suppress(OSError):
                stream.close()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def say(**fields: object) -> None:
    """The worker's end: one answer."""
    print(json.dumps(fields), flush=True)


def serve(able: Mapping[str, Callable[..., dict[str, Any]]]) -> None:
    """Answer until the bench closes the pipe."""
    say(ready=True)
    for line in sys.stdin:
        fields = json.loads(line)
        say(**able[fields.pop("do")](**fields))
