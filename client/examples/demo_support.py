"""What demo.py needs: a daemon of its own, the command line tool, and a screen to show both on."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

REPO = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent  # not resolved: the venv's, where the scripts are
READY_TIMEOUT_S = 30
STOP_TIMEOUT_S = 10
COMMAND_TIMEOUT_S = 30
GOVERNANCE_KEYS = ["plugin_id", "tier", "permissions", "execution_limit_ms", "audit_log"]

Json = Any


class DemoError(Exception):
    """The demo cannot go on. The text says why."""


@dataclass
class Step:
    """One line of the summary. `problems` is empty where everything was as expected."""

    what: str
    expected: str
    got: str
    wall_ms: int | None = None
    problems: list[str] = field(default_factory=list)
    variant: str = ""


# --- screen --------------------------------------------------------------------------------------------------------


class Screen:
    """Colours and spinners on a terminal, plain text elsewhere."""

    def __init__(self) -> None:
        width = min(100, max(80, shutil.get_terminal_size((100, 24)).columns))
        self.console = Console(width=width, highlight=False, soft_wrap=False)

    def title(self, text: str) -> None:
        self.console.print()
        self.console.rule(Text(text, "bold"), align="left", style="cyan")

    def say(self, text: str, style: str = "", indent: int = 0) -> None:
        for line in Text(text, style).wrap(self.console, self.console.width - indent):
            self.console.print(" " * indent, line, sep="")

    def command(self, arguments: list[str], stdin: str = "") -> None:
        """A command line as a person would type it, over several lines where it is long."""
        words = [shlex.quote(word) for word in arguments]
        if stdin:
            quoted = shlex.quote(stdin)
            words += ["<<<", quoted if len(quoted) < self.console.width - 8 else quoted.replace(", ", ",\n        ")]
        lines, line = [], "  $"
        for word in words:
            if len(line) + len(word) + 3 > self.console.width:
                lines.append(line + " \\")
                line = "     "
            line += " " + word
        for text in [*lines, line]:
            self.console.print(Text(text, "bold"), overflow="ignore", no_wrap=True, crop=False)

    def facts(self, **facts: str) -> None:
        """Names and texts in two columns."""
        for name, text in facts.items():
            for number, line in enumerate(Text(text).wrap(self.console, self.console.width - 16)):
                line.rstrip()
                self.console.print(Text.assemble("    ", (f"{name if number == 0 else '':<12}", "dim"), line))

    def verdict(self, step: Step) -> None:
        """One line for a step, and what went wrong below it."""
        mark, style = ("ok", "green") if not step.problems else ("UNEXPECTED", "bold red")
        name = f"{step.what} {step.variant}"
        time_text = "" if step.wall_ms is None else f"{step.wall_ms} ms"
        line = Text.assemble("  ", (f"{mark:<3}", style), f" {name:<34} {step.got:<20} {time_text:>9}".rstrip())
        self.console.print(line, overflow="ignore", no_wrap=True, crop=False)
        for problem in step.problems:
            self.say(problem, "red", indent=6)

    def summary(self, steps: list[Step]) -> None:
        """Everything in one table; steps of one kind that went alike share a line."""
        table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
        for heading in ("", "step", "expected", "got"):
            table.add_column(heading, overflow="fold")
        table.add_column("wall", justify="right")
        alike: dict[tuple[str, ...], list[Step]] = {}
        for step in steps:
            number = str(len(alike)) if step.problems or not step.variant else ""
            alike.setdefault((step.what, step.expected, step.got, number), []).append(step)
        for (what, expected, got, _), together in alike.items():
            mark = Text("XX", "bold red") if together[0].problems else Text("ok", "green")
            times = [step.wall_ms for step in together if step.wall_ms is not None]
            wall = f"{min(times)} ms" if times else ""
            if len(set(times)) > 1:
                wall = f"{min(times)}-{max(times)} ms"
            variants = ", ".join(step.variant for step in together)
            table.add_row(mark, Text(f"{what}: {variants}" if variants else what), Text(expected), Text(got), wall)
        self.console.print(table)


# --- command line tool ---------------------------------------------------------------------------------------------


@dataclass
class Answer:
    """What plugindctl printed (its --json object) and its exit code."""

    exit_code: int
    object: dict[str, Json]
    stderr: str

    @property
    def outcome(self) -> str:
        """The outcome; for a denial, its codes."""
        if self.object.get("decision") == "allow":
            return str(self.object.get("outcome", ""))
        return ", ".join(reason["code"] for reason in self.object.get("reasons", [])) or "no answer"

    @property
    def wall_ms(self) -> int | None:
        return (self.object.get("usage") or {}).get("wall_ms")


class Cli:
    """Types commands."""

    def __init__(self, screen: Screen, socket: Path) -> None:
        self.screen = screen
        self.environment = os.environ | {"PLUGIND_SOCKET": str(socket), "NO_COLOR": "1"}

    def run(self, *arguments: str, stdin: Json = None, show: bool = True) -> Answer:
        """Show and run `plugindctl ARGUMENTS`; `stdin` is a JSON value for `--input -`."""
        text = "" if stdin is None else json.dumps(stdin)
        if show:
            self.screen.command(["plugindctl", *arguments], text)
        with self.screen.console.status("running"):
            done = subprocess.run(
                [str(BIN / "plugindctl"), *arguments],
                input=text,
                capture_output=True,
                text=True,
                env=self.environment,
                cwd=REPO,
                timeout=COMMAND_TIMEOUT_S,
                check=False,
            )
        return _answer(done.returncode, done.stdout, done.stderr)

    def read(self, *arguments: str) -> Answer:
        """Show and run a command for people, and what it prints; the text is in `stderr`."""
        self.screen.command(["plugindctl", *arguments])
        done = subprocess.run(
            [str(BIN / "plugindctl"), *arguments],
            capture_output=True,
            text=True,
            env=self.environment | {"COLUMNS": str(self.screen.console.width - 4)},
            cwd=REPO,
            timeout=COMMAND_TIMEOUT_S,
            check=False,
        )
        text = (done.stdout + done.stderr).rstrip()
        for line in text.splitlines():
            self.screen.say(line, "dim", indent=4)
        return Answer(done.returncode, {}, text)

    def begin(self, *arguments: str) -> subprocess.Popen[str]:
        """Show a command and start it; `end` waits for its answer."""
        self.screen.command(["plugindctl", *arguments])
        return subprocess.Popen(
            [str(BIN / "plugindctl"), *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=self.environment,
            cwd=REPO,
        )

    def end(self, begun: subprocess.Popen[str]) -> Answer:
        """The answer of a command that was begun."""
        stdout, stderr = begun.communicate(timeout=COMMAND_TIMEOUT_S)
        return _answer(begun.returncode, stdout, stderr)


def _answer(exit_code: int, stdout: str, stderr: str) -> Answer:
    try:
        printed = json.loads(stdout)
    except ValueError:
        printed = {}
    return Answer(exit_code, printed if isinstance(printed, dict) else {"list": printed}, stderr.strip())


# --- daemon --------------------------------------------------------------------------------------------------------


class Daemon:
    """A plugind of one's own, in a temporary folder; both are gone afterwards."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self.folder = folder
        self.socket = folder / "plugind.sock"
        self.state = folder / "state"
        self.log = folder / "plugind.log"
        self.arguments = ["serve", "--standalone", "--dev", "--state", str(self.state), "--socket", str(self.socket)]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [str(BIN / "plugind"), *self.arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                cwd="/",
                env=os.environ | environment,
                start_new_session=True,  # Ctrl-C is for the demo, which then stops the daemon
            )

    def wait_until_ready(self) -> str:
        """The line it prints when it is ready. Raises DemoError where it does not come."""
        lines: queue.Queue[str] = queue.Queue()
        threading.Thread(target=self._read, args=(lines,), daemon=True).start()
        try:
            line = lines.get(timeout=READY_TIMEOUT_S)
        except queue.Empty:
            line = ""
        if not line or self.process.poll() is not None:
            log = self.log.read_text(errors="replace").strip()[-2000:]
            raise DemoError(f"plugind did not start. Expected one line when it is ready, got {line!r}.\n{log}")
        return line

    def _read(self, lines: queue.Queue[str]) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            lines.put(line.rstrip("\n"))
        lines.put("")

    def stop(self) -> list[str]:
        """SIGTERM, and everything it started has to be gone. Returns what was not as expected."""
        problems = []
        tree = _descendants(self.process.pid)
        if self.process.poll() is not None:
            problems.append(f"plugind: expected it to be still running, it had ended with {self.process.returncode}")
        self.process.terminate()
        try:
            code = self.process.wait(STOP_TIMEOUT_S)
            if code != 0:
                problems.append(f"plugind: expected exit code 0 after SIGTERM, got {code}")
        except subprocess.TimeoutExpired:
            problems.append(f"plugind: expected it to end within {STOP_TIMEOUT_S} s of SIGTERM, had to be killed")
            self.process.kill()
            self.process.wait()
        left = _still_there(tree)
        if left:
            problems.append(f"processes: expected none of plugind's left, got {left}")
        if self.socket.exists():
            problems.append(f"socket: expected it to be removed, it is still at {self.socket}")
        return problems


