"""Writes the files of a plan up as one page of Markdown, report/plan.md.

Only the work breakdown structure has to be there. A part whose file is missing is left out, and the page says so in the
end. Texts come from a language model: what would be markup in them is escaped.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import costs
import page

FILE = "report/plan.md"
TEXT = "001-2-plan.txt"
ASSUMPTIONS = "003-4-make_assumptions.json"
DURATIONS = "022-2-task_durations.json"
WBS = "023-3-wbs_project_level1_and_level2_and_level3.json"
COST_LINES = "cost_lines.json"
RISKS_SHOWN = 5


def run(payload: dict[str, Any], context: Any) -> dict[str, Any]:
    """The plugin's entrypoint. The input has already been checked against schemas/input.json."""
    plan = Plan(Path(context.plan_dir))
    parts = [part for part in _parts(plan, payload.get("title", "")) if part]
    text = "\n\n".join([*parts, *_sources(plan)]) + "\n"
    target = Path(context.output_dir) / FILE
    target.parent.mkdir()
    target.write_text(text, encoding="utf-8")
    headings = [part.removeprefix("## ") for part in parts if part.startswith("## ")]
    return {"file": FILE, "sections": headings, "read": sorted(plan.found), "missing": sorted(plan.missing)}


class Plan:
    """The files of a plan, and which of them were there. Raises ValueError where its tasks are not."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.found: set[str] = set()
        self.missing: set[str] = set()
        if not self.has(WBS):
            raise ValueError(f"{WBS}: expected this file in the plan's folder, there is none")
        self.tree: dict[str, Any] = self.json(WBS)["wbs_project"]
        self.names = {task["id"]: task["description"] for task, _ in _walk(self.tree)}

    def has(self, name: str) -> bool:
        """Whether there is such a file. The page says which were looked for."""
        there = (self.folder / name).is_file()
        (self.found if there else self.missing).add(name)
        return there

    def text(self, name: str) -> str:
        return (self.folder / name).read_text(encoding="utf-8")

    def json(self, name: str) -> Any:
        return json.loads(self.text(name))

    def name_of(self, task_id: str) -> str:
        return self.names.get(task_id, task_id)


def _walk(task: dict[str, Any], depth: int = 0) -> Iterator[tuple[dict[str, Any], int]]:
    """The task and all below it, with how deep they lie."""
    yield task, depth
    for child in task.get("task_children", []):
        yield from _walk(child, depth + 1)


# --- parts of the page -----------------------------------------------------------------------------------------------


def _parts(plan: Plan, title: str) -> Iterator[str]:
    yield f"# {page.text(title or plan.tree['description'])}"
    if deliverable := plan.tree.get("extra_fields", {}).get("final_deliverable"):
        yield f"**Final deliverable:** {page.text(deliverable)}"
    if plan.has(TEXT):
        yield "\n".join(f"> {page.text(line)}".rstrip() for line in plan.text(TEXT).strip().splitlines())
    yield from _work(plan)
    yield from _schedule(plan)
    yield from _costs(plan)
    if plan.has(ASSUMPTIONS):
        yield "## Assumptions"
        yield page.items(
            f"**{page.text(each['question'])}** {page.text(each['assumptions'])}" for each in plan.json(ASSUMPTIONS)
        )


def _work(plan: Plan) -> Iterator[str]:
    tasks = list(_walk(plan.tree))
    leaves = sum(not task.get("task_children") for task, _ in tasks)
    yield "## Work"
    yield f"{len(tasks)} tasks, {leaves} of them without sub-tasks."
    yield "\n".join(f"{'  ' * (depth - 1)}- {page.text(task['description'])}" for task, depth in tasks[1:])


def _schedule(plan: Plan) -> Iterator[str]:
    if not plan.has(DURATIONS):
        return
    durations = plan.json(DURATIONS)
    yield "## Schedule"
    yield from _estimated(plan, durations)
    risky = [each for each in durations if each.get("delay_risks")]
    risky.sort(key=lambda each: each["days_realistic"] - each["days_max"])  # the widest first
    if risky:
        yield "### What may delay it"
        yield page.items(
            f"**{page.text(plan.name_of(each['task_id']))}** {page.text(each['delay_risks'])}"
            + (f" *Against it:* {page.text(each['mitigation_strategy'])}" if each.get("mitigation_strategy") else "")
            for each in risky[:RISKS_SHOWN]
        )


def _estimated(plan: Plan, durations: list[dict[str, Any]]) -> Iterator[str]:
    known = [each for each in durations if each["days_realistic"] >= 0]
    yield page.table(
        ("Task", "Least", "Realistic", "Most"),
        (
            (plan.name_of(each["task_id"]), *(f"{each[days]:g}" for days in ("days_min", "days_realistic", "days_max")))
            for each in known
        ),
        numbers=(1, 2, 3),
    )
    yield page.items(
        f"{page.text(plan.name_of(each['task_id']))}: no estimate" for each in durations if each not in known
    )


def _costs(plan: Plan) -> Iterator[str]:
    if not plan.has(COST_LINES):
        return
    found = costs.of_lines(plan.json(COST_LINES), plan.tree)
    yield "## Costs"
    yield f"{found.currency} {found.total:,.2f} in all; tasks without a cost: {len(found.without)}."
    rows = [
        (name, f"{amount:,.2f}", f"{amount / found.total:.0%}" if found.total else "") for name, amount in found.parts
    ]
    yield page.table(("Part", found.currency, "Share"), rows, numbers=(1, 2))
    yield page.items(f"{page.text(plan.name_of(task_id))}: no cost" for task_id in found.without)


def _sources(plan: Plan) -> Iterable[str]:
    """What the page was made of, so that nobody takes what is missing for nothing."""
    yield "---"
    yield f"Made of {_listed(plan.found)}." + (f" Not there: {_listed(plan.missing)}." if plan.missing else "")


def _listed(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in sorted(names))
