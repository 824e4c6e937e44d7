"""make bench: one table, everything measured in the same minute, alternating, so that only ratios matter.

Each round runs every contender once; the spaced column leaves 10 ms between runs, because back-to-back loops hide
what the kernel defers.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from rich.console import Console  # noqa: E402
from rich.table import Table  # noqa: E402

from plugind_client import Client  # noqa: E402
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


def wall_overshoot(client: Client, rounds: int) -> list[float]:
    """How many milliseconds after its wall limit a run that would never end is answered."""
    late = []
    for _ in range(rounds):
        started = time.perf_counter()
        client.execute("bench_sleep", 1, stage="durations", timeout_ms=100)
        late.append((time.perf_counter() - started) * 1000 - 100)
    return late


def write_plugin(folder: Path, name: str, code: str) -> Path:
    """A bundle folder with schemas that allow anything."""
    target = folder / name
    (target / "schemas").mkdir(parents=True)
    (target / "plugin.toml").write_text(MANIFEST.replace("bench_echo", name))
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
        sleep = write_plugin(
            folder, "bench_sleep", "import time\ndef run(payload, context):\n    time.sleep(60 if payload else 0)\n"
        )
        (folder / "input.json").write_text(json.dumps(PAYLOAD))
        daemon.try_plugin(echo, PAYLOAD, stage="durations")
        client = daemon.client()
        daemon.try_plugin(sleep, None, stage="durations")
        found = contenders(echo, client)
        figures = {
            "back to back": measure(found, arguments.rounds, 0),
            "spaced 10 ms": measure(found, arguments.rounds, 0.01),
        }
        late = wall_overshoot(client, max(5, arguments.rounds // 6))
    report = {
        pace: {name: {"p50_ms": percentile(times, 50), "p99_ms": percentile(times, 99)} for name, times in by.items()}
        for pace, by in figures.items()
    }
    if arguments.json:
        print(json.dumps({"runs": report, "wall_overshoot_ms": {"p50": percentile(late, 50), "max": max(late)}}))
    else:
        show(report, late)
    return 0


def show(report: dict[str, dict[str, dict[str, float]]], late: list[float]) -> None:
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
    console.print(f"answered after the wall limit: p50 {percentile(late, 50):.1f} ms, max {max(late):.1f} ms")


if __name__ == "__main__":
    sys.exit(main())
