"""How fast what stops runs is, and how many records a second become durable."""

from __future__ import annotations

import asyncio
import contextlib
import re
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from plugind.audit.ledger import Ledger
from plugind.audit.records import Refused
from plugind_client import Client
from plugind_proto.v1 import governance_pb2
from tests.bench.figures import spread
from tests.bench.plugins import SLEEP, write_plugin
from tests.support.daemon import Daemon

ROOT = Path(__file__).parents[2]


def wall_overshoot(client: Client, rounds: int) -> dict[str, list[float]]:
    """How many milliseconds beyond its wall limit a run that would never end lives, and is answered."""
    late: dict[str, list[float]] = {"gone": [], "answered": []}
    for _ in range(rounds):
        started = time.perf_counter()
        result = client.execute("bench_sleep", 1, stage="durations", timeout_ms=100)
        late["answered"].append((time.perf_counter() - started) * 1000 - 100)
        late["gone"].append(result.usage.wall_ms - 100)
    return late


def kill_many(count: int, rounds: int) -> dict[str, float]:
    """With so many instances of one plugin asleep: from the kill's call until the last process was gone, and until it
    returned, milliseconds."""
    gone: list[float] = []
    called: list[float] = []
    with tempfile.TemporaryDirectory(prefix="plugind-bench-") as name:
        folder = Path(name)
        config = wide_config(folder, instances=count + 8, connections=1024)
        with Daemon("--config", str(config)) as daemon:
            daemon.install(write_plugin(folder, "bench_sleep", SLEEP, "[limits]\nwall_ms = 60000\n"))
            client, governance = daemon.client(), daemon.governance()
            for _ in range(rounds):
                with asleep(client, count):
                    began = time.perf_counter()
                    killed = governance.Kill(governance_pb2.HoldRequest(target="bench_sleep", reason="bench"))
                    called.append((time.perf_counter() - began) * 1000)
                if (killed.ended_runs, killed.unconfirmed_runs) != (count, 0):
                    raise RuntimeError(f"expected {count} runs to be ended, got {killed}")
                gone.append(killed.took_us / 1000)
                governance.LiftKill(governance_pb2.HoldRequest(target="bench_sleep", reason="bench"))
    return {
        "instances": count,
        "rounds": rounds,
        **{f"gone_{key}": value for key, value in (spread(gone) | {"max_ms": max(gone)}).items()},
        **{f"call_{key}": value for key, value in (spread(called) | {"max_ms": max(called)}).items()},
    }


@contextlib.contextmanager
def asleep(client: Client, count: int) -> Iterator[None]:
    """So many runs that sleep, all with plugin code running. They are to end in the block."""
    callers = [threading.Thread(target=client.execute, args=("bench_sleep", 1), daemon=True) for _ in range(count)]
    for caller in callers:
        caller.start()
    deadline = time.monotonic() + 40
    while sum(run.state == "running" for run in client.runs()) < count:
        if time.monotonic() > deadline:
            raise RuntimeError(f"{count} instances did not start within 40 s")
        time.sleep(0.05)
    yield
    for caller in callers:
        caller.join(10)


def records_per_second(daemon: Daemon, callers: int, seconds: float) -> dict[str, float]:
    """Durable records: through the API (a denial is one), and straight into a ledger."""
    stop = time.monotonic() + seconds
    counts = [0] * callers

    def ask(place: int) -> None:
        client = daemon.client()
        while time.monotonic() < stop:
            client.execute("bench_nothing", None)
            counts[place] += 1

    threads = [threading.Thread(target=ask, args=(place,)) for place in range(callers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return {"callers": callers, "api": sum(counts) / seconds, "ledger": asyncio.run(appended(callers, seconds))}


async def appended(callers: int, seconds: float) -> float:
    """Records per second of a ledger in this process, 1 KB each."""
    with tempfile.TemporaryDirectory(prefix="plugind-bench-") as name:
        ledger, _ = Ledger.open(Path(name), "dev")
        stop = time.monotonic() + seconds
        count = 0

        async def append() -> None:
            nonlocal count
            while time.monotonic() < stop:
                await ledger.append(Refused("bench", 0, "operator", "x" * 900))
                count += 1

        await asyncio.gather(*(append() for _ in range(callers)))
        await ledger.close()
        return count / seconds


def wide_config(folder: Path, instances: int, connections: int) -> Path:
    """A configuration with more room than the one that is shipped: for Tier 2, and for one uid's connections."""
    profiles = folder / "profiles"
    shutil.copytree(ROOT / "profiles", profiles)
    tier = profiles / "tier2.toml"
    tier.write_text(re.sub(r"(?m)^instances = \d+", f"instances = {instances}", tier.read_text()))
    config = folder / "plugind.toml"
    config.write_text(f'profiles = "{profiles}"\nconnections_per_uid = {connections}\n')
    return config
