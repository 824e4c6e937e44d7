"""The floor: a loop over the launcher alone. The same template, the same steps of the jail, the same plugin and input.

What the daemon adds to it - gRPC, the gate, two records a run, schemas - is the difference. As a program it is a worker
(worker.py).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
import time
from typing import Any

from tests.bench.figures import spread
from tests.bench.plugins import CODE, PAYLOAD
from tests.bench.worker import say
from tests.support.jail import Jail, jail


async def one(jails: Jail, hold_s: float = 0) -> float:
    """One instance from start to end, milliseconds."""
    started = time.perf_counter()
    result = await jails.run(CODE, PAYLOAD | {"hold": hold_s})
    if result.outcome != "ok":
        raise RuntimeError(f"expected ok, got {result.outcome}: {result.detail}")
    return (time.perf_counter() - started) * 1000


async def load(jails: Jail, callers: int, seconds: float) -> dict[str, Any]:
    """So many at a time for so long."""
    times: list[float] = []
    began = time.monotonic()

    async def call() -> None:
        while time.monotonic() < began + seconds:
            times.append(await one(jails))

    await asyncio.gather(*(call() for _ in range(callers)))
    return {"callers": callers, "runs_per_s": len(times) / (time.monotonic() - began), **spread(times)}


async def serve() -> None:
    """Answer until the bench closes the pipe; instances that are held go on meanwhile."""
    held: list[asyncio.Task[float]] = []
    async with jail() as jails:
        await one(jails)
        say(ready=True)
        while line := await asyncio.to_thread(sys.stdin.readline):
            match json.loads(line):
                case {"do": "run"}:
                    say(ms=await one(jails))
                case {"do": "load", "callers": callers, "seconds": seconds}:
                    say(**await load(jails, callers, seconds))
                case {"do": "hold", "count": count, "seconds": seconds}:
                    held = [asyncio.create_task(one(jails, seconds)) for _ in range(count)]
                    await asyncio.sleep(0.5)
                    say(held=count)
                case {"do": "release"}:
                    await asyncio.gather(*held)
                    say(released=len(held))


if __name__ == "__main__":
    if os.geteuid():
        say(refused="a jail needs root")
    else:
        with contextlib.suppress(KeyboardInterrupt):
            asyncio.run(serve())
