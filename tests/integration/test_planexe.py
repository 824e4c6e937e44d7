"""The PlanExe example on a real daemon: the pipeline, the service, and the Monte Carlo in three ways, bit for bit the same."""

import asyncio
import contextlib
import json
import os
import subprocess
import sys

import httpx
import pytest

from plugind_client import AsyncClient
from tests.support.daemon import Daemon
from tests.support.napkin_plans import EACH
from tests.support.pace import stretched
from tests.support.planexe_example import DATA, EXAMPLE, napkin, service

pytestmark = pytest.mark.root
CALLS = DATA / "napkin/calculations.py"


# --- the Monte Carlo -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("folder,calculations", EACH)
def test_ten_thousand_trials_by_map_are_those_of_this_process(daemon, folder, calculations):
    plan, client = napkin.read(folder), daemon.client()
    assert plan.trials == 10_000
    module = client.load_source(calculations, stage="premortem", plan_id=folder.name)
    by_map = napkin.run_by_map(plan, client, module)
    assert json.dumps(by_map) == json.dumps(napkin.run_in_process(plan, calculations))
    assert by_map["valid"] is True
    assert [each["count"] for each in by_map["outputs"].values()].count(10_000) >= 4


@pytest.mark.slow
@pytest.mark.parametrize("folder,calculations", EACH)
def test_trials_call_by_call_are_those_of_this_process(daemon, folder, calculations):
    """All ten thousand: tests/soak/test_monte_carlo.py."""
    plan = napkin.read(folder, n_runs=300)
    module = daemon.client().load_source(calculations, stage="premortem")
    by_call = napkin.run_by_call(plan, module)
    assert json.dumps(by_call) == json.dumps(napkin.run_in_process(plan, calculations))


# --- the pipeline ----------------------------------------------------------------------------------------------------


def pipeline(daemon, out, *arguments):
    return subprocess.run(
        [
            sys.executable,
            EXAMPLE / "pipeline.py",
            "--socket",
            daemon.socket,
            "--out",
            out,
            "--workers",
            "2",
            *arguments,
        ],
        capture_output=True,
        text=True,
        timeout=stretched(100),
        check=False,
    )


def log_entries(daemon):
    records = daemon.state.glob("ledger/*.jsonl")
    return [json.loads(line) for file in sorted(records) for line in file.read_text().splitlines()]


@pytest.mark.slow
def test_the_pipeline_says_what_it_lacks_and_goes_on_when_it_is_there(tmp_path):
    out = tmp_path / "run"
    with Daemon() as daemon:
        lacking = pipeline(daemon, out)
        assert lacking.returncode == 1
        told = lacking.stderr
        for stage in ("durations", "wbs_level3"):
            assert f"pipeline: stage {stage} failed: PLUGIN_NOT_FOUND: plugind knows no such plugin or version." in told
        assert "pipeline: not done: schedule.json, costs.json, report.md. The same command goes on from here." in told
        # The generated code is no plugin that anybody has to hand in.
        figures = (out / "montecarlo.json").read_text()
        assert json.loads(figures) == napkin.run_in_process(napkin.read(DATA / "napkin"), CALLS)

        done = pipeline(daemon, out, "--prepare")
        assert done.returncode == 0, done.stderr[-4000:]
        assert done.stdout.splitlines()[-1] == f"pipeline: done: {out / 'report.md'}"
        assert (out / "montecarlo.json").read_text() == figures
        page = (out / "report.md").read_text()
        assert page.startswith("# Electric Night Bus for the Upper Valley\n")
        assert "| payback\\_years |" in page

        entries = log_entries(daemon)
        ran = [
            (each["plugin"], each["stage"], each["plan_id"])
            for each in entries
            if each["event"] == "INTENT" and each["mode"] != "import"
        ]
        by_name = [each for each in ran if not each[0].startswith("calculations_")]
        assert sorted(by_name) == [
            ("cost_breakdown", "wbs_level3", "data"),
            ("results_page", "report", "data"),
            ("schedule_monte_carlo", "durations", "data"),
        ]
        assert {each[1:] for each in ran if each[0].startswith("calculations_")} == {("premortem", "data")}
        outcomes = [each["outcome"] for each in entries if each["event"] == "OUTCOME" and each["mode"] != "import"]
        assert outcomes == ["ok"] * len(ran)

        again = pipeline(daemon, out, "--prepare")  # nothing is left to do, and what is active stays so
        assert again.returncode == 0, again.stderr[-4000:]
        assert [each for each in log_entries(daemon) if each.get("mode") != "import"] == [
            each for each in entries if each.get("mode") != "import"
        ]


