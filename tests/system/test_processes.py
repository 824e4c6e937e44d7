"""The daemon as processes: what is left after many runs, and after kill -9 of any of them."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from plugind_client import Client, PlugindError
from tests.support.daemon import Daemon
from tests.support.groups import groups_of_state
from tests.support.jail import assert_gone_within_50_ms, descendants, living_instances
from tests.support.plugins import folder

pytestmark = pytest.mark.root

KINDS = {
    "ok": ("def run(p, c): return p", {}),
    "failed": ("def run(p, c): raise ValueError(p)", {}),
    "violation": ("import ctypes\ndef run(p, c): ctypes.CDLL(None).unshare(0x10000000)", {}),
    "output_limit": ("def run(p, c): return 'x' * (5 << 20)", {}),
    "output_invalid": ("import os\ndef run(p, c): os._exit(0)", {}),
    "timeout": ("import os, time\ndef run(p, c):\n    os.fork(); time.sleep(30)", {"timeout_ms": 20}),
    "cpu_exceeded": ("def run(p, c):\n    while True: pass", {"limits": "cpu_ms = 20"}),
    "out_of_memory": ("def run(p, c): return len(bytearray(64 << 20))", {"limits": "memory_bytes = 33554432"}),
    "pids_exceeded": ("import os\ndef run(p, c):\n    while True: os.fork()", {"limits": "pids = 4"}),
    "leaves_a_child": (
        "import os, time\ndef run(p, c):\n    if os.fork() == 0:\n        os.setsid(); time.sleep(60)\n    return 1",
        {"outcome": "ok"},
    ),
    "writes": (
        "def run(p, c): open('/tmp/x', 'wb').write(bytes(1 << 20)); open('/dev/shm/y', 'w'); return 1",
        {"outcome": "ok"},
    ),
    "denied": ("def run(p, c): return 1", {"stage": "none_of_its_own", "outcome": ""}),
}
"""How a run can end, or what it can do: the outcome is the name, unless it says otherwise."""
AT_A_TIME = 4

SLEEPER = "import os, time\ndef run(p, c):\n    if p:\n        os.fork(); time.sleep(60)"
"""Sleeps only when it is asked to, so that it can be installed with `try`."""


def traces(daemon: Daemon) -> dict[str, Any]:
    """What the daemon has on this machine at this moment."""
    processes = [seen for pid in {*daemon.pids, *descendants(daemon.pids[0])} if (seen := _process(pid))]
    return {
        "processes": sorted(name for name, _, _ in processes),
        "descriptors": sorted((name, descriptors) for name, descriptors, _ in processes),
        "groups": groups_of_state(daemon.state),
        "mounts of the host": Path("/proc/self/mountinfo").read_text().count("\n"),
        "mounts": {name: mounts for name, _, mounts in processes},
        "temporary": sorted(path.name for path in daemon.socket.parent.iterdir()),
        "state": sorted(path.name for path in daemon.state.iterdir()),
    }


def _process(pid: int) -> tuple[str, int, int] | None:
    """Its name, descriptors and mounts; nothing of one that ended while it was looked at: it is no trace."""
    proc = Path(f"/proc/{pid}")
    try:
        name = (proc / "comm").read_text().strip()
        return name, len(list((proc / "fd").iterdir())), (proc / "mountinfo").read_text().count("\n")
    except (FileNotFoundError, ProcessLookupError):
        return None
    except OSError as error:
        if error.errno == errno.EINVAL:  # mountinfo of one that has ended and is not reaped: proc(5) does not say so
            return None
        raise


@pytest.mark.timeout(300)
def test_a_thousand_runs_of_all_kinds_leave_no_trace(tmp_path: Path) -> None:
    leave_no_trace(tmp_path, rounds=90)  # of each kind; tests/soak takes a thousand


def leave_no_trace(tmp_path: Path, rounds: int) -> None:
    """So many runs of each kind, and then everything is as it was before.

    What waits for a run is no trace, and how many do is the daemon's choice: it goes by a kill before one looks.
    """
    with Daemon() as daemon:
        client = daemon.client()
        for name, (code, options) in KINDS.items():
            limits = f"[limits]\n{options['limits']}\n" if "limits" in options else ""
            stages = ("durations",) if name == "denied" else ("*",)
            daemon.install(folder(tmp_path, f"kind_{name}", code=code, extra=limits, stages=stages))
        with ThreadPoolExecutor(AT_A_TIME) as pool:
            # Once each, and as many at a time as later: what is made once and kept is no trace.
            list(pool.map(lambda name: one(client, name), [*KINDS] * AT_A_TIME))
            before = settled_without_parked(client, daemon)
            for outcome in pool.map(lambda name: one(client, name), [*KINDS] * rounds):
                assert outcome is None
        assert settled_without_parked(client, daemon) == before


def one(client: Client, name: str) -> str | None:
    """One run; how it ended where that is not as it should be."""
    options = KINDS[name][1]
    call = {key: options[key] for key in ("timeout_ms", "stage") if key in options}
    result = client.execute(f"kind_{name}", 1, **call)
    expected = options.get("outcome", name)
    return None if result.outcome == expected else f"{name}: {result.outcome} {result.outcome_detail} {result.reasons}"


def settled_without_parked(client: Client, daemon: Daemon) -> dict[str, Any]:
    """The traces, with nothing imported ahead any more."""
    assert client.kill("all", "to look at what is left").unconfirmed_runs == 0
    client.lift_kill("all", "it was only to look")
    return settled(daemon)


def settled(daemon: Daemon) -> dict[str, Any]:
    """The traces, when they do not change any more: the last answer is a moment ahead of the last close()."""
    seen = traces(daemon)
    for _ in range(50):
        time.sleep(0.05)
        now = traces(daemon)
        if now == seen:
            break
        seen = now
    return seen


@pytest.mark.parametrize("victim", ["front", "launcher", "plugind-init", "plugind-zygote"])
@pytest.mark.parametrize("moment_ms", [0, 3, 8, 60])
def test_kill_9_at_any_moment(tmp_path: Path, victim: str, moment_ms: int) -> None:
    """`moment_ms` after the run was asked for: while the jail is being built, or while plugin code runs."""
    with Daemon() as daemon:
        # Where the victim was gone before the run was there, the run goes on to the end of its time.
        daemon.install(folder(tmp_path, "sleeper", code=SLEEPER, extra="[limits]\nwall_ms = 1500"))
        caller = threading.Thread(target=_ask, args=(daemon.client(),), daemon=True)
        caller.start()
        time.sleep(moment_ms / 1000)
        below = descendants(daemon.pids[0])
        for pid in _victims(daemon, victim, below):
            os.kill(pid, signal.SIGKILL)
        assert_gone_within_50_ms(below)
        if victim in ("front", "launcher"):
            assert daemon.wait_gone(10)
        caller.join(20)
        assert not caller.is_alive()
        if victim in ("front", "launcher"):
            daemon.restart()
        accounted(daemon)


def accounted(daemon: Daemon) -> None:
    """Every execution has INTENT and OUTCOME, once; nothing was lost, and nothing runs."""
    verified = daemon.command("audit", "verify", "--no-journal", "--json")
    assert verified.returncode == 0, verified.stdout
    records = json.loads(daemon.command("audit", "list", "--limit", "1000", "--json").stdout)
    intents = [record["index"] for record in records if record["event"] == "INTENT"]
    closed = [record["intent"] for record in records if record["event"] in ("OUTCOME", "DENIED") and "intent" in record]
    assert sorted(intents) == sorted(index for index in closed if index >= 0)
    assert living_instances(descendants(daemon.pids[0])) == []


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


def test_a_daemon_after_a_crash_sweeps_what_was_left(tmp_path: Path) -> None:
    with Daemon() as first:
        os.kill(first.pids[1], signal.SIGKILL)
        assert first.wait_gone(10)
        with Daemon(state=first.state) as second:
            second.install(folder(tmp_path, "again", code="def run(p, c): return p"))
            assert second.client().execute("again", 7).output == 7


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_ends_on_signals_with_every_instance_gone(tmp_path: Path, number: signal.Signals) -> None:
    with Daemon() as daemon:
        daemon.install(folder(tmp_path, "sleeper", code=SLEEPER))
        caller = threading.Thread(target=_ask, args=(daemon.client(),), daemon=True)
        caller.start()
        deadline = time.monotonic() + 10
        while not living_instances(below := descendants(daemon.pids[0])):
            assert time.monotonic() < deadline, "nothing runs"
            time.sleep(0.01)
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


def test_a_burst_of_starts_is_taken_whole(tmp_path: Path) -> None:
    """As many at once as the tier has places: none is refused for lack of room in a socket of ours."""
    with Daemon() as daemon:
        daemon.install(folder(tmp_path, "burst", code="import time\ndef run(p, c):\n    time.sleep(0.2); return p"))
        client = daemon.client()
        with ThreadPoolExecutor(32) as pool:
            for _ in range(4):
                results = list(pool.map(lambda number: client.execute("burst", number), range(32)))
                assert [(result.output, result.reasons) for result in results] == [(n, ()) for n in range(32)]
