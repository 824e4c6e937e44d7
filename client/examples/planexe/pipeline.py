"""A Luigi pipeline as PlanExe's: each stage is a task that calls a plugin through one client, and leaves one file.

    python client/examples/planexe/pipeline.py --socket PATH --out DIR [--workers 4] [--prepare]

Exit code 0: all stages are done. 1: a stage failed, and standard error says why and what to do. The same command goes on
from there: Luigi does not repeat a stage whose file is there. `--prepare` first hands in and approves the plugins
(prepare.py), which a development daemon lets anybody do who may use it.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import luigi
import napkin
import prepare

from plugind_client import Client, PlugindError

HERE = Path(__file__).parent
client = Client()
"""One for all stages, made once. It connects at its first call, and a worker that Luigi forks opens a connection of its own."""


class Stage(luigi.Task):
    """One stage of one plan: reads files of the plan and of earlier stages, writes `file`."""

    data = luigi.Parameter()
    """Folder with the plan's files, in PlanExe's shapes."""
    out = luigi.Parameter()
    """Folder of this run."""
    name: str
    """As plugind knows it: a plugin is approved for stages."""
    file: str

    def output(self) -> luigi.LocalTarget:
        return luigi.LocalTarget(str(Path(self.out) / self.file))

    @property
    def plan_id(self) -> str:
        """Goes into the audit record of each run."""
        return Path(self.data).name

    def run(self) -> None:
        problem = Path(self.out) / f"{self.file}.problem.json"
        problem.unlink(missing_ok=True)
        try:
            text = self.made()
        except PlugindError as error:
            problem.write_text(json.dumps(told(self.name, error)))
            raise
        with self.output().open("w") as file:  # moved to its place when it is complete
            file.write(text)

    def made(self) -> str:
        """What the stage writes. Raises PlugindError."""
        raise NotImplementedError

    def plugin(self, name: str, payload: Any) -> Any:
        """The output of a plugin for this stage and plan. Raises PlugindError."""
        return client.run(name, payload, stage=self.name, plan_id=self.plan_id).output

    def given(self, name: str) -> Any:
        """A file of the plan."""
        text = (Path(self.data) / name).read_text()
        return json.loads(text) if name.endswith(".json") else text

    def done(self, stage: type[Stage]) -> Any:
        """What an earlier stage wrote."""
        return json.loads((Path(self.out) / stage.file).read_text())


class Durations(Stage):
    name, file = "durations", "schedule.json"

    def made(self) -> str:
        return pretty(self.plugin("schedule_monte_carlo", self.given("022-2-task_durations.json")))


class CostEstimate(Stage):
    name, file = "wbs_level3", "costs.json"

    def made(self) -> str:
        tree = self.given("023-3-wbs_project_level1_and_level2_and_level3.json")
        return pretty(self.plugin("cost_breakdown", tree | self.given("cost_lines.json")))


class MonteCarlo(Stage):
    name, file = "premortem", "montecarlo.json"

    def made(self) -> str:
        folder = Path(self.data) / "napkin"
        # PlanExe: spec = importlib.util.spec_from_file_location(…); module = …; spec.loader.exec_module(module)
        module = client.load_source(folder / "calculations.py", stage=self.name, plan_id=self.plan_id)
        return pretty(napkin.run_by_map(napkin.read(folder), client, module))


class Report(Stage):
    name, file = "report", "report.md"

    def requires(self) -> list[Stage]:
        return [stage(data=self.data, out=self.out) for stage in (Durations, CostEstimate, MonteCarlo)]

    def made(self) -> str:
        payload = {
            "plan": self.given("001-2-plan.txt"),
            "assumptions": self.given("003-4-make_assumptions.json"),
            "schedule": self.done(Durations),
            "costs": self.done(CostEstimate),
            "monte_carlo": self.done(MonteCarlo),
        }
        return self.plugin("results_page", payload)["markdown"]


STAGES = (Durations, CostEstimate, MonteCarlo, Report)


def pretty(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


# --- when a stage fails -------------------------------------------------------------------------------------------------


def told(stage: str, error: PlugindError) -> dict[str, Any]:
    """What a person needs to know of a failed call. `str(error)` is fixed for each code; the rest is in attributes."""
    return {
        "stage": stage,
        "code": error.code,
        "message": str(error),
        "detail": error.detail,
        "retryable": error.retryable,
        "audit_log": error.audit_log,
        "remedies": [reason.remedy for reason in error.reasons if reason.remedy],
    }


def problems(out: Path) -> list[dict[str, Any]]:
    """Of the stages that failed in the last run of the pipeline."""
    files = [out / f"{stage.file}.problem.json" for stage in STAGES]
    return [json.loads(file.read_text()) for file in files if file.exists()]


def explain(out: Path, say: Callable[[str], None]) -> None:
    """What failed, why, and how to go on."""
    found = problems(out)
    for problem in found:
        say(f"pipeline: stage {problem['stage']} failed: {problem['code']}: {problem['message']}")
        if problem["detail"]:
            say(f"    {problem['detail']}")
        for remedy in problem["remedies"]:
            say(f"    what to do: {remedy}")
        if problem["audit_log"]:
            say(f"    more: plugindctl audit show {problem['audit_log']}")
        if problem["retryable"]:
            say("    this passes by itself: wait a little")
    if not found:
        say("pipeline: a stage failed by a fault of its own; its traceback stands above")
    waiting = [stage.file for stage in STAGES if not (out / stage.file).exists()]
    say(f"pipeline: not done: {', '.join(waiting)}. The same command goes on from here.")


def build(data: Path, out: Path, workers: int) -> bool:
    """Whether all stages are done."""
    out.mkdir(parents=True, exist_ok=True)
    for stage in STAGES:
        (out / f"{stage.file}.problem.json").unlink(missing_ok=True)
    logging.getLogger("luigi-interface").setLevel(logging.WARNING)
    report = Report(data=str(data), out=str(out))
    return luigi.build([report], workers=workers, local_scheduler=True, log_level="WARNING")


def main() -> int:
    global client
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--socket", help="the daemon's; else PLUGIND_SOCKET, else the system's own")
    parser.add_argument("--data", type=Path, default=HERE / "data", help="the plan's files; a small plan is there")
    parser.add_argument("--out", type=Path, required=True, help="folder for what the stages write")
    parser.add_argument("--workers", type=int, default=4, help="stages at one time")
    parser.add_argument("--prepare", action="store_true", help="hand in and approve the plugins first")
    given = parser.parse_args()
    if given.socket:
        client = Client(given.socket)
    if given.prepare and not prepare.prepare(client.socket):
        return 1
    if not build(given.data.resolve(), given.out, given.workers):
        explain(given.out, lambda line: print(line, file=sys.stderr))
        return 1
    print(f"pipeline: done: {given.out / Report.file}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
