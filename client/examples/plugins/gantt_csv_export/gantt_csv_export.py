"""Writes the schedule of a plan as a CSV for Gantt tools, with the columns and in the form that PlanExe has for it.

Reads from the plan: the work breakdown structure, the estimated durations, and when the plan was begun. Every task is
a row, in the order of the structure. One leaf task follows the other, and a task lasts as long as all below it. The days
of a task that nobody has estimated are an even share of what is left of its parent's, rounded up, and at least one.

PlanExe's dependencies (021-…_raw.json) do not move its schedule, and hold prompts: they are not read.
"""

from __future__ import annotations

import csv
import json
import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

FILE = "026-3-schedule_gantt_machai.csv"
START = "001-1-start_time.json"
DURATIONS = "022-2-task_durations.json"
WBS = "023-3-wbs_project_level1_and_level2_and_level3.json"
COLUMNS = (
    "project_key",
    "project_name",
    "project_description",
    "project_start_date",
    "project_end_date",
    "project_progress",
    "project_parent",
    "originating_department",
)
DEPARTMENT = "PlanExe"
TITLES = {
    "final_deliverable": "Final deliverable",
    "detailed_description": "Description",
    "resources_needed": "Resources needed",
}
"""What a task's extra fields are called in its description, in this order."""


def run(payload: dict[str, Any], context: Any) -> dict[str, Any]:
    """The plugin's entrypoint. The input has already been checked against schemas/input.json."""
    plan = Path(context.plan_dir)
    root = _read(plan, WBS)["wbs_project"]
    days = Days(_estimates(_read(plan, DURATIONS)))
    tasks = list(_placed(root, _start(payload, plan), days.of_leaves(root), ""))
    with (Path(context.output_dir) / FILE).open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(COLUMNS)
        table.writerows(_rows(tasks))
    return {
        "file": FILE,
        "tasks": len(tasks),
        "start": tasks[0].start.isoformat(),
        "end": tasks[0].end.isoformat(),
        "guessed": days.guessed,
    }


# --- what is read ----------------------------------------------------------------------------------------------------


def _read(plan: Path, name: str) -> Any:
    """Raises ValueError where the plan has no such file."""
    try:
        return json.loads((plan / name).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(f"{name}: expected this file in the plan's folder, there is none") from None


def _start(payload: dict[str, Any], plan: Path) -> date:
    if "start" in payload:
        return date.fromisoformat(payload["start"])
    return datetime.fromisoformat(_read(plan, START)["server_iso_utc"]).date()


def _estimates(durations: list[dict[str, Any]]) -> dict[str, int]:
    """Whole days by task. PlanExe writes -1 for a task that it has no estimate for."""
    found = {task["task_id"]: math.ceil(task["days_realistic"]) for task in durations}
    return {task_id: days for task_id, days in found.items() if days >= 0}


# --- when ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Placed:
    """A task with its days: from the morning of `start` to the morning of `end`."""

    task: dict[str, Any]
    start: date
    end: date
    above: str
    """What stands as its parent: the task above, and for those between the first and the last below it the one before."""


class Days:
    """How long the leaf tasks take, and of which of them nothing is known."""

    def __init__(self, estimates: dict[str, int]) -> None:
        self._estimates = estimates
        self.guessed: list[str] = []
        """Leaf tasks that neither have an estimate nor a share of one."""

    def of_leaves(self, task: dict[str, Any], share: int = 0) -> dict[str, int]:
        """Days of each leaf task at or below this one; `share` is its part of what is estimated above it."""
        children = _children(task)
        if not children:
            return {task["id"]: self._of_leaf(task["id"], share)}
        found: dict[str, int] = {}
        unknown = [child for child in children if not _children(child) and child["id"] not in self._estimates]
        for child in children:
            if _children(child) or child["id"] in self._estimates:
                found |= self.of_leaves(child)
        left = self._estimates.get(task["id"], 0) - sum(found.values())
        for child in unknown:
            found |= self.of_leaves(child, math.ceil(max(0, left) / len(unknown)))
        return found

    def _of_leaf(self, task_id: str, share: int) -> int:
        days = self._estimates.get(task_id, share)
        if task_id not in self._estimates and not share:
            self.guessed.append(task_id)
        return max(1, days)


def _placed(task: dict[str, Any], start: date, days: dict[str, int], above: str) -> Iterator[Placed]:
    """This task and all below it, in the order of the structure, one leaf after the other."""
    children, below, day = _children(task), [], start
    for number, child in enumerate(children):
        at_an_end = number in (0, len(children) - 1)
        placed = list(_placed(child, day, days, task["id"] if at_an_end else children[number - 1]["id"]))
        day = placed[0].end
        below += placed
    yield Placed(task, start, day if children else start + timedelta(days[task["id"]]), above)
    yield from below


def _children(task: dict[str, Any]) -> list[dict[str, Any]]:
    # PlanExe leaves the key out where a task has no sub-tasks.
    children: list[dict[str, Any]] = task.get("task_children", [])
    return children


# --- rows ------------------------------------------------------------------------------------------------------------


def _rows(tasks: list[Placed]) -> Iterator[tuple[str, ...]]:
    """Names that occur more than once are numbered: Gantt tools tell tasks apart by them."""
    times = Counter(each.task["description"].lower() for each in tasks)
    seen: Counter[str] = Counter()
    for each in tasks:
        title = each.task["description"]
        seen[title.lower()] += 1
        again = times[title.lower()] > 1
        name = f"{title} ({seen[title.lower()]})" if again else title
        yield (
            each.task["id"],
            name,
            _description(each.task, again),
            _day(each.start),
            _day(each.end),
            "0",
            each.above,
            DEPARTMENT,
        )


def _description(task: dict[str, Any], numbered: bool) -> str:
    """Empty where it would say what the name says already."""
    extra = task.get("extra_fields", {})
    parts = [f"{title}:\n{_text(extra[field])}" for field, title in TITLES.items() if extra.get(field)]
    return "\n\n".join([task["description"], *parts]) if parts or numbered else ""


def _text(value: str | list[str]) -> str:
    return value if isinstance(value, str) else "\n".join(f"• {item}" for item in value)


def _day(day: date) -> str:
    """3/12/2026."""
    return f"{day.month}/{day.day}/{day.year}"
