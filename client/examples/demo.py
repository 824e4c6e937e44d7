"""`make demo`: a daemon of its own, plugins at work on a plan, and hostile ones stopped.

Needs root and the virtual environment that `make setup` makes. Exit code 0: every step was as expected. 1: one was not,
and the summary says what was expected and what came. 2: it could not start. 130: Ctrl-C.
"""

from __future__ import annotations

import json
import math
import os
import platform
import shutil
import sys
import time
from pathlib import Path

try:
    import demo_support as support
    from demo_checks import (
        EXAMPLES,
        PLUGINS,
        descriptions,
        differ,
        headline,
        read,
        small,
        usage_text,
        variant,
        wrong_answer,
    )
    from demo_plan import FilesOfAPlan
    from demo_support import REPO, Answer, Cli, Daemon, DemoError, Json, Screen, Step
except ImportError as error:
    sys.exit(
        f"demo: this Python has no `{error.name}`: run `make demo`, or `make setup` and then .venv/bin/python {__file__}"
    )

PLAN = EXAMPLES / "data" / "rooftop_garden"
PLAN_ID = "rooftop_garden"
WBS, DURATIONS, CALLS, SCENARIOS, TEXT = (
    PLAN / f"{name}.json"
    for name in ("wbs_with_costs", "022-2-task_durations", "napkin_calls", "napkin_scenarios", "plan_text")
)
SECRET = {"PLUGIND_DEMO_SECRET": "a plugin that can read this can read the daemon's environment"}


def main() -> int:
    """Run everything. Returns the exit code."""
    if os.geteuid() != 0:
        print("demo: needs root, because the daemon makes namespaces and control groups for its jails: sudo make demo")
        return 2
    for script in ("plugind", "plugindctl"):
        if not (support.BIN / script).exists():
            print(f"demo: there is no {support.BIN / script}: run `make setup` first")
            return 2
    support.on_signals_exit()
    try:
        return Demo().run()
    except KeyboardInterrupt:
        print("\ndemo: interrupted; the daemon is stopped and its folder removed")
        return 130
    except DemoError as error:
        print(f"demo: {error}")
        return 2


