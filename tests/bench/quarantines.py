"""How long it takes from the first event out of the ordinary to a quarantine that everybody can see."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from plugind_client import Client
from tests.bench.figures import percentile
from tests.bench.plugins import write_plugin
from tests.support.daemon import Daemon

HOSTILE = """
import ctypes
import time


def run(payload, context):
    print(time.time_ns(), flush=True)
    ctypes.CDLL(None).unshare(0x10000000)
    time.sleep(10)
"""
PATIENCE_S = 10.0
LOOK_S = 0.0005


def measure(trials: int) -> dict[str, float]:
    """From the act, by the hostile plugin's own clock, until the API shows the hold; a version for each trial."""
    with tempfile.TemporaryDirectory(prefix="plugind-bench-") as name, Daemon(enforce=True) as daemon:
        client = daemon.client()
        names = [f"hostile_{number}" for number in range(trials)]
        for each in names:
            daemon.install(write_plugin(Path(name), each, HOSTILE))
        took_ms = [_one(client, each, place + 1) for place, each in enumerate(names)]
    return {
        "trials": trials,
        "p50_ms": percentile(took_ms, 50),
        "p99_ms": percentile(took_ms, 99),
        "max_ms": max(took_ms),
    }


def _one(client: Client, name: str, holds: int) -> float:
    result = client.execute(name, 1)
    if result.outcome != "violation":
        raise RuntimeError(f"{name}: expected a violation, got {result.outcome} {result.outcome_detail}")
    began = time.monotonic()
    while len(client.status().holds) < holds:
        if time.monotonic() - began > PATIENCE_S:
            raise RuntimeError(f"{name} is in no quarantine after {PATIENCE_S} s")
        time.sleep(LOOK_S)
    return (time.time_ns() - int(result.stdout)) / 1_000_000
