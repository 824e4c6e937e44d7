"""The example plugins are what they say: their cases hold in plain Python, their schemas fit, their bundles build."""

import json
import math
import subprocess
import sys
import tomllib
from pathlib import Path

import jsonschema_rs
import pytest

from plugind.provenance import bundle

EXAMPLES = Path(__file__).parents[2] / "client/examples"
PLUGINS = EXAMPLES / "plugins"
PLAN = EXAMPLES / "data/rooftop_garden"
FRIENDLY = ("cost_breakdown", "napkin_calculations", "schedule_monte_carlo", "word_count")
OF_PLANS = ("gantt_csv_export", "markdown_report")  # what they do depends on a plan's folder: test_examples_plans.py
FOLDERS = sorted(path.parent for path in PLUGINS.rglob("plugin.toml"))
CASES = sorted(case for folder in FOLDERS for case in (folder / "cases").glob("*.json"))
WITH_OUTPUT = [case for case in CASES if case.parent.parent.name not in OF_PLANS]

# What the jail does with a plugin, without the jail: import the entrypoint, hand it the input, print the output.
CALL = """
import importlib, json, sys, types
entrypoint, interface = sys.argv[1:]
payload = json.load(sys.stdin)
module, _, function = entrypoint.partition(":")
plugin = importlib.import_module(module)
context = types.SimpleNamespace(stage="durations", plan_id="p", scratch_dir="/nonexistent")
def call(item):
    try:
        return getattr(plugin, item["function"])(**item["arguments"])
    except Exception as error:
        return {"error": {"type": type(error).__name__, "message": str(error)}}
if interface == "json":
    value = getattr(plugin, function)(payload, context)
else:
    value = [call(item) for item in payload] if isinstance(payload, list) else call(payload)
print(json.dumps(value, allow_nan=False))
"""


def ident(path):
    return path.relative_to(PLUGINS).with_suffix("").as_posix()


def manifest(folder):
    return tomllib.loads((folder / "plugin.toml").read_text())


