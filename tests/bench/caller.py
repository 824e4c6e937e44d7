"""One of the processes that call the daemon all the time, with several threads; a worker (worker.py)."""

from __future__ import annotations

import sys
import threading
import time
from typing import Any

from plugind_client import Client
from tests.bench.plugins import ECHO, PAYLOAD
from tests.bench.resources import own_cpu_ms
from tests.bench.worker import serve


def load(threads: int, seconds: float) -> dict[str, Any]:
    """Every run's time, milliseconds, and from first to last, seconds."""
    times: list[float] = []
    failures: list[str] = []
    began, cpu = time.monotonic(), own_cpu_ms()

    def call() -> None:
        while time.monotonic() < began + seconds:
            started = time.perf_counter()
            try:
                client.run(ECHO, PAYLOAD)
            except Exception as error:  # noqa: BLE001 - told, and the load goes on
                failures.append(repr(error))
            else:
                times.append((time.perf_counter() - started) * 1000)

    callers = [threading.Thread(target=call) for _ in range(threads)]
    for each in callers:
        each.start()
    for each in callers:
        each.join()
    return {
        "times_ms": [round(took, 2) for took in times],
        "seconds": time.monotonic() - began,
        "failures": len(failures),
        "failure": failures[0] if failures else "",
        "cpu_ms": own_cpu_ms() - cpu,
    }


if __name__ == "__main__":
    with Client(sys.argv[1]) as client:
        client.run(ECHO, PAYLOAD)
        serve({"load": load})
