"""Rolls task costs up a work breakdown structure (WBS).

Input: PlanExe's WBS (`wbs_project`, a tree through `task_children`), a currency, and cost lines for its leaf tasks.
Output: the same tree with the cost of every branch, totals by category, and what has no cost yet.

Money is added in whole cents, because binary fractions of a currency do not add up (0.1 + 0.2 != 0.3).
What cannot be placed is an error and never dropped: the run then ends as "failed" and says which line it was.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

MOST_EXPENSIVE = 5


def run(payload: dict[str, Any], context: object) -> dict[str, Any]:
    """The plugin's entrypoint. The input has already been checked against schemas/input.json."""
    root = payload["wbs_project"]
    tasks = _tasks_by_id(root)
    leaves = {task_id: task for task_id, task in tasks.items() if not _children(task)}
    cents_by_task, cents_by_category = _add_lines(payload["costs"], tasks, leaves)

    total = cents_by_task.total()
    dearest = [item for item in cents_by_task.most_common(MOST_EXPENSIVE) if item[1] > 0]
    return {
        "currency": payload["currency"],
        "total": _amount(total),
        "by_category": {name: _amount(cents) for name, cents in sorted(cents_by_category.items())},
        "tasks": len(tasks),
        "leaf_tasks": len(leaves),
        "leaf_tasks_without_cost": [task_id for task_id in leaves if task_id not in cents_by_task],
        "most_expensive": [
            {"id": task_id, "description": tasks[task_id]["description"], "cost": _amount(cents)}
            for task_id, cents in dearest
        ],
        "tree": _rolled_up(root, cents_by_task, total)[0],
    }


def _children(task: dict[str, Any]) -> list[dict[str, Any]]:
    # PlanExe leaves the key out where a task has no sub-tasks.
    children: list[dict[str, Any]] = task.get("task_children", [])
    return children


def _tasks_by_id(root: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Every task of the tree by its id, in the order of the tree. Raises ValueError where an id occurs twice."""
    tasks: dict[str, dict[str, Any]] = {}
    waiting = [root]
    while waiting:
        task = waiting.pop()
        if task["id"] in tasks:
            raise ValueError(f"task {task['id']} occurs twice in the work breakdown structure")
        tasks[task["id"]] = task
        waiting.extend(reversed(_children(task)))
    return tasks


def _add_lines(
    lines: list[dict[str, Any]], tasks: dict[str, Any], leaves: dict[str, Any]
) -> tuple[Counter[str], Counter[str]]:
    """Cents by task and cents by category. Raises ValueError for a line that belongs to no leaf task."""
    by_task: Counter[str] = Counter()
    by_category: Counter[str] = Counter()
    for number, line in enumerate(lines, start=1):
        task_id = line["task_id"]
        if task_id not in leaves:
            why = "has sub-tasks: put the cost on one of them" if task_id in tasks else "is not in the tree"
            raise ValueError(f"cost line {number}: task {task_id} {why}")
        cents = round(line["amount"] * 100)
        by_task[task_id] += cents
        by_category[line["category"]] += cents
    return by_task, by_category


def _rolled_up(task: dict[str, Any], cents_by_task: Counter[str], total: int) -> tuple[dict[str, Any], int]:
    """The branch below `task` with its costs, and its cents."""
    below = [_rolled_up(child, cents_by_task, total) for child in _children(task)]
    cents = cents_by_task[task["id"]] + sum(branch_cents for _, branch_cents in below)
    node = {
        "id": task["id"],
        "description": task["description"],
        "cost": _amount(cents),
        "share": round(cents / total, 6) if total else 0.0,
        "children": [branch for branch, _ in below],
    }
    return node, cents


def _amount(cents: int) -> float:
    return cents / 100