def test_prepare_without_a_daemon_says_so(tmp_path):
    done = subprocess.run(
        [sys.executable, EXAMPLE / "prepare.py", "--socket", tmp_path / "none.sock"],
        capture_output=True,
        text=True,
        timeout=stretched(60),
        check=False,
    )
    assert done.returncode == 1
    assert "prepare: plugindctl submit ended with 5" in done.stderr
    assert "none.sock" in done.stderr


# --- the service -------------------------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def served(daemon):
    app = service.create_app(lambda: AsyncClient(daemon.socket))
    transport = httpx.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://service") as http,
    ):
        yield http


def asked(source, **inputs):
    return {"source": source, "inputs": inputs, "plan_id": "night_bus"}


async def test_the_service_evaluates_generated_code(daemon):
    values = {"bus_price_eur": 3.3e5, "chargers_units": 2, "charger_cost_eur": 45000.5, "council_budget_eur": 480000}
    real = napkin.imported(CALLS)
    investment = real.investment_eur(3.3e5, 2, 45000.5)
    async with served(daemon) as http:
        answers = await asyncio.gather(
            *(http.post("/napkin", json=asked(CALLS.read_text(), **values)) for _ in range(8))
        )
        state = (await http.get("/status")).json()
    for answer in answers:
        assert answer.status_code == 200
        found = answer.json()
        assert found["outputs"] == {"investment_eur": investment}
        assert found["missing"]["budget_surplus_eur"] == ["region_grant_eur"]
    assert (state["mode"], state["problems"]) == ("dev", [])
    assert state["plugins"] >= 1


async def test_the_service_tells_what_the_code_did(daemon):
    source = (
        "def f(x: float) -> float:\n    return 1 / x\n\ndef g(y: float) -> float:\n    while True:\n        y += 1\n"
    )
    async with served(daemon) as http:
        divided = await http.post("/napkin", json=asked(source, x=0))
        endless = await http.post("/napkin", json=asked(source, y=0))
        wrong = await http.post("/napkin", json=asked(source, x="one"))
        broken = await http.post("/napkin", json=asked("def f(:\n"))
    assert (divided.status_code, divided.json()["type"]) == (422, "ZeroDivisionError")
    assert endless.status_code == 422
    assert endless.json()["code"] in {"cpu_exceeded", "timeout"}  # whichever a busy machine comes to first
    assert (wrong.status_code, wrong.json()["code"]) == (422, "INPUT_INVALID")
    assert (broken.status_code, broken.json()["code"]) == (422, "INVALID_SOURCE")


async def test_the_service_without_a_daemon_is_503(tmp_path):
    app = service.create_app(lambda: AsyncClient(tmp_path / "none.sock"))
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://service") as http,
    ):
        answer = await http.get("/status")
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "2")


def test_the_clients_of_the_example_find_their_socket_in_the_environment(daemon):
    code = "import pipeline; print(pipeline.client.status().mode)"
    environment = os.environ | {"PLUGIND_SOCKET": str(daemon.socket)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=EXAMPLE, env=environment, capture_output=True, text=True, check=False
    )
    assert done.stdout == "dev\n", done.stderr
