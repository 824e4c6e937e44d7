"""The example plugins of files of a plan on a real daemon: what they write is in the plan, and can be put back."""

import hashlib
import json
import shutil
import tomllib
from pathlib import Path

import pytest

from plugind import planfiles
from tests.support.daemon import Daemon
from tests.support.napkin_plans import NAPKIN, published

EXAMPLES = Path(__file__).parents[2] / "client/examples"
GANTT, REPORT = EXAMPLES / "plugins/gantt_csv_export", EXAMPLES / "plugins/markdown_report"
PLAN = EXAMPLES / "planexe/data"
SILO = NAPKIN.parent / "plan_silo"
CSV = "026-3-schedule_gantt_machai.csv"
PAGE = "report/plan.md"
BY_HAND = "what somebody has written by hand\n"
STAGES = {GANTT: "create_schedule", REPORT: "report"}

pytestmark = pytest.mark.root


@pytest.fixture(scope="module")
def daemon():
    with Daemon() as running:
        yield running


@pytest.fixture
def plan(tmp_path):
    """A copy of the example plan, whose table somebody has written by hand."""
    folder = tmp_path / "plans/night_bus"
    shutil.copytree(PLAN, folder)
    (folder / CSV).write_text(BY_HAND)
    return folder


def tried(daemon, folder, plan, *more, stage=None, text=""):
    """`plugindctl try` in Tier 1, as a person types it: its exit code and the object that it prints."""
    arguments = ["try", folder, "--tier", "1", "--stage", stage or STAGES[folder], "--plan-dir", plan, *more, "--json"]
    done = daemon.command(*map(str, arguments), text=text)
    try:
        return done.returncode, json.loads(done.stdout)
    except ValueError:
        raise AssertionError(f"{done.args}: {done.returncode}\n{done.stdout}\n{done.stderr}") from None


def digests(plan):
    """Of everything in the folder, also of what is no file of the plan: staging that was left is found here."""
    return {
        path.relative_to(plan).as_posix(): sha256(path.read_bytes()) if path.is_file() else ""
        for path in plan.rglob("*")
    }


def sha256(data):
    return hashlib.sha256(data).hexdigest()


def record(daemon, event, **wanted):
    """The newest record of the ledger that is this."""
    lines = [line for file in sorted(daemon.state.glob("ledger/*.jsonl")) for line in file.read_text().splitlines()]
    found = [each for each in map(json.loads, lines) if wanted.items() <= each.items() and each["event"] == event]
    assert found, f"expected a record {event} with {wanted}"
    return found[-1]


def small(parent, name, code, permissions):
    folder = parent / name
    (folder / "schemas").mkdir(parents=True)
    for schema in ("input", "output"):
        (folder / f"schemas/{schema}.json").write_text("true")
    (folder / f"{name}.py").write_text(code)
    (folder / "plugin.toml").write_text(
        f'schema = 1\nname = "{name}"\nversion = "1.0.0"\nsummary = "Of a test"\nlicense = "MIT"\n'
        f'origin = "authored"\nentrypoint = "{name}:run"\nstages = ["*"]\n{permissions}'
    )
    return folder


# --- what they write -------------------------------------------------------------------------------------------------


def test_the_table_is_in_the_plan_and_in_the_ledger(daemon, plan):
    before = digests(plan)
    code, answer = tried(daemon, GANTT, plan)
    assert (code, answer["outcome"]) == (0, "ok"), answer
    written = (plan / CSV).read_bytes()
    assert answer["output"]["tasks"] == 12
    assert written.startswith(b"project_key,project_name,")
    assert digests(plan) == before | {CSV: sha256(written)}, "nothing else has changed, and no staging is left"

    index = int(answer["governance"]["audit_log"].removeprefix("log_"))
    outcome = record(daemon, "OUTCOME", intent=index)
    (file,) = outcome["files"]
    told = (file["path"], file["content"]["sha256"], file["replaced"]["sha256"])
    assert told == (CSV, sha256(written), sha256(BY_HAND.encode()))
    assert record(daemon, "COMMITTED", intent=index)["index"] > outcome["index"]


def test_the_page_is_in_a_folder_that_was_not_there(daemon, plan):
    code, answer = tried(daemon, REPORT, plan)
    assert (code, answer["outcome"]) == (0, "ok"), answer
    assert answer["output"]["missing"] == []
    page = (plan / PAGE).read_text()
    assert page.startswith("# Electric Night Bus for the Upper Valley\n")
    assert "EUR 441,851.50 in all; tasks without a cost: 1." in page


def test_an_approved_version_runs_by_name_through_the_library(daemon, plan):
    tried(daemon, GANTT, plan)
    (plan / CSV).unlink()
    result = daemon.client().run(
        "gantt_csv_export", {"start": "2028-02-28"}, stage="create_schedule", plan_dir=str(plan)
    )
    assert result.output["start"] == "2028-02-28"
    assert b",2/28/2028," in (plan / CSV).read_bytes()


@published
def test_the_table_of_a_whole_plan_is_planexes_own_byte_for_byte(daemon, tmp_path):
    folder = tmp_path / "plans/silo"
    shutil.copytree(SILO, folder)
    folder.chmod(0o755)  # whatever it was: to write into it takes the caller's own right to
    (folder / CSV).unlink()
    code, answer = tried(daemon, GANTT, folder)
    assert (code, answer["outcome"]) == (0, "ok"), answer
    assert (folder / CSV).read_bytes() == (SILO / CSV).read_bytes()
    index = int(answer["governance"]["audit_log"].removeprefix("log_"))
    read = [each["path"] for each in record(daemon, "INTENT", index=index)["files"]]
    wanted = [path.name for path in SILO.iterdir() if planfiles.matches(path.name, read_patterns(GANTT))]
    assert sorted(read) == sorted(wanted)
    assert [name for name in read if "_raw" in name] == [], "prompts were not even copied"


