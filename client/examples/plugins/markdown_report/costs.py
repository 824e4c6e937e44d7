"""What a plan costs, by its parts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Costs:
    """Amounts in `currency`."""

    currency: str
    total: float
    parts: list[tuple[str, float]]
    """Of each task right below the root."""
    without: list[str]
    """Leaf tasks that have no line."""


def of_lines(given: dict[str, Any], tree: dict[str, Any]) -> Costs:
    """From cost_lines.json, in whole cents. Raises ValueError for a line of a task that is not in the tree."""
    cents: Counter[str] = Counter()
    for line in given["costs"]:
        cents[line["task_id"]] += round(line["amount"] * 100)
    known = {task["id"] for task in _below(tree)}
    if strangers := sorted(cents.keys() - known):
        raise ValueError(f"cost_lines.json: expected tasks of the plan, got {strangers[0]}")
    parts = [
        (branch["description"], sum(cents[task["id"]] for task in _below(branch)) / 100)
        for branch in tree.get("task_children", [])
    ]
    leaves = [task["id"] for task in _below(tree) if not task.get("task_children")]
    without = [task_id for task_id in leaves if task_id not in cents]
    return Costs(given["currency"], cents.total() / 100, parts, without)


def _below(task: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield task
    for child in task.get("task_children", []):
        yield from _below(child)
