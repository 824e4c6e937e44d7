"""The daemon as processes: what is left after many runs, and after kill -9 of any of them."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from plugind_client import Client, PlugindError
from tests.support.daemon import Daemon
from tests.support.jail import descendants

pytestmark = pytest.mark.root

MANIFEST = """schema = 1
name = "{name}"
version = "1.0.0"
summary = "For the tests"
license = "MIT"
origin = "authored"
runtime = "python"
requires_python = ">=3.11"
environment = "base"
interface = "json"
entrypoint = "{name}:run"
stages = ["*"]
deterministic = true
"""

KINDS = {
    "ends_well": ("def run(p, c): return p", {}, "ok"),
    "raises": ("def run(p, c): raise ValueError(p)", {}, "failed"),
    "forks": (
        "import os, time\ndef run(p, c):\n    if os.fork() == 0:\n        os.setsid(); time.sleep(60)\n    return 1",
        {},
        "ok",
    ),
    "trespasses": ("import ctypes\ndef run(p, c): ctypes.CDLL(None).unshare(0x10000000)", {}, "violation"),
    "floods": ("def run(p, c): return 'x' * (5 << 20)", {}, "output_limit"),
    "writes": ("def run(p, c): open('/tmp/x', 'wb').write(bytes(1 << 20)); return 1", {}, "ok"),
    "overtime": ("import time\ndef run(p, c): time.sleep(30)", {"timeout_ms": 20}, "timeout"),
}

SLEEPER = "import os, time\ndef run(p, c):\n    if p:\n        os.fork(); time.sleep(60)"
"""Sleeps only when it is asked to, so that it can be installed with `try`."""


def plugin(folder: Path, name: str, code: str) -> Path:
    """A bundle folder."""
    target = folder / name
    (target / "schemas").mkdir(parents=True)
    (target / "plugin.toml").write_text(MANIFEST.format(name=name))
    (target / f"{name}.py").write_text(code + "\n")
    for schema in ("input", "output"):
        (target / "schemas" / f"{schema}.json").write_text("{}")
    return target


def traces(daemon: Daemon) -> dict[str, Any]:
    """What the daemon has on this machine at this moment."""
    pids = [*daemon.pids, *descendants(daemon.pids[0])]
    names = sorted(Path(f"/proc/{pid}/comm").read_text().strip() for pid in set(pids))
    groups = [str(path) for path in Path("/sys/fs/cgroup").rglob("plugind-*") if path.is_dir()]
    return {
        "processes": names,
        "descriptors": sorted(
            (Path(f"/proc/{pid}/comm").read_text().strip(), len(list(Path(f"/proc/{pid}/fd").iterdir())))
            for pid in set(pids)
        ),
        "groups": sorted(sub for group in groups for sub in map(str, Path(group).rglob("*")) if Path(sub).is_dir()),
        "mounts of the host": Path("/proc/self/mountinfo").read_text().count("\n"),
        "mounts": {name: Path(f"/proc/{pid}/mountinfo").read_text().count("\n") for pid, name in _named(pids)},
        "temporary": sorted(path.name for path in Path("/tmp").iterdir() if path.name.startswith("plugind")),
        "state": sorted(path.name for path in daemon.state.iterdir()),
    }


def _named(pids: list[int]) -> list[tuple[int, str]]:
    return [(pid, Path(f"/proc/{pid}/comm").read_text().strip()) for pid in set(pids)]


def test_a_thousand_runs_leave_no_trace(tmp_path: Path) -> None:
    with Daemon() as daemon:
        client = daemon.client()
        for name, (code, _, _) in KINDS.items():
            daemon.try_plugin(plugin(tmp_path, name, code), None)
        for name, (_, options, _) in KINDS.items():
            client.execute(name, 1, **options)
        before = traces(daemon)
        for name, (_, options, outcome) in KINDS.items():
            rounds = 1000 if name in ("ends_well", "raises") else 150
            for _ in range(rounds):
                assert client.execute(name, 1, **options).outcome == outcome
        assert traces(daemon) == before


@pytest.mark.parametrize("victim", ["front", "launcher", "plugind-init", "plugind-zygote"])
@pytest.mark.parametrize("moment_ms", [0, 3, 8, 60])
def test_kill_9_at_any_moment(tmp_path: Path, victim: str, moment_ms: int) -> None:
    """`moment_ms` after the run was asked for: while the jail is being built, or while plugin code runs."""
    with Daemon() as daemon:
        daemon.try_plugin(plugin(tmp_path, "sleeper", SLEEPER), None)
        caller = threading.Thread(target=_ask, args=(daemon.client(),), daemon=True)
        caller.start()
        time.sleep(moment_ms / 1000)
        below = descendants(daemon.pids[0])
        for pid in _victims(daemon, victim, below):
            os.kill(pid, signal.SIGKILL)
        deadline = time.monotonic() + 0.05
        while _instances(below) and time.monotonic() < deadline:
            time.sleep(0.001)
        assert _instances(below) == []
        if victim in ("front", "launcher"):
            assert daemon.wait_gone(10)
        caller.join(20)
        assert not caller.is_alive()


def _ask(client: Client) -> None:
    try:
        client.execute("sleeper", 1)
    except PlugindError:
        pass  # what the caller sees then is tested elsewhere


def _victims(daemon: Daemon, victim: str, below: dict[int, str]) -> list[int]:
    if victim == "front":
        return [daemon.pids[0]]
    if victim == "launcher":
        return [daemon.pids[1]]
    return [pid for pid, name in below.items() if name == victim]


def _instances(below: dict[int, str]) -> list[int]:
    alive = []
    for pid, name in below.items():
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            continue
        if name == "plugind-plugin" and state not in "ZX":
            alive.append(pid)
    return alive


def test_a_daemon_after_a_crash_sweeps_what_was_left(tmp_path: Path) -> None:
    with Daemon() as first:
        os.kill(first.pids[1], signal.SIGKILL)
        assert first.wait_gone(10)
        with Daemon(state=first.state) as second:
            result = second.try_plugin(plugin(tmp_path, "ends_well", KINDS["ends_well"][0]), 7)
            assert result["output"] == 7


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_ends_on_signals_with_every_instance_gone(tmp_path: Path, number: signal.Signals) -> None:
    with Daemon() as daemon:
        daemon.try_plugin(plugin(tmp_path, "sleeper", SLEEPER), None)
        caller = threading.Thread(target=_ask, args=(daemon.client(),), daemon=True)
        caller.start()
        time.sleep(0.1)
        below = descendants(daemon.pids[0])
        assert _instances(below)
        os.kill(daemon.pids[0], number)
        assert daemon.wait_gone(5)
        assert [pid for pid in below if Path(f"/proc/{pid}").exists()] == []
        assert not daemon.socket.exists()
        caller.join(20)
        assert not caller.is_alive()


def test_the_front_has_no_privilege(tmp_path: Path) -> None:
    with Daemon() as daemon:
        status = Path(f"/proc/{daemon.pids[0]}/status").read_text()
        fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
        assert int(fields["Uid"].split()[0]) != 0
        assert {int(fields[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {0}
        assert fields["NoNewPrivs"].strip() == "1"
        maps = subprocess.run(
            ["grep", "-c", "grpc", f"/proc/{daemon.pids[1]}/maps"], capture_output=True, text=True, check=False
        )
        assert maps.stdout.strip() == "0", "the launcher has grpc in memory"
