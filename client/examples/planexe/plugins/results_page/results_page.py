"""Writes what the stages of a plan found as one page of Markdown.

Input: the plan's text, its assumptions, and the outputs of schedule_monte_carlo, cost_breakdown and the napkin Monte Carlo.
Texts come from a language model: what would be markup in a table or a heading is escaped.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any


def run(payload: dict[str, Any], context: object) -> dict[str, str]:
    """The plugin's entrypoint. The input has already been checked against schemas/input.json."""
    parts = [
        f"# {_text(payload['costs']['tree']['description'])}",
        "\n".join(f"> {_text(line)}" for line in payload["plan"].splitlines()),
        *_schedule(payload["schedule"], payload["costs"]["tree"]),
        *_costs(payload["costs"]),
        *_monte_carlo(payload["monte_carlo"]),
        "## Assumptions",
        "\n".join(f"- **{_text(each['question'])}** {_text(each['assumptions'])}" for each in payload["assumptions"]),
    ]
    return {"markdown": "\n\n".join(part for part in parts if part) + "\n"}


def _schedule(schedule: dict[str, Any], tree: dict[str, Any]) -> Iterable[str]:
    names, days = _descriptions(tree), schedule["total_days"]
    yield "## Schedule"
    yield f"One task after another takes {days['p50']:.0f} working days, and {days['p95']:.0f} in one of twenty cases."
    rows = [
        (names.get(task["task_id"], task["task_id"]), f"{task['days']['p50']:.0f}", f"{task['share_of_variance']:.0%}")
        for task in schedule["tasks"]
    ]
    yield _table(("Task", "Days", "Share of the uncertainty"), rows)
    yield "\n".join(
        f"- {_text(names.get(each['task_id'], each['task_id']))}: {_text(each['reason'])}"
        for each in schedule["skipped"]
    )


def _costs(costs: dict[str, Any]) -> Iterable[str]:
    currency = costs["currency"]
    yield "## Costs"
    yield f"{currency} {costs['total']:,.2f} in all; tasks without a cost: {len(costs['leaf_tasks_without_cost'])}."
    rows = [
        (branch["description"], f"{branch['cost']:,.2f}", f"{branch['share']:.0%}")
        for branch in costs["tree"]["children"]
    ]
    yield _table(("Part", currency, "Share"), rows)


def _monte_carlo(found: dict[str, Any]) -> Iterable[str]:
    yield "## Will it hold?"
    yield f"{found['settings']['n_runs']:,} trials, seed {found['settings']['seed']}."
    rows = []
    for name, output in found["outputs"].items():
        wanted = found["thresholds"].get(name)
        chance = wanted and wanted["probability"]
        rows.append(
            (
                name,
                output["unit"],
                *(_number(output[key]) for key in ("p05", "p50", "p95")),
                f"{wanted['operator']} {wanted['value']}" if wanted else "",
                "" if chance is None else f"{chance:.1%}",
            )
        )
    yield _table(("Figure", "Unit", "5 %", "Median", "95 %", "Has to be", "Is in"), rows)
    yield "\n".join(f"- {_text(each['message'])}" for each in found["warnings"])


def _descriptions(task: dict[str, Any]) -> dict[str, str]:
    found = {task["id"]: task["description"]}
    for child in task["children"]:
        found |= _descriptions(child)
    return found


def _table(heads: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    heads = list(heads)
    lines = [heads, ["-"] * len(heads), *([_text(cell) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:,.4g}" if abs(value) < 1000 else f"{value:,.0f}"


def _text(value: str) -> str:
    """One line, without markup."""
    return re.sub(r"([\\`*_\[\]<>|#])", r"\\\1", " ".join(value.split()))
