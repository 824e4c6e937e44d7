"""sandlock over the same program, as a worker (worker.py): it forks, so it is not done in the bench's own process."""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any

from tests.bench.plugins import PAYLOAD
from tests.bench.worker import say, serve

PROGRAM = sys.argv[1]


def refusal() -> str:
    """Why it cannot be measured here; empty: it can."""
    try:
        import sandlock  # noqa: F401 - may be missing
    except ImportError as error:
        return f"{error} (make bench installs it)"
    try:
        run()
    except Exception as error:  # noqa: BLE001 - whatever it is, it is told
        return str(error) or repr(error)
    return ""


def opened() -> Any:
    """One process that has its input and has answered it."""
    import sandlock

    piped = sandlock.StdioMode.PIPED
    box = sandlock.Sandbox(fs_readable=["/"], max_memory="256M", max_processes=32)
    process = box.popen([os.path.realpath(sys.executable), PROGRAM], stdin=piped, stdout=piped, stderr=piped)
    process.stdin.write(json.dumps(PAYLOAD).encode() + b"\n")
    answer = b""
    while not answer.endswith(b"\n"):
        part = process.stdout.read(65536)
        if not part:
            raise RuntimeError(f"expected an answer, got {process.stderr.read()[-300:]!r}")
        answer += part
    return process


def run() -> dict[str, Any]:
    """One run, milliseconds."""
    started = time.perf_counter()
    finish(opened())
    return {"ms": (time.perf_counter() - started) * 1000}


def finish(process: Any) -> None:
    """Let it end."""
    process.stdin.close()
    process.wait()
    process.stdout.close()
    process.stderr.close()


held: list[Any] = []


def hold(count: int, seconds: float) -> dict[str, Any]:
    """So many that stay until `release`."""
    held.extend(opened() for _ in range(count))
    return {"held": count}


def release() -> dict[str, Any]:
    """Those that were held end."""
    for process in held:
        finish(process)
    return {"released": len(held)}


if __name__ == "__main__":
    if why := refusal():
        say(refused=why)
    else:
        serve({"run": run, "hold": hold, "release": release})
