"""The example plugins of files of a plan, without a jail: what they make of a plan's folder, and nothing else is touched."""

import csv
import json
import shutil
import subprocess
import sys
import tomllib
from datetime import date
from pathlib import Path

import jsonschema_rs
import pytest

from plugind import planfiles
from plugind.provenance import bundle
from tests.support.napkin_plans import NAPKIN, published

EXAMPLES = Path(__file__).parents[2] / "client/examples"
GANTT = EXAMPLES / "plugins/gantt_csv_export"
REPORT = EXAMPLES / "plugins/markdown_report"
PLAN = EXAMPLES / "planexe/data"
SILO = NAPKIN.parent / "plan_silo"
CSV = "026-3-schedule_gantt_machai.csv"
WBS = "023-3-wbs_project_level1_and_level2_and_level3.json"

# What the jail does with such a plugin, without the jail.
CALL = """
import importlib, json, sys, types
entrypoint, plan_dir, output_dir = sys.argv[1:]
module, _, function = entrypoint.partition(":")
plugin = importlib.import_module(module)
context = types.SimpleNamespace(
    stage="report", plan_id="p", scratch_dir="/nonexistent", plan_dir=plan_dir, output_dir=output_dir
)
print(json.dumps(getattr(plugin, function)(json.load(sys.stdin), context), allow_nan=False))
"""


def manifest(folder):
    return tomllib.loads((folder / "plugin.toml").read_text())


def patterns(folder, kind):
    return [each["path"] for each in manifest(folder)["permissions"][kind]]


