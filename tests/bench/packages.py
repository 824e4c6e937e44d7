"""A plugin that imports pandas against one that imports nothing; and what the import costs where each run pays for it.

The environment is built as an operator builds one, from a lock that pip's own resolver makes here.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from plugind.environments.shelf import Shelf, path_of
from tests.bench import commands
from tests.bench.contenders import timed
from tests.bench.figures import spread
from tests.bench.plugins import CODE, ECHO, PAYLOAD, write_plugin
from tests.bench.resources import tree_pss_bytes
from tests.support.daemon import BIN, Daemon
from tests.support.jail import PARKED, descendants

PACKAGE: Final = "pandas"
NAME: Final = "bench_pandas"
ROUNDS: Final = 10
RUNS: Final = 5
SLOW_ROUNDS: Final = 3
"""Of the commands, each of which takes half a second for the import alone."""


def measure() -> dict[str, Any]:
    """Milliseconds, by who runs. `refused`: why there is nothing to measure here, such as no way to the packages."""
    with tempfile.TemporaryDirectory(prefix="plugind-bench-") as name, Daemon() as daemon:
        folder = Path(name)
        try:
            build(daemon, folder)
        except subprocess.CalledProcessError as error:
            return {"refused": " ".join(error.stderr.decode(errors="replace").split())[-300:]}
        daemon.install(write_plugin(folder, ECHO, CODE))
        daemon.install(write_plugin(folder, NAME, f"import {PACKAGE}\n{CODE}", environment=PACKAGE))
        client = daemon.client()
        first_ms = timed(lambda: client.run(NAME, PAYLOAD))
        runs: dict[str, Callable[[], object]] = {
            "nothing": lambda: client.run(ECHO, PAYLOAD),
            PACKAGE: lambda: client.run(NAME, PAYLOAD),
        }
        found = {what: spread(values) for what, values in in_turns(runs, ROUNDS).items()}
        others = {what: spread(values) for what, values in in_turns(imports(folder, daemon), SLOW_ROUNDS).items()}
        return {
            "first_ms": first_ms,
            "runs": found,
            "imports": others,
            "template_bytes": largest(daemon, "plugind-zygote"),
            "parked_bytes": largest(daemon, PARKED),
        }


def build(daemon: Daemon, folder: Path) -> None:
    """The environment. Raises CalledProcessError."""
    report = folder / "report.json"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--dry-run"]
    run([*pip, "--ignore-installed", "--only-binary", ":all:", "--report", str(report), PACKAGE])
    lock = folder / "requirements.lock"
    lock.write_text("".join(map(pinned, json.loads(report.read_text())["install"])))
    variables = os.environ | {"PLUGIND_STATE": str(daemon.state)}
    run([str(BIN / "plugindctl"), "environment", "build", PACKAGE, "--lock", str(lock)], variables)


def run(line: list[str], variables: dict[str, str] | None = None) -> None:
    """A command whose words are wanted only when it fails."""
    subprocess.run(line, env=variables, capture_output=True, check=True, timeout=600)


def pinned(item: dict[str, Any]) -> str:
    """A line of a lock."""
    hashes = item["download_info"]["archive_info"]["hashes"]
    return f"{item['metadata']['name']}=={item['metadata']['version']} --hash=sha256:{hashes['sha256']}\n"


def imports(folder: Path, daemon: Daemon) -> dict[str, Callable[[], object]]:
    """The same program with the same files, as commands that import them each time."""
    environment = Shelf(path_of(daemon.state)).get(PACKAGE)
    assert environment is not None
    files = Shelf(path_of(daemon.state)).tree(environment.digest)
    program = folder / "program.py"
    program.write_text(f"import sys\nsys.path.append({str(files)!r})\nimport {PACKAGE}\n{CODE}")
    own = [commands.PYTHON, str(program)]
    tried = [commands.Command(commands.PLAIN, own), commands.Command("bwrap", [*commands.BWRAP, *own])]
    return {each.name: each.once for each in tried if each.attempt()}


def in_turns(runs: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Milliseconds of every run; the first round counts for nobody."""
    times: dict[str, list[float]] = {what: [] for what in runs}
    for number in range(rounds + 1):
        for what, once in runs.items():
            took = [timed(once) for _ in range(RUNS)]
            times[what] += took if number else []
    return times


def largest(daemon: Daemon, name: str) -> int:
    """Memory of the largest of the daemon's processes with a name: the one that has the packages."""
    found = descendants(daemon.process.pid)
    return int(max(tree_pss_bytes(pid) for pid, called in found.items() if called == name))
