"""The demo's part about files of a plan: plugins that read and write them, one that may not, and what puts it back.

All of it happens in a copy of the example plan, in the demo's own folder.
"""

from __future__ import annotations

import csv
import hashlib
import io
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

from demo_checks import EXAMPLES, PLUGINS, differ, small, usage_text, wrong_answer
from demo_support import REPO, Answer, Cli, Screen, Step

PLAN = EXAMPLES / "planexe" / "data"
GANTT, REPORT = "026-3-schedule_gantt_machai.csv", "report/plan.md"
BY_HAND = "what somebody has written by hand\n"
MEDDLER = """
from pathlib import Path


def run(payload, context):
    output = Path(context.output_dir)
    (output / "report").mkdir()
    (output / "report/notes.md").write_text("what it was approved for")
    (output / "001-2-plan.txt").write_text("and another plan in the place of this one")
    return True
"""
MEDDLES = """
[[permissions.file_write]]
path = "report/*.md"
"""
CURIOUS = """
import json
from pathlib import Path


def run(payload, context):
    tasks = json.loads((Path(context.plan_dir) / "022-2-task_durations.json").read_text())
    (Path(context.output_dir) / "tasks.txt").write_text(str(len(tasks)))
    return len(tasks)
"""


class FilesOfAPlan:
    """The steps in the order in which they are shown; `done` gets each."""

    def __init__(self, screen: Screen, cli: Cli, done: Callable[[Step], None], folder: Path) -> None:
        self.screen, self.cli, self.done = screen, cli, done
        self.folder = folder
        self.plan = folder / "plans" / "night_bus"
        self.null = folder / "null.json"

    def run(self) -> None:
        self.screen.title("Files of a plan: read as granted, written all or nothing, and put back")
        self.screen.say("The plan of a night bus, in a copy. A plugin gets copies too, and never the folder.", indent=2)
        shutil.copytree(REPO / PLAN, self.plan)
        (self.plan / GANTT).write_text(BY_HAND)
        self.null.write_text("null")
        self.report()
        log_id = self.gantt()
        self.meddler()
        self.restored(log_id)
        self.learned()

    # --- what was approved -----------------------------------------------------------------------------------------

    def report(self) -> None:
        answer = self.work("markdown_report", "five files of the plan in, a page of Markdown out", "report")
        page = self.written(REPORT)
        self.show(page.splitlines()[:1] + [line for line in page.splitlines() if line.startswith("EUR")])
        problems = (
            [] if page.startswith("# Electric Night Bus") else [f"expected a page in {REPORT}, got {page[:60]!r}"]
        )
        self.finish("markdown_report", answer, "ok", problems)

    def gantt(self) -> str:
        """The run's record, by which it can be undone."""
        answer = self.work("gantt_csv_export", "PlanExe's own table for Gantt tools", "create_schedule")
        rows = list(csv.reader(io.StringIO(self.written(GANTT))))[1:]
        self.show(f"{row[3]:>10}  {row[4]:>10}  {row[1]}" for row in rows)
        tasks = (answer.object.get("output") or {}).get("tasks")
        self.finish("gantt_csv_export", answer, "ok", differ("rows of the table", tasks, len(rows)))
        return str((answer.object.get("governance") or {}).get("audit_log", ""))

    def work(self, name: str, summary: str, stage: str) -> Answer:
        self.screen.say(f"\n  {name}: {summary}", "bold cyan")
        return self.on_plan(str(PLUGINS / name), "--tier", "1", "--stage", stage, "--json")

    def on_plan(self, folder: str, *more: str) -> Answer:
        return self.cli.run("try", folder, "--plan-dir", str(self.plan), *more)

    def finish(self, name: str, answer: Answer, expected: str, problems: list[str]) -> None:
        if answer.outcome == expected:
            self.screen.facts(usage=usage_text(answer))
        problems = wrong_answer(answer, [expected], 0 if expected == "ok" else 4) + problems
        self.done(Step(name, expected, answer.outcome, answer.wall_ms, problems))

    # --- what was not ------------------------------------------------------------------------------------------------

    def meddler(self) -> None:
        self.screen.say("\n  meddler: may write report/*.md, and writes another plan as well", "bold cyan")
        folder = small(self.folder, "meddler", MEDDLER, MEDDLES)
        before = self.digests()
        answer = self.on_plan(str(folder), "--tier", "1", "--stage", "report", "--input", str(self.null), "--json")
        named = [each for each in answer.object.get("violations", []) if "001-2-plan.txt" in str(each)]
        problems = [] if named else ["violations: expected 001-2-plan.txt to be named, it was not"]
        problems += differ("files of the plan that changed", [], self.changed(before))
        self.finish("a file that was not approved", answer, "violation", problems)

    # --- and back ----------------------------------------------------------------------------------------------------

    def restored(self, log_id: str) -> None:
        self.screen.say("\n  The table has replaced what somebody had written by hand:", "bold cyan")
        impact = self.cli.read("audit", "impact", "gantt_csv_export")
        problems = differ("exit code", 0, impact.exit_code)
        problems += [] if GANTT in impact.stderr else [f"expected {GANTT} to be listed, it is not"]
        self.done(Step("what a plugin has touched", "listed", "not listed" if problems else "listed", None, problems))
        restore = self.cli.read("audit", "restore", log_id, "--reason", "the table by hand was better")
        problems = differ("exit code", 0, restore.exit_code) + differ(GANTT, BY_HAND, self.written(GANTT))
        self.done(
            Step(
                "what a run replaced is put back", "as it was", "it is not" if problems else "as it was", None, problems
            )
        )

    def learned(self) -> None:
        self.screen.say("\n  curious: asks for nothing yet; --learn finds out what it needs", "bold cyan")
        folder = small(self.folder, "curious", CURIOUS, "")
        before = self.digests()
        allowed = ("--tier", "1", "--stage", "report")
        told = self.cli.read(
            "try", str(folder), *allowed, "--input", str(self.null), "--plan-dir", str(self.plan), "--learn"
        )
        wanted = ("[[permissions.file_read]]", "022-2-task_durations.json", "[[permissions.file_write]]", "tasks.txt")
        problems = differ("exit code", 0, told.exit_code)
        problems += [f"expected {each} to be told, it is not" for each in wanted if each not in told.stderr]
        problems += differ("files of the plan that changed", [], self.changed(before))
        self.done(Step("the smallest permissions", "told", "not told" if problems else "told", None, problems))

    # --- the plan's folder -------------------------------------------------------------------------------------------

    def written(self, name: str) -> str:
        """Empty where there is no such file."""
        path = self.plan / name
        return path.read_text() if path.is_file() else ""

    def digests(self) -> dict[str, str]:
        """Of everything in the plan's folder: also of what is no file of it."""
        return {
            str(path.relative_to(self.plan)): hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
            for path in self.plan.rglob("*")
        }

    def changed(self, before: dict[str, str]) -> list[str]:
        now = self.digests()
        return sorted(name for name in before.keys() | now.keys() if before.get(name) != now.get(name))

    def show(self, lines: Iterable[str]) -> None:
        """Some lines of what was written, each on one."""
        for line in list(lines)[:5]:
            self.screen.say(line[:90], "dim", indent=4)