def listed(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def granted(folder, plan, target):
    """A copy of what the plugin's patterns mean of a plan's folder."""
    target.mkdir()
    for path in listed(plan):
        if planfiles.matches(path, patterns(folder, "file_read")):
            shutil.copy(plan / path, target / path)
    return target


def called(folder, plan, output, payload):
    """-S: the standard library and nothing else, as in the jail. -B: no bytecode among the files of the bundle."""
    output.mkdir()
    return subprocess.run(
        [sys.executable, "-S", "-B", "-c", CALL, manifest(folder)["entrypoint"], plan, output],
        input=json.dumps(payload),
        capture_output=True,
        text=True,
        cwd=folder,
        timeout=60,
        check=False,
    )


def run(folder, plan, tmp_path, payload=None):
    """What it answers and the folder that it wrote to, when it sees what it was granted of `plan` and no more."""
    validator(folder, "input").validate(payload or {})
    done = called(folder, granted(folder, plan, tmp_path / "granted"), tmp_path / "output", payload or {})
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    validator(folder, "output").validate(answer)
    written = listed(tmp_path / "output")
    assert [path for path in written if not planfiles.matches(path, patterns(folder, "file_write"))] == []
    assert written == [answer["file"]]
    return answer, tmp_path / "output"


def validator(folder, kind):
    document = json.loads((folder / manifest(folder)["schemas"][kind]).read_text())
    jsonschema_rs.meta.validate(document)
    return jsonschema_rs.Draft202012Validator(document)


def small_plan(folder, tree, durations, start="2026-01-30T23:00:00Z"):
    folder.mkdir()
    (folder / WBS).write_text(json.dumps({"wbs_project": tree}))
    (folder / "022-2-task_durations.json").write_text(
        json.dumps(
            [{"task_id": task, "days_min": 0, "days_max": 99, "days_realistic": durations[task]} for task in durations]
        )
    )
    (folder / "001-1-start_time.json").write_text(json.dumps({"server_iso_utc": start}))
    return folder


def task(name, *children, **extra):
    return {"id": name, "description": name, "extra_fields": extra, "task_children": list(children)}


def rows(output):
    with (output / CSV).open(newline="") as file:
        return {row["project_key"]: row for row in csv.DictReader(file)}


def dates(output):
    return {key: (row["project_start_date"], row["project_end_date"]) for key, row in rows(output).items()}


# --- both ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("folder", [GANTT, REPORT], ids=lambda folder: folder.name)
def test_it_asks_for_files_of_the_plan_without_prompts_and_builds(folder):
    read = bundle.read(bundle.build(folder))
    assert read.manifest.name == folder.name
    assert {each.kind for each in read.manifest.permissions} == {"file_read", "file_write"}
    assert not planfiles.matches("021-task_dependencies_raw.json", patterns(folder, "file_read"))
    asked = [path for path in listed(PLAN) if planfiles.matches(path, patterns(folder, "file_read"))]
    assert sorted(asked) == sorted(patterns(folder, "file_read")), "the example plan has all that it can read"


@pytest.mark.parametrize("folder", [GANTT, REPORT], ids=lambda folder: folder.name)
def test_a_plan_without_tasks_is_an_error_that_names_the_file(folder, tmp_path):
    (tmp_path / "plan").mkdir()
    done = called(folder, tmp_path / "plan", tmp_path / "output", {})
    assert done.returncode == 1
    assert f"ValueError: {WBS}: expected this file in the plan's folder, there is none" in done.stderr
    assert listed(tmp_path / "output") == []


@pytest.mark.parametrize("folder", [GANTT, REPORT], ids=lambda folder: folder.name)
def test_the_same_plan_gives_the_same_file(folder, tmp_path):
    made = []
    for turn in ("one", "two"):
        (tmp_path / turn).mkdir()
        answer, output = run(folder, PLAN, tmp_path / turn)
        made.append((answer, (output / answer["file"]).read_bytes()))
    assert made[0] == made[1]


# --- gantt_csv_export ------------------------------------------------------------------------------------------------


@published
def test_the_table_of_a_whole_plan_is_planexes_own_byte_for_byte(tmp_path):
    answer, output = run(GANTT, SILO, tmp_path)
    assert (output / CSV).read_bytes() == (SILO / CSV).read_bytes()
    assert answer == answer | {"tasks": 252, "start": "2026-03-12", "end": "2063-10-23"}
    assert len(answer["guessed"]) == 5


def test_one_task_follows_the_other_and_a_branch_lasts_as_long_as_what_is_below(tmp_path):
    answer, output = run(GANTT, PLAN, tmp_path)
    found = rows(output)
    assert answer["tasks"] == len(found) == 12
    tree = json.loads((PLAN / WBS).read_text())["wbs_project"]
    assert next(iter(found)) == tree["id"]
    assert found[tree["id"]]["project_end_date"] == "10/31/2027"
    assert (answer["start"], answer["end"]) == ("2026-12-01", "2027-10-31")
    days = [each["days_realistic"] for each in json.loads((PLAN / "022-2-task_durations.json").read_text())]
    took = date.fromisoformat(answer["end"]) - date.fromisoformat(answer["start"])
    assert took.days == sum(max(1, each) for each in days)
    (guessed,) = answer["guessed"]
    assert found[guessed]["project_name"] == "Open the line"


def test_what_is_left_of_a_tasks_days_is_shared_by_what_has_none(tmp_path):
    tree = task("root", task("a", task("a1"), task("a2"), task("a3")), task("b", task("b1"), task("b2")), task("c"))
    plan = small_plan(tmp_path / "plan", tree, {"a": 10, "a2": 3, "b": 5, "b1": 9, "c": -1})
    answer, output = run(GANTT, plan, tmp_path)
    assert dates(output) == {
        "root": ("1/30/2026", "2/21/2026"),
        "a": ("1/30/2026", "2/10/2026"),
        "a1": ("1/30/2026", "2/3/2026"),  # (10 - 3) / 2, rounded up
        "a2": ("2/3/2026", "2/6/2026"),
        "a3": ("2/6/2026", "2/10/2026"),
        "b": ("2/10/2026", "2/20/2026"),
        "b1": ("2/10/2026", "2/19/2026"),
        "b2": ("2/19/2026", "2/20/2026"),  # nothing is left, and nothing takes less than a day
        "c": ("2/20/2026", "2/21/2026"),
    }
    assert answer["guessed"] == ["b2", "c"]


def test_the_first_and_the_last_task_name_the_one_above_and_all_others_the_one_before(tmp_path):
    plan = small_plan(tmp_path / "plan", task("root", task("a"), task("b"), task("c"), task("d")), {})
    _, output = run(GANTT, plan, tmp_path)
    parents = {key: row["project_parent"] for key, row in rows(output).items()}
    assert parents == {"root": "", "a": "root", "b": "a", "c": "b", "d": "root"}


def test_a_name_that_occurs_again_is_numbered_whatever_its_case(tmp_path):
    again = task("3") | {"description": "dig"}
    plan = small_plan(tmp_path / "plan", task("root", task("1") | {"description": "Dig"}, task("2"), again), {})
    _, output = run(GANTT, plan, tmp_path)
    told = [(row["project_name"], row["project_description"]) for row in rows(output).values()]
    assert told == [("root", ""), ("Dig (1)", "Dig"), ("2", ""), ("dig (2)", "dig")]


def test_texts_with_commas_quotes_and_lines_come_back_as_they_were(tmp_path):
    tree = task("root", detailed_description='Say "yes",\nthen\n dig', resources_needed=["a, b", "ü"])
    _, output = run(GANTT, small_plan(tmp_path / "plan", tree, {}), tmp_path)
    text = 'root\n\nDescription:\nSay "yes",\nthen\n dig\n\nResources needed:\n• a, b\n• ü'
    assert rows(output)["root"]["project_description"] == text


def test_another_first_day_may_be_given_and_then_needs_no_file(tmp_path):
    plan = small_plan(tmp_path / "plan", task("root"), {"root": 2.5})
    (plan / "001-1-start_time.json").unlink()
    answer, _ = run(GANTT, plan, tmp_path, {"start": "2028-02-28"})
    assert (answer["start"], answer["end"]) == ("2028-02-28", "2028-03-02")
    assert not validator(GANTT, "input").is_valid({"start": "28.2.2028"})


# --- markdown_report -------------------------------------------------------------------------------------------------


def test_the_page_has_all_that_the_plan_has(tmp_path):
    answer, output = run(REPORT, PLAN, tmp_path)
    page = (output / "report/plan.md").read_text()
    assert answer["sections"] == ["Work", "Schedule", "Costs", "Assumptions"]
    assert answer["missing"] == []
    assert page.startswith("# Electric Night Bus for the Upper Valley\n\n**Final deliverable:** A bus each hour")
    assert "12 tasks, 8 of them without sub-tasks." in page
    assert "| Buy the bus | 90 | 130 | 240 |" in page
    assert "- Open the line: no estimate" in page
    assert "EUR 441,851.50 in all; tasks without a cost: 1." in page
    assert "| Vehicle and Charging | 412,800.25 | 93% |" in page
    assert page.endswith("`cost_lines.json`.\n")
    assert "\n\n\n" not in page


def test_a_part_whose_file_is_missing_is_left_out_and_the_page_says_so(tmp_path):
    plan = small_plan(tmp_path / "plan", task("root", task("a")), {"a": 3})
    answer, output = run(REPORT, plan, tmp_path, {"title": "Another"})
    assert answer["sections"] == ["Work", "Schedule"]
    assert answer["missing"] == ["001-2-plan.txt", "003-4-make_assumptions.json", "cost_lines.json"]
    page = (output / "report/plan.md").read_text()
    assert page.startswith("# Another\n\n## Work\n")
    assert page.endswith(" Not there: `001-2-plan.txt`, `003-4-make_assumptions.json`, `cost_lines.json`.\n")


def test_what_would_be_markup_is_escaped(tmp_path):
    tree = task("root") | {"description": "a\n# b | <script> [x](y) *z*"}
    _, output = run(REPORT, small_plan(tmp_path / "plan", tree, {}), tmp_path)
    assert (output / "report/plan.md").read_text().startswith(r"# a \# b \| \<script\> \[x\](y) \*z\*" + "\n\n")


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("---", r"\---"),
        ("===", r"\==="),
        ("- x", r"\- x"),
        ("+ x", r"\+ x"),
        ("1. x", r"1\. x"),
        ("23) x", r"23\) x"),
        ("~~~", r"\~\~\~"),
        ("> x", r"\> x"),
        ("12.5 on 2026-01-01", "12.5 on 2026-01-01"),
    ],
)
def test_no_line_of_the_plan_begins_something(tmp_path, line, shown):
    plan = small_plan(tmp_path / "plan", task("root"), {})
    (plan / "001-2-plan.txt").write_text(f"first\n{line}\nlast\n")
    _, output = run(REPORT, plan, tmp_path)
    assert f"> {shown}" in (output / "report/plan.md").read_text().splitlines()


def test_costs_of_a_stranger_are_an_error(tmp_path):
    plan = small_plan(tmp_path / "plan", task("root"), {})
    lines = {"currency": "EUR", "costs": [{"task_id": "nobody", "category": "x", "amount": 1}]}
    (plan / "cost_lines.json").write_text(json.dumps(lines))
    done = called(REPORT, plan, tmp_path / "output", {})
    assert done.returncode == 1
    assert "ValueError: cost_lines.json: expected tasks of the plan, got nobody" in done.stderr


@published
def test_the_page_of_a_whole_plan(tmp_path):
    answer, output = run(REPORT, SILO, tmp_path)
    assert answer["sections"] == ["Work", "Schedule", "Assumptions"]
    assert "252 tasks, 200 of them without sub-tasks." in (output / "report/plan.md").read_text()
