"""The PlanExe example without a daemon: its stages over FakeClient, its own plugin, and what a person reads when one fails."""

import importlib.util
import json
import sys

import jsonschema_rs
import pytest

from plugind.provenance import bundle
from plugind_client import Denied
from plugind_client.errors import CALLS, DENIALS, OUTCOMES
from plugind_client.records import Reason
from tests.support.planexe_example import DATA, EXAMPLE, Here, napkin, pipeline, prepare

REPORT = EXAMPLE / "plugins/results_page"


def plugin(folder, name):
    spec = importlib.util.spec_from_file_location(name, folder / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return lambda payload: module.run(payload, None)


@pytest.fixture
def fake(monkeypatch):
    """A client that has the three plugins, in the place of the pipeline's."""
    client = Here()
    for folder in prepare.PLUGINS:
        client.answers(folder.name, plugin(folder, folder.name))
    monkeypatch.setattr(pipeline, "client", client)
    return client


def explained(out):
    lines = []
    pipeline.explain(out, lines.append)
    return lines


def test_all_stages_are_done_each_with_its_name_and_plan(fake, tmp_path):
    assert pipeline.build(DATA, tmp_path, workers=1)
    runs = [(call.arguments["name"], call.arguments["stage"], call.arguments["plan_id"]) for call in fake.calls]
    assert sorted(runs) == [
        ("cost_breakdown", "wbs_level3", "data"),
        ("results_page", "report", "data"),
        ("schedule_monte_carlo", "durations", "data"),
    ]
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "costs.json",
        "montecarlo.json",
        "report.md",
        "schedule.json",
    ]
    folder = DATA / "napkin"
    expected = napkin.run_in_process(napkin.read(folder), folder / "calculations.py")
    assert json.loads((tmp_path / "montecarlo.json").read_text()) == expected
    page = (tmp_path / "report.md").read_text()
    assert page.startswith("# Electric Night Bus for the Upper Valley\n")
    assert "EUR 441,851.50 in all; tasks without a cost: 1." in page
    assert f"| payback\\_years | years | {expected['outputs']['payback_years']['p05']:.4g} |" in page


def test_a_stage_that_is_denied_fails_and_the_same_call_goes_on_when_it_is_mended(fake, tmp_path):
    remedy = "plugindctl approve cost_breakdown@1.2.0 --as-declared --reason TEXT"
    reason = Reason("NOT_APPROVED", "gate.approval", "an approval", "none", remedy)
    fake.answers("cost_breakdown", Denied("NOT_APPROVED", detail="nobody approved it", reasons=(reason,)))
    assert not pipeline.build(DATA, tmp_path, workers=1)
    lines = explained(tmp_path)
    assert lines[0] == "pipeline: stage wbs_level3 failed: NOT_APPROVED: The plugin is not approved."
    assert f"    what to do: {remedy}" in lines
    assert any(line.startswith("    more: plugindctl audit show log_") for line in lines)
    assert lines[-1] == "pipeline: not done: costs.json, report.md. The same command goes on from here."
    assert (tmp_path / "schedule.json").exists()

    fake.answers("cost_breakdown", plugin(prepare.PLUGINS[1], "cost_breakdown"))
    fake.calls.clear()
    assert pipeline.build(DATA, tmp_path, workers=1)
    assert [call.arguments["name"] for call in fake.calls] == ["cost_breakdown", "results_page"]
    assert pipeline.problems(tmp_path) == []


@pytest.mark.parametrize(
    "outcome,retryable", [("timeout", False), ("out_of_memory", False), ("violation", False), ("fault", True)]
)
def test_what_is_said_of_a_run_that_was_stopped(fake, tmp_path, outcome, retryable):
    fake.ends("schedule_monte_carlo", outcome, "what happened exactly")
    assert not pipeline.build(DATA, tmp_path, workers=1)
    lines = explained(tmp_path)
    assert lines[:2] == [
        f"pipeline: stage durations failed: {outcome}: {OUTCOMES[outcome]}",
        "    what happened exactly",
    ]
    assert ("    this passes by itself: wait a little" in lines) is retryable


def test_without_a_daemon_every_stage_says_so(fake, tmp_path):
    fake.goes_away()
    assert not pipeline.build(DATA, tmp_path, workers=1)
    told = [line for line in explained(tmp_path) if line.startswith("pipeline: stage")]
    assert told == [
        f"pipeline: stage {stage} failed: UNAVAILABLE: {CALLS['UNAVAILABLE']}" for stage in ("durations", "wbs_level3")
    ]


def test_a_fault_of_a_stage_itself_is_not_said_to_be_plugins(fake, tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    assert not pipeline.build(data, tmp_path / "out", workers=1)
    lines = explained(tmp_path / "out")
    assert lines[0] == "pipeline: a stage failed by a fault of its own; its traceback stands above"
    assert fake.calls == []


def test_a_busy_plugin_is_worth_another_try(fake, tmp_path):
    fake.denies("schedule_monte_carlo", "BUSY")
    assert not pipeline.build(DATA, tmp_path, workers=1)
    assert f"pipeline: stage durations failed: BUSY: {DENIALS['BUSY']}" in explained(tmp_path)
    assert "    this passes by itself: wait a little" in explained(tmp_path)


# --- the report's plugin -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", sorted((REPORT / "cases").glob("*.json")), ids=lambda path: path.stem)
def test_case_of_the_report_holds_and_fits_its_schemas(case):
    given = json.loads(case.read_text())
    assert plugin(REPORT, "results_page")(given["input"]) == given["output"]
    for kind in ("input", "output"):
        schema = json.loads((REPORT / f"schemas/{kind}.json").read_text())
        jsonschema_rs.meta.validate(schema)
        jsonschema_rs.Draft202012Validator(schema).validate(given[kind])


def test_the_report_escapes_what_would_be_markup():
    (case,) = (REPORT / "cases").glob("*.json")
    given = json.loads(case.read_text())["input"]
    given["costs"]["tree"]["description"] = "a\n# b | <script> [x](y) *z*"
    page = plugin(REPORT, "results_page")(given)["markdown"]
    assert page.startswith(r"# a \# b \| \<script\> \[x\](y) \*z\*" + "\n\n")


@pytest.mark.parametrize("folder", prepare.PLUGINS, ids=lambda path: path.name)
def test_every_plugin_that_is_prepared_builds_and_is_for_its_stage(folder):
    manifest = bundle.read(bundle.build(folder)).manifest
    wanted = {"schedule_monte_carlo": "durations", "cost_breakdown": "wbs_level3", "results_page": "report"}
    assert wanted[manifest.name] in manifest.stages


def test_a_command_that_fails_is_told(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    (tmp_path / "plugindctl").write_text("#!/bin/sh\necho not for you >&2\nexit 3\n")
    (tmp_path / "plugindctl").chmod(0o755)
    assert not prepare.prepare("/nonexistent.sock")
    told = capsys.readouterr()
    assert told.err == "not for you\nprepare: plugindctl submit ended with 3\n"
    assert told.out.startswith("$ plugindctl submit ")
