"""How long will it take? Samples the durations of tasks and gives percentiles.

Input: PlanExe's task durations, an array at the root. Each task is drawn from the triangular distribution of its
days_min, days_realistic and days_max; a trial adds all tasks up, as if they were done one after another. Pass the tasks
of one level of the work breakdown structure: an array that holds a phase and its tasks counts both.

The seed is a constant, so the same input always gives the same output (`deterministic = true` in plugin.toml): whoever
audits a plan can run it again and compare.
"""

from __future__ import annotations

import math
import random
from typing import Any

TRIALS = 2000
SEED = 20260101
PERCENTILES = (5, 25, 50, 75, 95)


def run(payload: list[dict[str, Any]], context: object) -> dict[str, Any]:
    """The plugin's entrypoint. The input has already been checked against schemas/input.json."""
    estimated, skipped = _usable(payload)
    dice = random.Random(SEED)
    samples = [_sample(dice, task) for task in estimated]
    totals = [math.fsum(trial) for trial in zip(*samples, strict=True)] or [0.0]

    variances = [_variance(days) for days in samples]
    all_variance = math.fsum(variances)
    tasks = [
        {
            "task_id": task["task_id"],
            "days": _distribution(days),
            "share_of_variance": round(variance / all_variance, 4) if all_variance else 0.0,
        }
        for task, days, variance in zip(estimated, samples, variances, strict=True)
    ]
    tasks.sort(key=lambda task: -task["share_of_variance"])
    return {
        "trials": TRIALS,
        "seed": SEED,
        "total_days": _distribution(totals),
        "tasks": tasks,
        "skipped": skipped,
    }


def _usable(durations: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], list[dict[str, str]]]:
    """The tasks that can be sampled, and the others with the reason."""
    estimated: list[dict[str, Any]] = []
    skipped: list[dict[str, str]] = []
    for task in durations:
        low, likely, high = task["days_min"], task["days_realistic"], task["days_max"]
        if min(low, likely, high) < 0:
            skipped.append({"task_id": task["task_id"], "reason": "no estimate"})
        elif not low <= likely <= high:
            reason = f"expected days_min <= days_realistic <= days_max, got {low}, {likely}, {high}"
            skipped.append({"task_id": task["task_id"], "reason": reason})
        else:
            estimated.append(task)
    return estimated, skipped


def _sample(dice: random.Random, task: dict[str, Any]) -> list[float]:
    low, likely, high = task["days_min"], task["days_realistic"], task["days_max"]
    return [dice.triangular(low, high, likely) for _ in range(TRIALS)]


def _variance(days: list[float]) -> float:
    mean = math.fsum(days) / len(days)
    return math.fsum((value - mean) ** 2 for value in days) / len(days)


def _distribution(days: list[float]) -> dict[str, float]:
    ordered = sorted(days)
    figures = {"mean": math.fsum(ordered) / len(ordered), "std": math.sqrt(_variance(ordered)), "min": ordered[0]}
    figures.update({f"p{percent:02}": _percentile(ordered, percent) for percent in PERCENTILES})
    figures["max"] = ordered[-1]
    # Two digits are more than any estimate deserves, and keep the output the same on every machine.
    return {name: round(float(value), 2) for name, value in figures.items()}


def _percentile(ordered: list[float], percent: int) -> float:
    """Linear between the two nearest ranks, as numpy does by default."""
    position = (len(ordered) - 1) * percent / 100
    below = math.floor(position)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (position - below)
