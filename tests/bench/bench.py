"""make bench: one table, everything measured in the same minutes, taking turns, so that only ratios matter.

Each round runs every contender once; the spaced columns leave 10 ms between runs, because back-to-back loops hide what
the kernel defers. What cannot run on this machine is said below the table, with the reason.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from tests.bench import (  # noqa: E402
    contenders,
    generated,
    health,
    measure,
    monte_carlo,
    networks,
    packages,
    planfiles,
    quarantines,
    scaling,
    stopping,
    table,
    throughput,
)
from tests.bench.figures import percentile  # noqa: E402
from tests.bench.plugins import CODE, ECHO, SLEEP, write_plugin  # noqa: E402
from tests.bench.resources import tree_pss_bytes  # noqa: E402
from tests.support.daemon import Daemon  # noqa: E402

IDLE_S = 1.0
WALL_RUNS = 10
KILLS = 10


def idle() -> dict[str, float]:
    """Memory of a daemon that has run one plugin, and has nothing to do."""
    with tempfile.TemporaryDirectory(prefix="plugind-bench-") as name, Daemon() as daemon:
        daemon.install(write_plugin(Path(name), ECHO))
        daemon.client().run(ECHO, {"values": [], "text": ""})
        time.sleep(IDLE_S)
        return {"pss_bytes": tree_pss_bytes(daemon.process.pid)}


def one_daemon(options: argparse.Namespace) -> dict[str, Any]:
    """Everything that is measured beside a daemon as it is shipped."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="plugind-bench-")))
        daemon = stack.enter_context(Daemon())
        daemon.install(write_plugin(folder, ECHO, CODE))
        daemon.install(write_plugin(folder, "bench_sleep", SLEEP))
        client = daemon.client()
        found = stack.enter_context(contenders.every(folder, daemon))
        report: dict[str, Any] = {"refused": found.refusals, "runs": measure.runs(found.contenders, options.rounds)}
        say("CPU and memory")
        report["cost"] = {each.name: measure.cost(each) for each in found.contenders}
        say("throughput")
        report["throughput"] = throughput.measure(daemon, found.floor, options.seconds, options.minutes * 60)
        say("generated code")
        report["generated"] = dataclasses.asdict(generated.measure(client, folder))
        report["monte_carlo"] = dataclasses.asdict(monte_carlo.measure(client))
        say("limits and records")
        late = stopping.wall_overshoot(client, WALL_RUNS)
        report["wall_overshoot_ms"] = {
            name: {"p50": percentile(values, 50), "max": max(values)} for name, values in late.items()
        }
        report["records_per_s"] = stopping.records_per_second(daemon, 64, 3)
    return report


def parts(options: argparse.Namespace) -> dict[str, Callable[[], dict[str, Any]]]:
    """What has a daemon of its own."""
    return {
        "idle": idle,
        "packages": packages.measure,
        "networks": networks.measure,
        "files": planfiles.measure,
        "quarantine": lambda: quarantines.measure(100),
        "kill": lambda: stopping.kill_many(200, KILLS),
        "health": health.measure,
        "scaling": lambda: scaling.measure(options.plugins, options.records),
    }


def say(what: str) -> None:
    """Where it is, for whoever waits."""
    if sys.stderr.isatty():
        print(f"\r{what} …                    ", end="", file=sys.stderr)


def main() -> int:
    """Print the table; with --json, the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15, help="each with four runs of every contender, at each pace")
    parser.add_argument("--seconds", type=float, default=10, help="of throughput, for the daemon and for the bare loop")
    parser.add_argument("--minutes", type=float, default=0, help="of throughput after that, to see memory stay flat")
    parser.add_argument(
        "--plugins", type=int, default=1000, help="registered ones, where it is seen whether they matter"
    )
    parser.add_argument("--records", type=int, default=100_000, help="of the audit, for the same")
    parser.add_argument("--json", action="store_true", help="figures instead of the table")
    parser.add_argument("--output", type=Path, help="write the figures as JSON into this file too")
    options = parser.parse_args()
    began = time.monotonic()
    report = one_daemon(options)
    for name, part in parts(options).items():
        say(name)
        report[name] = part()
    report["took_s"] = time.monotonic() - began
    if options.output:
        options.output.write_text(json.dumps(report, indent=1) + "\n")
    if options.json:
        print(json.dumps(report))
    else:
        table.show(report)
    return 0


if __name__ == "__main__":
    sys.exit(main())