class Demo:
    """The steps in the order in which they are shown. `steps` collects what the summary lists."""

    def __init__(self) -> None:
        self.screen = Screen()
        self.steps: list[Step] = []
        self.told = ""
        self.began = time.monotonic()

    def run(self) -> int:
        with support.daemon(SECRET) as running:
            self.start(running)
            self.cli = Cli(self.screen, running.socket)
            self.at_work()
            self.denied()
            self.governed(running)
            FilesOfAPlan(self.screen, self.cli, self.done, running.folder).run()
            self.hostile(running)
            self.quarantined()
            self.killed(running)
            self.audited(running)
            self.afterwards(running.socket)
            self.stop(running)
        return self.summary()

    def done(self, step: Step) -> None:
        self.steps.append(step)
        self.screen.verdict(step)

    # --- the daemon ---------------------------------------------------------------------------------------------

    def start(self, running: Daemon) -> None:
        self.screen.title("A daemon of its own")
        self.screen.say("It and its temporary folder are gone when the demo ends.", indent=2)
        self.screen.command(["plugind", *running.arguments])
        began = time.monotonic()
        with self.screen.console.status("starting"):
            line = running.wait_until_ready()
        self.screen.say(line, indent=4)
        self.done(Step("plugind starts", "ready", "ready", round((time.monotonic() - began) * 1000)))
        (running.folder / "canary.txt").write_text("a plugin that can read this can read the host\n")
        self.screen.facts(now=f"PLUGIND_SOCKET={running.socket}")

    def stop(self, running: Daemon) -> None:
        self.screen.title("The daemon stops on SIGTERM")
        began = time.monotonic()
        problems = running.stop()
        got = "everything gone" if not problems else "something left"
        self.done(Step("plugind stops", "everything gone", got, round((time.monotonic() - began) * 1000), problems))

    # --- plugins at work ----------------------------------------------------------------------------------------

    def at_work(self) -> None:
        self.screen.title("Four plugins at work on the plan of a rooftop garden")
        answer = self.work("cost_breakdown", "what each branch of the plan costs", WBS, "wbs_level3")
        output = answer.object.get("output")
        self.show_costs(output)
        self.finish("cost_breakdown", answer, self.wrong_costs(output))

        answer = self.work("schedule_monte_carlo", "how long it will take, 2,000 times over", DURATIONS, "durations")
        self.show_days(answer.object.get("output"))
        arguments = ["run", "schedule_monte_carlo", "--stage", "durations", "--input", str(DURATIONS), "--json"]
        again = self.cli.run(*arguments, show=False)
        same = again.object.get("output") == answer.object.get("output")
        problems = [] if same else ["determinism: expected the second run to give the same output, it gave another"]
        self.finish("schedule_monte_carlo", answer, problems)

        answer = self.work("napkin_calculations", "PlanExe's low, base and high scenario", CALLS, "premortem")
        output = answer.object.get("output")
        self.show_scenarios(output)
        self.finish("napkin_calculations", answer, self.wrong_scenarios(output))

        # A program, which Tier 2 may not be.
        answer = self.work("word_count", "a shell script that counts the plan's words", TEXT, "report", "--tier", "1")
        output = answer.object.get("output")
        self.finish("word_count", answer, differ("words", len(read(TEXT).split()), (output or {}).get("words")))

    def work(self, name: str, summary: str, data: Path, stage: str, *more: str) -> Answer:
        self.screen.say(f"\n  {name}: {summary}", "bold cyan")
        folder = str(PLUGINS / name)
        return self.cli.run("try", folder, "--input", str(data), "--stage", stage, *more, "--json")

    def finish(self, name: str, answer: Answer, problems: list[str]) -> None:
        """Governance and usage of a plugin that did its work, and whether all is as it should be."""
        governance = answer.object.get("governance", {})
        self.screen.facts(governance=json.dumps(governance), usage=usage_text(answer))
        problems = wrong_answer(answer, ["ok"], 0) + problems
        self.done(Step(name, "ok", answer.outcome, answer.wall_ms, problems))

    def show_costs(self, output: Json) -> None:
        if not output:
            return
        tree, currency = output["tree"], output["currency"]
        rows = [(tree["description"], tree), *((f"  {node['description']}", node) for node in tree["children"])]
        for text, node in rows:
            self.screen.say(f"{text:<44} {node['cost']:>12,.2f} {currency} {node['share']:>7.1%}", indent=4)
        dearest = output["most_expensive"][0]
        self.screen.say(f"dearest task: {dearest['description']}, {dearest['cost']:,.2f} {currency}", indent=4)

    def wrong_costs(self, output: Json) -> list[str]:
        expected = sum(round(line["amount"] * 100) for line in read(WBS)["costs"]) / 100
        return differ("total cost", expected, (output or {}).get("total"))

    def show_days(self, output: Json) -> None:
        if not output:
            return
        days = output["total_days"]
        shown = "   ".join(f"{name} {days[name]:g}" for name in ("p05", "p25", "p50", "p75", "p95"))
        self.screen.say(f"working days  {shown}", indent=4)
        driver = output["tasks"][0]
        names = descriptions(read(WBS)["wbs_project"])
        name = names[driver["task_id"]]
        self.screen.say(f"most of the uncertainty: {name}, {driver['share_of_variance']:.0%}", indent=4)
        for task in output["skipped"]:
            self.screen.say(f"not sampled: {names[task['task_id']]}: {task['reason']}", indent=4)

    def show_scenarios(self, output: Json) -> None:
        if not output:
            return
        calls, names = read(CALLS), list(read(SCENARIOS)["scenarios"])
        count = (len(calls) - 1) // len(names)
        self.screen.say(f"{'':<32}" + "".join(f"{name:>14}" for name in names), indent=4)
        for index in range(count):
            values = "".join(f"{output[index + count * column]:>14,.2f}" for column in range(len(names)))
            self.screen.say(f"{calls[index]['function']:<32}{values}", indent=4)
        last = calls[-1]
        self.screen.say(f"{last['function']} without any visitors: {json.dumps(output[-1])}", indent=4)

    def wrong_scenarios(self, output: Json) -> list[str]:
        """All values as in the scenarios, and the last call, a division by zero, as an error of its own."""
        wanted = [value for each in read(SCENARIOS)["scenarios"].values() for value in each["outputs"].values()]
        values = list(output or [])
        problems = differ("number of results", len(wanted) + 1, len(values))
        for call, expected, got in zip(read(CALLS), wanted, values, strict=False):
            if not isinstance(got, int | float) or not math.isclose(got, expected, rel_tol=1e-9):
                problems += differ(call["function"], expected, got)
        error = values[-1].get("error", {}).get("type") if values and isinstance(values[-1], dict) else None
        return problems + differ("division by zero", "ZeroDivisionError", error)

    # --- what never runs ----------------------------------------------------------------------------------------

    def denied(self) -> None:
        self.screen.title("What was not approved never runs")
        command = ["run", "cost_breakdown", "--stage"]
        cases = (
            ("a stage it was not approved for", "STAGE_NOT_ALLOWED", [*command, "self_audit", "--input", str(WBS)]),
            ("an input that breaks its schema", "INPUT_INVALID", [*command, "wbs_level3", "--input", str(DURATIONS)]),
            ("a plugin that nobody submitted", "PLUGIN_NOT_FOUND", ["run", "no_such_plugin", "--input", str(WBS)]),
        )
        for what, code, arguments in cases:
            answer = self.cli.run(*arguments, "--json")
            reasons = answer.object.get("reasons") or [{}]
            told = [f"{name} {reasons[0][name]}" for name in ("expected", "actual") if reasons[0].get(name)]
            self.screen.facts(reason="; ".join(told)[:300])
            self.done(Step(what, code, answer.outcome, None, wrong_answer(answer, [code], 3)))

    def governed(self, running: Daemon) -> None:
        self.screen.title("What asks for more needs somebody's word for it")
        self.screen.say(
            "A plugin that wants to read the plan's files is approved, but without that permission.", indent=2
        )
        folder = variant(running.folder, "cost_report", '\n[[permissions.file_read]]\npath = "wbs_*.json"\n')
        self.cli.run("submit", str(folder), "--json")
        label = "cost_report@1.0.0"
        self.cli.run("approve", label, "--stage", "wbs_level3", "--reason", "the code was read", "--yes", "--json")
        self.cli.run("activate", label, "--json")
        answer = self.cli.run("run", "cost_report", "--stage", "wbs_level3", "--input", str(WBS), "--json")
        expected = "PERMISSION_NOT_APPROVED"
        self.done(
            Step("a permission nobody approved", expected, answer.outcome, None, wrong_answer(answer, [expected], 3))
        )
        why = self.cli.read("why")
        problems = (
            [] if f"plugindctl approve {label}" in why.stderr else ["expected `why` to name the command that mends it"]
        )
        self.done(Step("why, and what would mend it", "named", "not named" if problems else "named", None, problems))

    # --- hostile plugins ----------------------------------------------------------------------------------------

    def hostile(self, running: Daemon) -> None:
        self.screen.title("Hostile plugins, in Tier 2")
        known: set[str] = set()
        for attack in read(EXAMPLES / "hostile.json"):
            if platform.machine() != attack.get("machine", platform.machine()):
                continue
            name, payload = attack["plugin"], attack["input"]
            if name == "reads_host_files":  # and these, which do exist here
                seen = (running.folder / "canary.txt", running.state, running.socket, REPO)
                payload = payload | {"paths": [str(path) for path in seen]}
            if name not in known:
                self.screen.say(f"\n  {name}: {headline(name)}", "bold cyan")
            # Not run: what the monitor has put into quarantine for one attempt begins anew with the next try.
            arguments = ["try", str(PLUGINS / "hostile" / name), "--tier", "2", "--input", "-", "--json"]
            answer = self.cli.run(*arguments, stdin=payload, show=name not in known)
            if name not in known:
                self.screen.facts(governance=json.dumps(answer.object.get("governance")))
            known.add(name)
            self.attack(attack, answer)

    def quarantined(self) -> None:
        self.screen.title("What was caught once does not run again")
        caught = next(each for each in read(EXAMPLES / "hostile.json") if each["expect"] == ["violation"])
        answer = self.cli.run("run", caught["plugin"], "--input", "-", "--json", stdin=caught["input"])
        self.cli.read("quarantine", "list")
        self.done(
            Step(
                "a plugin in quarantine", "QUARANTINED", answer.outcome, None, wrong_answer(answer, ["QUARANTINED"], 3)
            )
        )

    def attack(self, attack: Json, answer: Answer) -> None:
        expected = attack["expect"]
        problems = wrong_answer(answer, expected, 0 if expected == ["ok"] else 4)
        output = answer.object.get("output") or {}
        attempts = output.get("attempts", []) if isinstance(output, dict) else []
        problems += [
            f"expected nothing to be got, got: {each['what']}: {each['detail']}" for each in attempts if each["got"]
        ]
        got = answer.outcome
        if attempts and not problems:
            got = f"ok: 0 of {len(attempts)} got"
        variant = str(next(iter(attack["input"].values())))
        self.done(Step(attack["plugin"], " or ".join(expected), got, answer.wall_ms, problems, variant))
        if attack["why"] != self.told:  # for the first of several that end alike
            self.told = attack["why"]
            self.screen.say(f"{self.told} ({usage_text(answer)})", "dim", indent=6)

    # --- the kill switch, and the records ---------------------------------------------------------------------------

    def killed(self, running: Daemon) -> None:
        self.screen.title("The kill switch: one person, and it is gone")
        code = "import time\n\n\ndef run(payload, context):\n    time.sleep(payload)\n    return payload\n"
        folder = small(running.folder, "night_watch", code, "[limits]\nwall_ms = 30000\n")
        self.cli.run("try", str(folder), "--input", "-", "--json", stdin=0, show=False)
        (running.folder / "long.json").write_text("25")
        begun = self.cli.begin("run", "night_watch", "--input", str(running.folder / "long.json"), "--json")
        deadline = time.monotonic() + 10
        while not self.cli.run("ps", "--json", show=False).object.get("list") and time.monotonic() < deadline:
            time.sleep(0.1)
        kill = self.cli.read("kill", "night_watch", "--reason", "it behaves oddly")
        answer = self.cli.end(begun)
        problems = differ("exit code of kill", 0, kill.exit_code) + wrong_answer(answer, ["killed"], 4)
        self.done(Step("a running instance is killed", "killed", answer.outcome, answer.wall_ms, problems))
        again = self.cli.run("run", "night_watch", "--input", str(running.folder / "long.json"), "--json")
        self.done(Step("and does not start again", "KILLED", again.outcome, None, wrong_answer(again, ["KILLED"], 3)))

    def audited(self, running: Daemon) -> None:
        self.screen.title("Everything that happened can be proven")
        whole = self.cli.read("audit", "verify")
        problems = differ("exit code", 0, whole.exit_code)
        self.done(Step("the ledger holds", "holds", "holds" if not problems else "does not", None, problems))
        copy = running.folder / "copy"
        shutil.copytree(running.state, copy, ignore=shutil.ignore_patterns("run", "lock"))
        segment = max((copy / "ledger").glob("*.jsonl"))
        data = bytearray(segment.read_bytes())
        data[len(data) // 2] ^= 1
        segment.write_bytes(data)
        self.screen.say("One bit of a copy is flipped:", indent=2)
        flipped = self.cli.read("audit", "verify", "--state", str(copy))
        problems = differ("exit code", 7, flipped.exit_code)
        self.done(Step("a flipped byte is found", "found", "found" if not problems else "not found", None, problems))

    # --- and then -----------------------------------------------------------------------------------------------

    def afterwards(self, socket: Path) -> None:
        self.screen.title("Afterwards: nothing is left running, and work goes on")
        running = self.cli.run("ps", "--json")
        runs: list[Json] = running.object.get("list") or running.object.get("runs") or []
        problems = differ("exit code of ps", 0, running.exit_code) + differ("instances", 0, len(runs))
        self.done(Step("no instance is left", "none", "none" if not runs else str(len(runs)), None, problems))
        self.from_python(socket)

    def from_python(self, socket: Path) -> None:
        """The same as PlanExe does it: through the client library."""
        from plugind_client import Client

        call = 'run("cost_breakdown", payload, stage="wbs_level3", plan_id="rooftop_garden")'
        self.screen.say(f">>> result = Client().{call}", "bold", indent=2)
        client = Client(str(socket))
        problems: list[str] = []
        got, wall_ms = "ok", None
        try:
            result = client.run("cost_breakdown", read(WBS), stage="wbs_level3", plan_id=PLAN_ID)
        except Exception as error:
            got, problems = type(error).__name__, [f"expected a result, got {type(error).__name__}: {error}"]
        else:
            wall_ms = result.usage.wall_ms
            problems = differ("outcome", "ok", str(result.outcome)) + self.wrong_costs(result.output)
            self.screen.say(f'>>> result.output["total"]\n{result.output["total"]}', indent=2)
        finally:
            client.close()
        self.done(Step("cost_breakdown through the library", "ok", got, wall_ms, problems))

    def summary(self) -> int:
        self.screen.title("Summary")
        self.screen.summary(self.steps)
        bad = [step for step in self.steps if step.problems]
        seconds = time.monotonic() - self.began
        self.screen.console.print()
        for step in bad:
            for problem in step.problems:
                self.screen.say(f"{step.what}: {problem}", "red")
        text = f"{len(self.steps)} steps in {seconds:.1f} s: {len(self.steps) - len(bad)} as expected, {len(bad)} not"
        self.screen.say(text, "bold red" if bad else "bold green")
        return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