@contextlib.contextmanager
def daemon(environment: dict[str, str]) -> Iterator[Daemon]:
    """A daemon that is stopped, and its folder removed, whatever happens."""
    folder = Path(tempfile.mkdtemp(prefix="plugind-demo-"))
    folder.chmod(0o711)  # plugind gives up root, and must still find its state
    running = None
    try:
        running = Daemon(folder, environment)
        yield running
    finally:
        if running is not None and running.process.poll() is None:
            running.stop()
        shutil.rmtree(folder, ignore_errors=True)


def _descendants(pid: int) -> dict[int, str]:
    """Every process below `pid` with its start time, so that a pid that was used again is not taken for it."""
    parents: dict[int, list[int]] = {}
    started: dict[int, str] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                parents.setdefault(int(fields[1]), []).append(int(entry.name))
                started[int(entry.name)] = fields[19]
    found: dict[int, str] = {}
    waiting = [pid]
    while waiting:
        for child in parents.get(waiting.pop(), []):
            found[child] = started[child]
            waiting.append(child)
    return found


def _still_there(tree: dict[int, str], patience_s: float = 2.0) -> list[int]:
    end = time.monotonic() + patience_s
    while True:
        left = []
        for pid, started in tree.items():
            with contextlib.suppress(OSError):
                fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
                if fields[19] == started and fields[0] != "Z":
                    left.append(pid)
        if not left or time.monotonic() > end:
            return left
        time.sleep(0.05)


def on_signals_exit() -> None:
    """SIGTERM and SIGHUP end the demo as Ctrl-C does: with the daemon stopped."""

    def leave(number: int, _frame: object) -> None:
        raise SystemExit(128 + number)

    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, leave)
