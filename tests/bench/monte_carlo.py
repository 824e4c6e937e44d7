"""PlanExe's Monte Carlo of one plan, 10,000 trials: generated code in this process as today, and in the jail by map.

Both draw, call and sum up: the whole step, as PlanExe would time it. They take turns, so that only the ratio matters.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from plugind_client import Client
from tests.support.planexe_example import DATA, napkin

ROUNDS = 7


@dataclass(frozen=True)
class Measured:
    """Medians, milliseconds."""

    plan: str
    in_process_ms: float
    by_map_ms: float

    @property
    def ratio(self) -> float:
        """How many times longer the jail takes."""
        return self.by_map_ms / self.in_process_ms


def measure(
    client: Client,
    folder: Path = DATA / "napkin",
    calculations: Path = DATA / "napkin/calculations.py",
    rounds: int = ROUNDS,
) -> Measured:
    """Both ways in turn. The code is loaded before, as PlanExe loads it once for a plan; the plan is read each time."""
    module, real = client.load_source(calculations, stage="premortem"), napkin.imported(calculations)
    ways = {
        "in process": lambda: napkin.run_by_call(napkin.read(folder), real),
        "by map": lambda: napkin.run_by_map(napkin.read(folder), client, module),
    }
    found = {name: way() for name, way in ways.items()}  # warm, and checked
    if json.dumps(found["in process"]) != json.dumps(found["by map"]):
        raise AssertionError("the jail gave other figures than this process: what was measured is not the same work")
    took: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            took[name].append(timed_ms(way))
    return Measured(
        found["by map"]["plan_summary"]["plan_name"],
        statistics.median(took["in process"]),
        statistics.median(took["by map"]),
    )


def timed_ms(work: Callable[[], object]) -> float:
    """How long it takes, milliseconds."""
    started = time.perf_counter()
    work()
    return (time.perf_counter() - started) * 1000