def schema(folder, kind):
    document = json.loads((folder / manifest(folder)["schemas"][kind]).read_text())
    jsonschema_rs.meta.validate(document)
    assert document["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    return jsonschema_rs.Draft202012Validator(document)


def run(folder, payload):
    """-S: the standard library and nothing else, as in the jail. -B: no bytecode among the files of the bundle."""
    about = manifest(folder)
    entrypoint = about["entrypoint"]
    python = [sys.executable, "-S", "-B", "-c", CALL, entrypoint, about.get("interface", "json")]
    done = subprocess.run(
        python if about["runtime"] == "python" else [folder / entrypoint],
        input=json.dumps(payload),
        capture_output=True,
        text=True,
        cwd=folder,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def load(path):
    return json.loads(path.read_text())


def test_all_examples_are_there():
    names = {folder.relative_to(PLUGINS).as_posix() for folder in FOLDERS}
    wanted = {
        *FRIENDLY,
        *OF_PLANS,
        *(f"hostile/{name}" for name in {attack["plugin"] for attack in load(EXAMPLES / "hostile.json")}),
    }
    assert names == wanted
    assert {case.parent.parent for case in CASES} == set(FOLDERS), "every plugin has a case"


@pytest.mark.parametrize("case", WITH_OUTPUT, ids=ident)
def test_case_holds_without_a_jail(case):
    expected = load(case)
    assert run(case.parent.parent, expected["input"]) == expected["output"]


@pytest.mark.parametrize("case", CASES, ids=ident)
def test_schemas_accept_the_case(case):
    folder = case.parent.parent
    schema(folder, "input").validate(load(case)["input"])
    assert ("output" in load(case)) is (case in WITH_OUTPUT)
    if case in WITH_OUTPUT:
        schema(folder, "output").validate(load(case)["output"])


@pytest.mark.parametrize("folder", FOLDERS, ids=ident)
def test_bundle_builds_the_same_every_time(folder):
    data = bundle.build(folder)
    assert data == bundle.build(folder)
    read = bundle.read(data)
    assert (read.manifest.name, read.manifest.version) == (folder.name, manifest(folder)["version"])
    assert read.files["plugin.toml" if "plugin.toml" in read.files else "plugin.json"]
    program = manifest(folder)["runtime"] == "exec"
    entry = manifest(folder)["entrypoint"].partition(":")[0] + ("" if program else ".py")
    assert read.files[entry] == (folder / entry).read_bytes()
    assert read.executable == ({entry} if program else set())


@pytest.mark.parametrize(
    "attack", load(EXAMPLES / "hostile.json"), ids=lambda a: f"{a['plugin']}-{next(iter(a['input'].values()))}"
)
def test_hostile_input_is_one_that_the_plugin_knows(attack):
    folder = PLUGINS / "hostile" / attack["plugin"]
    schema(folder, "input").validate(attack["input"])


def test_escape_attempts_schema_lists_what_the_plugin_knows():
    folder = PLUGINS / "hostile/escape_attempts"
    code = (
        "import escape_attempts as e; print(*e.raw_calls.CALLS, *e.SPECIAL, *e.refusals.ATTEMPTS, 'none', 'refusals')"
    )
    known = subprocess.check_output([sys.executable, "-S", "-B", "-c", code], cwd=folder, text=True).split()
    assert sorted(load(folder / "schemas/input.json")["properties"]["attempt"]["enum"]) == sorted(known)


# --- the plan ------------------------------------------------------------------------------------------------------


def test_cost_breakdown_of_the_plan():
    folder, payload = PLUGINS / "cost_breakdown", load(PLAN / "wbs_with_costs.json")
    schema(folder, "input").validate(payload)
    output = run(folder, payload)
    schema(folder, "output").validate(output)
    assert output["total"] == pytest.approx(sum(line["amount"] for line in payload["costs"]), abs=0.001)
    assert output["total"] == pytest.approx(sum(branch["cost"] for branch in output["tree"]["children"]), abs=0.001)


def test_schedule_of_the_plan():
    folder, payload = PLUGINS / "schedule_monte_carlo", load(PLAN / "022-2-task_durations.json")
    schema(folder, "input").validate(payload)
    output = run(folder, payload)
    schema(folder, "output").validate(output)
    assert output == run(folder, payload), "the same input gives the same output"
    assert [task["reason"] for task in output["skipped"]] == ["no estimate"]


def test_napkin_calls_of_the_plan_are_its_scenarios():
    folder, calls = PLUGINS / "napkin_calculations", load(PLAN / "napkin_calls.json")
    schema(folder, "input").validate(calls)
    output = run(folder, calls)
    schema(folder, "output").validate(output)
    scenarios = load(PLAN / "napkin_scenarios.json")["scenarios"].values()
    for call in calls[:-1]:
        known = [scenario["inputs"] | scenario["outputs"] for scenario in scenarios]
        assert any(call["arguments"].items() <= values.items() for values in known), call
    expected = [value for scenario in scenarios for value in scenario["outputs"].values()]
    assert output[:-1] == expected
    assert output[-1]["error"]["type"] == "ZeroDivisionError"


def test_durations_are_of_tasks_in_the_plan():
    def ids(task):
        return {task["id"]}.union(*(ids(child) for child in task.get("task_children", [])))

    known = ids(load(PLAN / "wbs_with_costs.json")["wbs_project"])
    assert {task["task_id"] for task in load(PLAN / "022-2-task_durations.json")} <= known


# --- edges ---------------------------------------------------------------------------------------------------------


def wbs(*children):
    return {"id": "root", "description": "", "task_children": list(children)}


@pytest.mark.parametrize(
    "tree,task_id,message",
    [
        (wbs({"id": "a", "description": ""}), "b", "cost line 1: task b is not in the tree"),
        (wbs({"id": "a", "description": ""}), "root", "cost line 1: task root has sub-tasks"),
        (wbs({"id": "a", "description": ""}, {"id": "a", "description": ""}), "a", "task a occurs twice"),
    ],
)
def test_cost_that_cannot_be_placed_is_an_error(tree, task_id, message):
    payload = {"wbs_project": tree, "currency": "EUR", "costs": [{"task_id": task_id, "category": "x", "amount": 1}]}
    with pytest.raises(AssertionError, match=message):
        run(PLUGINS / "cost_breakdown", payload)


@pytest.mark.parametrize(
    "change",
    [
        {"currency": "euro"},
        {"costs": [{"task_id": "root", "category": "x", "amount": -1}]},
        {"wbs_project": wbs({"id": "a", "description": "", "task_children": [{"id": "b"}]})},
        {"extra": 1},
    ],
)
def test_input_schema_refuses(change):
    payload = {"wbs_project": wbs(), "currency": "EUR", "costs": []}
    validator = schema(PLUGINS / "cost_breakdown", "input")
    validator.validate(payload)
    assert not validator.is_valid(payload | change)


def test_percentiles_of_a_triangle():
    """The distribution has a closed form; 2,000 samples come within a few percent of it."""
    low, likely, high = 10, 20, 60
    task = {"task_id": "a", "days_min": low, "days_realistic": likely, "days_max": high}
    days = run(PLUGINS / "schedule_monte_carlo", [task])["total_days"]
    assert days["mean"] == pytest.approx((low + likely + high) / 3, rel=0.03)
    median = high - math.sqrt((high - low) * (high - likely) / 2)
    assert days["p50"] == pytest.approx(median, rel=0.03)
    assert (
        low <= days["min"] < days["p05"] < days["p25"] < days["p50"] < days["p75"] < days["p95"] < days["max"] <= high
    )
