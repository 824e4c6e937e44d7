"""Plugins in their jail over real data of PlanExe, where it is: beside the repository, or at PLUGIND_SHARED_DATA."""

import csv
import json
import math
import os
import shutil
from fractions import Fraction
from pathlib import Path

import pytest

REPO = Path(__file__).parents[2]
EXAMPLES = REPO / "client/examples/plugins"
MODULES = REPO / "tests/data/napkin"
DATA = Path(os.environ.get("PLUGIND_SHARED_DATA", REPO.parent / "shared/data"))
PLANS = (
    "20250720_faraday_enclosure",
    "20260303_crate_recovery_campaign",
    "20260425_mars_gtld",
    "20260516_datacenter_in_france",
)

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(
        not DATA.is_dir(), reason=f"PlanExe's data is not at {DATA}: set PLUGIND_SHARED_DATA to test with it"
    ),
]

NAPKIN_TOML = """
schema = 1
name = "{name}"
version = "1.0.0"
summary = "The calculations of one plan"
license = "MIT"
origin = "synthesized"
runtime = "python"
requires_python = ">=3.11"
environment = "base"
interface = "functions"
entrypoint = "calculations"
stages = ["*"]
deterministic = true
[limits]
wall_ms = 5000
cpu_ms = 2000
memory_bytes = 134217728
pids = 4
output_bytes = 65536
scratch_bytes = 1048576
[schemas]
input = "schemas/input.json"
output = "schemas/output.json"
"""


def load(path):
    return json.loads((DATA / path).read_text())


def succeeded(answer):
    assert answer["decision"] == "allow", answer["reasons"]
    assert answer["outcome"] == "ok", answer
    assert answer["violations"] == []
    return answer["output"]


# --- napkin maths: all four plans --------------------------------------------------------------------------------


def napkin_plugin(folder, plan):
    """The plan's module as a bundle, with the schemas of the example."""
    shutil.copytree(EXAMPLES / "napkin_calculations/schemas", folder / "schemas")
    shutil.copyfile(MODULES / plan / "calculations.py", folder / "calculations.py")
    (folder / "plugin.toml").write_text(NAPKIN_TOML.format(name=f"napkin_{plan}"))
    return folder


def in_rounds(calculations):
    """The calculations, each in the round in which what it depends on is known."""
    computed, waiting = set(), list(calculations)
    names = {calculation["output_name"] for calculation in calculations}
    while waiting:
        ready = [each for each in waiting if set(each["depends_on"]) & names <= computed]
        yield ready
        computed |= {each["output_name"] for each in ready}
        waiting = [each for each in waiting if each not in ready]


@pytest.mark.parametrize("plan", PLANS)
def test_napkin_outputs_equal_the_published_scenarios(plan, daemon, tmp_path):
    plugin = napkin_plugin(tmp_path, plan)
    scenarios = load(f"napkin/{plan}/scenarios.json")["scenarios"]
    assert sorted(scenarios) == ["base", "high", "low"]
    values = {name: dict(scenario["inputs"]) for name, scenario in scenarios.items()}
    compared = 0
    for ready in in_rounds(load(f"napkin/{plan}/parameters.json")["recommended_first_calculations"]):
        todo = [(name, calculation) for name in scenarios for calculation in ready]
        calls = [
            {
                "function": calculation["output_name"],
                "arguments": {key: values[name][key] for key in calculation["depends_on"]},
            }
            for name, calculation in todo
        ]
        results = succeeded(daemon.try_plugin(plugin, calls, stage="premortem", tier=2))
        for (name, calculation), result in zip(todo, results, strict=True):
            output = calculation["output_name"]
            values[name][output] = result
            assert_published(result, scenarios[name]["outputs"][output], values[name], calculation)
            compared += 1
    assert compared == sum(len(scenario["outputs"]) for scenario in scenarios.values()) == 15


def assert_published(result, published, values, calculation):
    """Whole numbers come out exactly. PlanExe rounded the others: 0.65 - 0.75 is published as -0.1 and is
    -0.09999999999999998 in binary floating point, as is anything that 128.8 went into."""
    if all(isinstance(values[key], int) for key in calculation["depends_on"]):
        assert result == published
        assert isinstance(result, int)
    else:
        assert math.isclose(result, published, rel_tol=1e-9)


# --- the silo plan -----------------------------------------------------------------------------------------------


def leaves(task):
    children = task.get("task_children", [])
    return [leaf for child in children for leaf in leaves(child)] if children else [task["id"]]


