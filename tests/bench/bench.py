"""make bench: one table, everything measured in the same minute, alternating, so that only ratios matter.

Each round runs every contender once; the spaced column leaves 10 ms between runs, because back-to-back loops hide
what the kernel defers.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from rich.console import Console  # noqa: E402
from rich.table import Table  # noqa: E402

from plugind.audit.ledger import Ledger  # noqa: E402
from plugind.audit.records import Refused  # noqa: E402
from plugind_client import Client  # noqa: E402
from plugind_proto.v1 import governance_pb2  # noqa: E402
from tests.bench import generated, monte_carlo  # noqa: E402
from tests.support.daemon import Daemon  # noqa: E402

CODE = """import json, sys
def run(payload, context):
    return {"total": sum(payload["values"]), "text": payload["text"]}
if __name__ == "__main__":
    print(json.dumps(run(json.load(sys.stdin), None)))
"""
MANIFEST = """schema = 1
name = "bench_echo"
version = "1.0.0"
summary = "Adds numbers"
license = "MIT"
origin = "authored"
runtime = "python"
requires_python = ">=3.11"
environment = "base"
interface = "json"
entrypoint = "bench_echo:run"
stages = ["*"]
deterministic = true
"""
SLEEP = "import time\ndef run(payload, context):\n    time.sleep(60 if payload else 0)\n"
PAYLOAD = {"values": list(range(100)), "text": "x" * 600}  # about 1 KB
OURS = "plugind Run"
BWRAP = "bwrap python3 plugin.py"
PLAIN = "python3 plugin.py"


def contenders(folder: Path, client: Client) -> dict[str, Callable[[], object]]:
    """What is compared, by the name the table shows."""
    plugin = folder / "bench_echo.py"
    text = json.dumps(PAYLOAD).encode()
    python = os.path.realpath(sys.executable)

    def outside(*command: str) -> Callable[[], object]:
        return lambda: subprocess.run(command, input=text, capture_output=True, check=True)

    found: dict[str, Callable[[], object]] = {
        OURS: lambda: client.run("bench_echo", PAYLOAD, stage="durations"),
        PLAIN: outside(python, str(plugin)),
    }
    if shutil.which("bwrap"):
        wrap = (
            "bwrap",
            "--ro-bind",
            "/",
            "/",
            "--unshare-all",
            "--die-with-parent",
            "--proc",
            "/proc",
            "--dev",
            "/dev",
        )
        found[BWRAP] = outside(*wrap, python, str(plugin))
    else:
        print("bwrap is not installed: it is missing from the table (make setup installs it)", file=sys.stderr)
    return found


def measure(found: dict[str, Callable[[], object]], rounds: int, gap_s: float) -> dict[str, list[float]]:
    """Milliseconds of every run, contenders taking turns."""
    times: dict[str, list[float]] = {name: [] for name in found}
    for number in range(rounds + 3):
        for name, run in found.items():
            time.sleep(gap_s)
            started = time.perf_counter()
            run()
            if number >= 3:  # the first rounds warm caches for all
                times[name].append((time.perf_counter() - started) * 1000)
        if sys.stderr.isatty():
            print(f"\r{number + 1}/{rounds + 3} rounds", end="", file=sys.stderr)
    return times


def percentile(values: list[float], percent: int) -> float:
    """Of at least two values."""
    return statistics.quantiles(values, n=100, method="inclusive")[percent - 1]


def wall_overshoot(client: Client, rounds: int) -> dict[str, list[float]]:
    """How many milliseconds beyond its wall limit a run that would never end lives, and is answered."""
    late: dict[str, list[float]] = {"gone": [], "answered": []}
    for _ in range(rounds):
        started = time.perf_counter()
        result = client.execute("bench_sleep", 1, stage="durations", timeout_ms=100)
        late["answered"].append((time.perf_counter() - started) * 1000 - 100)
        late["gone"].append(result.usage.wall_ms - 100)
    return late


def kill_many(count: int) -> dict[str, float]:
    """From the call of the kill switch to its return, with so many instances of one plugin asleep."""
    with tempfile.TemporaryDirectory(prefix="plugind-bench-") as name:
        folder = Path(name)
        profiles = folder / "profiles"
        shutil.copytree(ROOT / "profiles", profiles)
        tier = profiles / "tier2.toml"
        tier.write_text(re.sub(r"(?m)^instances = \d+", f"instances = {count + 8}", tier.read_text()))
        (folder / "plugind.toml").write_text(f'profiles = "{profiles}"\nconnections_per_uid = 1024\n')
        with Daemon("--config", str(folder / "plugind.toml")) as daemon:
            daemon.install(write_plugin(folder, "bench_sleep", SLEEP, "[limits]\nwall_ms = 60000\n"))
            client = daemon.client()
            callers = [
                threading.Thread(target=client.execute, args=("bench_sleep", 1), daemon=True) for _ in range(count)
            ]
            for caller in callers:
                caller.start()
            deadline = time.monotonic() + 40
            while sum(run.state == "running" for run in client.runs()) < count:
                if time.monotonic() > deadline:
                    raise RuntimeError(f"{count} instances did not start within 40 s")
                time.sleep(0.05)
            began = time.perf_counter()
            killed = daemon.governance().Kill(governance_pb2.HoldRequest(target="bench_sleep", reason="bench"))
            took_ms = (time.perf_counter() - began) * 1000
            for caller in callers:
                caller.join(10)
        if (killed.ended_runs, killed.unconfirmed_runs) != (count, 0):
            raise RuntimeError(f"expected {count} runs to be ended, got {killed}")
        return {"instances": count, "call_ms": took_ms, "last_process_gone_ms": killed.took_us / 1000}


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


def write_plugin(folder: Path, name: str, code: str, limits: str = "") -> Path:
    """A bundle folder with schemas that allow anything."""
    target = folder / name
    (target / "schemas").mkdir(parents=True)
    (target / "plugin.toml").write_text(MANIFEST.replace("bench_echo", name) + limits)
    (target / f"{name}.py").write_text(code)
    for schema in ("input", "output"):
        (target / "schemas" / f"{schema}.json").write_text("{}")
    return target


def main() -> int:
    """Print the table; with --json, the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="plugind-bench-") as name, Daemon() as daemon:
        folder = Path(name)
        echo = write_plugin(folder, "bench_echo", CODE)
        sleep = write_plugin(folder, "bench_sleep", SLEEP)
        (folder / "input.json").write_text(json.dumps(PAYLOAD))
        daemon.install(echo)
        client = daemon.client()
        daemon.install(sleep)
        found = contenders(echo, client)
        figures = {
            "back to back": measure(found, arguments.rounds, 0),
            "spaced 10 ms": measure(found, arguments.rounds, 0.01),
        }
        calls = generated.measure(client, folder)
        trials = monte_carlo.measure(client)
        late = wall_overshoot(client, max(5, arguments.rounds // 6))
        rate = records_per_second(daemon, 64, 3)
    killed = kill_many(200)
    report = {
        pace: {name: {"p50_ms": percentile(times, 50), "p99_ms": percentile(times, 99)} for name, times in by.items()}
        for pace, by in figures.items()
    }
    if arguments.json:
        overshoot = {name: {"p50": percentile(values, 50), "max": max(values)} for name, values in late.items()}
        print(
            json.dumps(
                {
                    "runs": report,
                    "generated": dataclasses.asdict(calls),
                    "monte_carlo": dataclasses.asdict(trials),
                    "wall_overshoot_ms": overshoot,
                    "records_per_s": rate,
                    "kill": killed,
                }
            )
        )
    else:
        show(report, late)
        print(
            f"generated code: {calls.session_calls_per_s:.0f} calls/s in a session"
            f" ({calls.session_calls_per_s / calls.echo_calls_per_s:.2f} of a bare gRPC echo),"
            f" {calls.session_calls_ahead_per_s:.0f} when sent ahead,"
            f" {calls.map_evaluations_per_s:.0f} evaluations/s by map"
            f" ({calls.map_evaluations_per_s / calls.in_process_evaluations_per_s:.2f} of in-process)"
        )
        print(
            f"Monte Carlo of 10,000 trials ({trials.plan}): {trials.by_map_ms:.0f} ms by map,"
            f" {trials.in_process_ms:.0f} ms in process: {trials.ratio:.2f} times"
        )
        print(
            f"durable records per second, 64 callers: {rate['api']:.0f} through the API, {rate['ledger']:.0f} straight"
        )
        print(
            f"kill switch, {killed['instances']} instances: last process gone after"
            f" {killed['last_process_gone_ms']:.0f} ms, the call took {killed['call_ms']:.0f} ms"
        )
    return 0


def show(report: dict[str, dict[str, dict[str, float]]], late: dict[str, list[float]]) -> None:
    """The table for people."""
    table = Table(title="One run, 1 KB in and out; ratio: its p50 by ours")
    for column in ("pace", "what", "p50 ms", "p99 ms", "ratio"):
        table.add_column(column, justify="left" if column in ("pace", "what") else "right")
    for pace, by in report.items():
        for name, row in by.items():
            ratio = row["p50_ms"] / by[OURS]["p50_ms"]
            table.add_row(pace, name, f"{row['p50_ms']:.2f}", f"{row['p99_ms']:.2f}", f"{ratio:.2f}")
    console = Console(width=100)
    console.print(table)
    for name, values in (
        ("its last process is gone", late["gone"]),
        ("it is answered, start included", late["answered"]),
    ):
        console.print(f"after the wall limit {name}: p50 {percentile(values, 50):.1f} ms, max {max(values):.1f} ms")


if __name__ == "__main__":
    sys.exit(main())