def read_patterns(folder):
    return [each["path"] for each in tomllib.loads((folder / "plugin.toml").read_text())["permissions"]["file_read"]]


# --- what they do not ------------------------------------------------------------------------------------------------

MEDDLER = """
from pathlib import Path


def run(payload, context):
    output = Path(context.output_dir)
    (output / "report").mkdir()
    (output / "report/notes.md").write_text("approved")
    (output / payload).write_text("not approved")
    return True
"""


def test_a_file_that_was_not_approved_is_named_and_nothing_is_written(daemon, plan, tmp_path):
    folder = small(tmp_path, "meddler", MEDDLER, '[[permissions.file_write]]\npath = "report/*.md"\n')
    before = digests(plan)
    code, answer = tried(daemon, folder, plan, "--input", "-", stage="report", text='"001-2-plan.txt"')
    assert (code, answer["outcome"]) == (4, "violation"), answer
    assert ["001-2-plan.txt" in json.dumps(each) for each in answer["violations"]] == [True]
    assert digests(plan) == before


def test_a_plan_without_its_tasks_fails_and_nothing_is_written(daemon, plan):
    (plan / "023-3-wbs_project_level1_and_level2_and_level3.json").unlink()
    before = digests(plan)
    done = daemon.command("try", GANTT, "--tier", "1", "--stage", STAGES[GANTT], "--plan-dir", plan)
    assert done.returncode == 1, done.stderr
    assert "expected this file in the plan's folder, there is none" in done.stderr
    assert digests(plan) == before


def test_unvetted_it_does_not_run_because_it_writes(plan):
    with Daemon() as fresh:  # which has seen no vetter's signature of it
        done = fresh.command("try", GANTT, "--tier", "2", "--stage", STAGES[GANTT], "--plan-dir", plan)
    assert done.returncode == 3, done.stderr
    assert "file_write" in done.stderr
    assert (plan / CSV).read_text() == BY_HAND


def test_without_a_plans_folder_it_is_denied(daemon, plan):
    tried(daemon, GANTT, plan)
    done = daemon.command("run", "gantt_csv_export", "--stage", "create_schedule", "--input", "-", "--json", text="{}")
    assert done.returncode == 3
    (reason,) = json.loads(done.stdout)["reasons"]
    assert (reason["code"], reason["rule"]) == ("INPUT_INVALID", "plans.folder")


# --- and back --------------------------------------------------------------------------------------------------------


def test_what_it_replaced_is_put_back(daemon, plan):
    before = digests(plan)
    _, answer = tried(daemon, GANTT, plan)
    log_id = answer["governance"]["audit_log"]
    assert digests(plan) != before
    rehearsed = daemon.command("audit", "restore", log_id, "--dry-run")
    assert rehearsed.returncode == 0, rehearsed.stderr
    assert CSV in rehearsed.stdout + rehearsed.stderr
    assert (plan / CSV).read_text() != BY_HAND
    done = daemon.command("audit", "restore", log_id, "--reason", "a test")
    assert done.returncode == 0, done.stdout + done.stderr
    assert digests(plan) == before


def test_a_file_that_was_new_is_gone_when_it_is_undone(daemon, plan):
    before = digests(plan)
    _, answer = tried(daemon, REPORT, plan)
    done = daemon.command("audit", "restore", answer["governance"]["audit_log"], "--reason", "a test")
    assert done.returncode == 0, done.stdout + done.stderr
    assert list((plan / PAGE).parent.iterdir()) == [], "its folder stays: somebody may have come to use it"
    (plan / PAGE).parent.rmdir()
    assert digests(plan) == before


def test_what_somebody_has_changed_since_is_not_put_back(daemon, plan):
    _, answer = tried(daemon, GANTT, plan)
    (plan / CSV).write_text("changed since\n")
    done = daemon.command("audit", "restore", answer["governance"]["audit_log"], "--reason", "a test")
    assert done.returncode != 0
    assert (plan / CSV).read_text() == "changed since\n"


def test_what_it_touched_is_listed(daemon, plan):
    tried(daemon, REPORT, plan)
    done = daemon.command("audit", "impact", "markdown_report", "--json")
    assert done.returncode == 0, done.stderr
    assert str(plan) in done.stdout
    assert PAGE in done.stdout


# --- what it would need ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tier", ["1", "2"])
@pytest.mark.parametrize("folder", [GANTT, REPORT], ids=lambda folder: folder.name)
def test_what_is_learned_of_it_is_what_its_manifest_asks_for(daemon, plan, tmp_path, folder, tier):
    bare = tmp_path / folder.name
    shutil.copytree(folder, bare, ignore=shutil.ignore_patterns("__pycache__"))
    manifest = (bare / "plugin.toml").read_text()
    (bare / "plugin.toml").write_text(manifest[: manifest.index("[[permissions")])
    before = digests(plan)
    done = daemon.command(
        *("try", bare, "--tier", tier, "--stage", STAGES[folder], "--plan-dir", plan, "--learn"),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    told = done.stdout + done.stderr
    for pattern in read_patterns(folder):
        assert pattern in told
    assert "[[permissions.file_read]]" in told
    assert "[[permissions.file_write]]" in told
    assert "_raw" not in told
    assert digests(plan) == before