def test_silo_costs_roll_up(daemon):
    """The expected sums come from PlanExe's own flat table of the same tree, 023-4-….csv, in exact fractions."""
    tree = load("plan_silo/023-3-wbs_project_level1_and_level2_and_level3.json")
    costs = {
        leaf: round(100 + number * 7 + number % 100 / 100, 2) for number, leaf in enumerate(leaves(tree["wbs_project"]))
    }
    lines = [
        {"task_id": leaf, "category": f"c{number % 3}", "amount": costs[leaf]} for number, leaf in enumerate(costs)
    ]
    payload = tree | {"currency": "USD", "costs": lines}
    output = succeeded(daemon.try_plugin(EXAMPLES / "cost_breakdown", payload, stage="wbs_level3", tier=1))

    expected, path = {}, []
    table = DATA / "plan_silo/023-4-wbs_project_level1_and_level2_and_level3.csv"
    with table.open(newline="") as file:
        for row in csv.DictReader(file, delimiter=";"):
            level = next(index for index in range(4) if row[f"Level {index + 1}"])
            path = [*path[:level], row["Task ID"]]
            for task_id in path:
                cost = Fraction(str(costs.get(row["Task ID"], 0)))
                expected[task_id] = expected.get(task_id, 0) + cost

    def rolled_up(node):
        found = {node["id"]: Fraction(str(node["cost"]))}
        for child in node["children"]:
            found |= rolled_up(child)
        return found

    assert rolled_up(output["tree"]) == expected
    assert Fraction(str(output["total"])) == sum(Fraction(str(cost)) for cost in costs.values())
    assert (output["tasks"], output["leaf_tasks"], output["leaf_tasks_without_cost"]) == (252, 200, [])
    assert sum(Fraction(str(cost)) for cost in output["by_category"].values()) == Fraction(str(output["total"]))
    assert [each["cost"] for each in output["most_expensive"]] == sorted(costs.values(), reverse=True)[:5]


def test_silo_schedule_is_sampled(daemon):
    """The expected moments are those of the triangular distribution: closed forms, no sampling."""
    durations = load("plan_silo/022-2-task_durations.json")
    output = succeeded(daemon.try_plugin(EXAMPLES / "schedule_monte_carlo", durations, stage="durations", tier=2))

    estimated = [task for task in durations if task["days_min"] >= 0]
    assert [task["task_id"] for task in output["skipped"]] == [t["task_id"] for t in durations if t["days_min"] == -1]
    assert {task["task_id"] for task in output["tasks"]} == {task["task_id"] for task in estimated}

    corners = {task["task_id"]: (task["days_min"], task["days_realistic"], task["days_max"]) for task in estimated}
    means = {key: sum(abc) / 3 for key, abc in corners.items()}
    variances = {key: (a * a + b * b + c * c - a * b - a * c - b * c) / 18 for key, (a, b, c) in corners.items()}
    total, mean, std = output["total_days"], sum(means.values()), math.sqrt(sum(variances.values()))
    assert abs(total["mean"] - mean) < 5 * std / math.sqrt(output["trials"])
    assert total["std"] == pytest.approx(std, rel=0.1)
    # A sum of fifty independent terms is nearly normal.
    assert total["p50"] == pytest.approx(mean, abs=0.15 * std)
    assert total["p95"] == pytest.approx(mean + 1.645 * std, abs=0.15 * std)
    assert (
        sum(a for a, _, _ in corners.values()) <= total["min"] <= total["max"] <= sum(c for _, _, c in corners.values())
    )
    for task in output["tasks"]:
        low, _, high = corners[task["task_id"]]
        spread = math.sqrt(variances[task["task_id"]])
        assert low <= task["days"]["min"] <= task["days"]["p50"] <= task["days"]["max"] <= high
        assert task["days"]["mean"] == pytest.approx(
            means[task["task_id"]], abs=5 * spread / math.sqrt(output["trials"]) + 0.005
        )
        assert task["share_of_variance"] == pytest.approx(variances[task["task_id"]] / std**2, rel=0.2, abs=0.002)


def test_silo_schedule_is_the_same_again(daemon):
    durations = load("plan_silo/022-2-task_durations.json")
    first, second = (
        succeeded(daemon.try_plugin(EXAMPLES / "schedule_monte_carlo", durations, stage="durations", tier=2))
        for _ in range(2)
    )
    assert first == second
