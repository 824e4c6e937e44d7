"""A container with systemd and plugind in it, and how a test drives it: as an operator, by commands."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from tests.support.pace import stretched

HERE = Path(__file__).parent
TREE = HERE.parents[1]
BOOT_S = 240
RUN_SOCKET = "/run/plugind/run/plugind.sock"
ADMIN_SOCKET = "/run/plugind/admin.sock"
PYTHON = "/opt/plugind/bin/python"


@dataclass(frozen=True)
class Done:
    code: int
    out: str
    err: str


class RefusedError(Exception):
    """plugindctl printed an error instead of an answer."""

    def __init__(self, exit_code: int, error: dict[str, Any]) -> None:
        super().__init__(f"{exit_code}: {error}")
        self.exit_code = exit_code
        self.code: str = error["code"]


class Container:
    """Started by `with`; afterwards nothing of it is left: its mounts end with its namespace, its groups are removed."""

    def __init__(self) -> None:
        if os.geteuid() != 0:
            raise AssertionError("needs root: `make test-systemd` asks for it")
        if shutil.which("systemd-nspawn") is None:
            raise AssertionError("systemd-nspawn is missing: apt-get install systemd-container (`make setup` does)")

    def __enter__(self) -> Self:
        self.work = Path(tempfile.mkdtemp(prefix="plugind-systemd-"))
        self.share = self.work / "share"
        self.console = self.work / "console.log"
        shutil.copytree(HERE / "inside", self.share)
        self.share.chmod(0o755)
        with self.console.open("wb") as console:
            self._process = subprocess.Popen(
                ["unshare", "--mount", "--propagation", "private", HERE / "boot.sh", self.work, TREE],
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            self._wait_for_agent()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError, ValueError):
            self.do("systemctl", "--no-block", "poweroff")
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        for group in Path("/sys/fs/cgroup").glob(f"*/{self.work.name}"):
            _remove_groups(group)
        shutil.rmtree(self.work)

    def _wait_for_agent(self) -> None:
        deadline = time.monotonic() + BOOT_S
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                raise AssertionError(f"the container could not be made or has ended:\n{self.console.read_text()}")
            with contextlib.suppress(OSError):
                if self.do("true").code == 0:
                    return
            time.sleep(0.1)
        raise AssertionError(f"the container was not up after {BOOT_S} s:\n{self.console.read_text()}")

    # -- commands

    def do(self, *argv: str, user: str = "root", text: str = "", timeout_s: float = 60) -> Done:
        timeout_s = stretched(timeout_s)
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(timeout_s + 10)
            sock.connect(str(self.share / "agent.sock"))
            order = {"argv": argv, "user": user, "text": text, "timeout_s": timeout_s}
            sock.sendall(json.dumps(order).encode() + b"\n")
            with sock.makefile("rb") as answer:
                return Done(**json.loads(answer.read()))

    def get(self, *argv: str, user: str = "root", text: str = "", timeout_s: float = 60) -> str:
        """Standard output of a command that has to succeed."""
        done = self.do(*argv, user=user, text=text, timeout_s=timeout_s)
        assert done.code == 0, (argv, done)
        return done.out

    def shell(self, script: str) -> str:
        return self.get("sh", "-ec", script)

    def show(self, unit: str, name: str) -> str:
        return self.get("systemctl", "show", "--value", "-p", name, unit).strip()

    def journal(self, *matches: str) -> list[dict[str, Any]]:
        self.get("journalctl", "--sync")
        lines = self.get("journalctl", "--output=json", "--all", "--quiet", *matches).splitlines()
        return [json.loads(line) for line in lines]

    # -- plugindctl

    def ctl(self, user: str, *arguments: str, text: str = "") -> Done:
        """`plugindctl ARGUMENTS`, as that user types it."""
        return self.do("plugindctl", *arguments, user=user, text=text, timeout_s=100)

    def ask(self, user: str, *arguments: str, text: str = "") -> Any:
        """What `plugindctl ARGUMENTS --json` prints. Raises RefusedError."""
        done = self.ctl(user, *arguments, "--json", text=text)
        try:
            answer = json.loads(done.out)
        except ValueError:
            raise AssertionError(f"{arguments}: {done}") from None
        if isinstance(answer, dict) and "error" in answer and "decision" not in answer:
            raise RefusedError(done.code, answer["error"])
        return answer

    def run(self, plugin: str, payload: Any, user: str = "paul") -> dict[str, Any]:
        """Run a plugin; `codes` are the reasons of a denial."""
        answer: dict[str, Any] = self.ask(user, "run", plugin, "--input", "-", text=json.dumps(payload))
        answer["codes"] = [reason["code"] for reason in answer["reasons"]]
        return answer

    def status(self) -> dict[str, Any]:
        answer: dict[str, Any] = self.ask("paul", "status")
        return answer

    def audit(self, *arguments: str) -> Any:
        return self.ask("olga", "audit", *arguments, "--socket", ADMIN_SOCKET)

    def kill(self, target: str) -> dict[str, Any]:
        answer: dict[str, Any] = self.ask("olga", "kill", target, "--reason", "it has to stop")
        return answer

    def lift(self, target: str) -> None:
        self.ask("olga", "kill", "--lift", target, "--reason", "mended")

    def started(self) -> None:
        """plugind runs and has its launcher."""
        self.get("systemctl", "start", "plugind-launcher.socket", "plugind")
        self.until(lambda: self.ctl("paul", "status").code == 0, "all is well")

    def until(self, holds: Callable[[], object], what: str, timeout_s: float = 30) -> None:
        deadline = time.monotonic() + stretched(timeout_s)
        while time.monotonic() < deadline:
            with contextlib.suppress(RefusedError):
                if holds():
                    return
            time.sleep(0.1)
        log = self.do("journalctl", "--no-pager", "-n", "40", "-u", "plugind", "-u", "plugind-launcher").out
        raise AssertionError(f"after {stretched(timeout_s):.0f} s still not: {what}\n{log}")

    # -- plugins

    def plugin(self, name: str, code: str, *, environment: str = "base", more: str = "", **limits: int) -> Path:
        """Write a plugin's folder. `more` is TOML at the end of its manifest."""
        folder = self.share / "plugins" / name
        for below in ("schemas", "cases"):
            (folder / below).mkdir(parents=True)
        lines = "".join(f"{key} = {value}\n" for key, value in limits.items())
        (folder / "plugin.toml").write_text(MANIFEST.format(name=name, environment=environment, limits=lines) + more)
        (folder / "schemas" / "input.json").write_text("{}")
        (folder / "schemas" / "output.json").write_text("{}")
        (folder / f"{name}.py").write_text(code)
        return folder

    def submit(self, name: str, code: str = "", **written: Any) -> None:
        """Hand a plugin in as the operator olga; with `code` write it first."""
        if code:
            self.plugin(name, code, **written)
        self.ask("olga", "submit", f"/mnt/t/plugins/{name}")

    def approve(self, name: str, user: str = "anna") -> None:
        self.ask(user, "approve", f"{name}@1.0.0", "--as-declared", "--reason", "read it", "--yes")

    def activate(self, name: str, user: str = "olga") -> None:
        self.ask(user, "activate", f"{name}@1.0.0")


MANIFEST = """\
schema = 1
name = "{name}"
version = "1.0.0"
summary = "Made for a test"
license = "MIT"
origin = "authored"
runtime = "python"
requires_python = ">=3.11"
environment = "{environment}"
interface = "json"
entrypoint = "{name}:run"
stages = ["*"]
deterministic = true
[limits]
{limits}[schemas]
input = "schemas/input.json"
output = "schemas/output.json"
"""


def _remove_groups(top: Path) -> None:
    deadline = time.monotonic() + 5
    while top.exists():
        for folder, _, _ in os.walk(top, topdown=False):
            with contextlib.suppress(OSError):  # the last process in it is not reaped yet
                Path(folder).rmdir()
        assert time.monotonic() < deadline, f"{top} could not be removed"
        time.sleep(0.01)
