"""The client within a real Luigi pipeline: forked workers, one client made before the fork, a real daemon."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import plugins
from tests.support.pace import stretched

pytestmark = [pytest.mark.root, pytest.mark.slow]
ROOT = Path(__file__).parents[2]
TASKS, WORKERS = 500, 4
LONGEST_S = stretched(60)
CODE = "def run(payload, context):\n    return {'square': payload['number'] ** 2, 'stage': context.stage}\n"


@pytest.mark.timeout(LONGEST_S + 60)
def test_500_tasks_in_4_forked_workers_share_one_client(daemon, tmp_path, record_property):
    daemon.install(plugins.folder(tmp_path, "square", code=CODE))
    folder = tmp_path / "run"
    folder.mkdir()
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.luigi_pipeline", daemon.socket, str(TASKS), str(WORKERS), folder],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=LONGEST_S + 30,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    summary = json.loads((folder / "summary.json").read_text())
    told = {number: json.loads((folder / f"{number}.json").read_text()) for number in range(TASKS)}
    failed = {number: each for number, each in told.items() if "error" in each}
    assert failed == {}
    assert {number: each["output"]["square"] for number, each in told.items()} == {n: n * n for n in range(TASKS)}
    assert summary["succeeded"] is True
    assert (summary["before"]["square"], summary["after"]["square"]) == (1, 4)
    # It was what it is meant to be: each task in a child of its own, at the first attempt, and a run of its own.
    assert {each["parent"] for each in told.values()} == {summary["pid"]}
    assert len({each["pid"] for each in told.values()} - {summary["pid"]}) > WORKERS
    assert {len((folder / f"{number}.attempts").read_text().split()) for number in range(TASKS)} == {1}
    assert len({each["audit_log"] for each in told.values()}) == TASKS
    print(f"luigi: {TASKS} tasks, {WORKERS} workers, {summary['took_s']:.1f} s")
    record_property("took_s", summary["took_s"])
    assert summary["took_s"] < LONGEST_S
