"""A daemon as `plugindctl top` sees it, made up: what each look finds, and what its keys were asked to do."""

from __future__ import annotations

import threading
import time

from plugind_client.cli.top.reading import Anomaly, Figure, Metrics, Reading
from plugind_client.errors import NotAllowed, Unavailable
from plugind_client.records import Hold, RunningRun, Status

HOSTILE = "\x1b[2J[bold red]boo[/]\nall is well\u202e"
"""Steers a terminal, is markup of rich, and looks like a line of ours."""
NOW_MS = 1_700_000_000_000


def run(run_id="r1", **fields):
    given = {
        "plugin_id": "plug_1",
        "plugin": "costs",
        "version": "1.0.0",
        "tier": 2,
        "stage": "durations",
        "started_unix_ms": NOW_MS - 5000,
        "caller_uid": 1000,
        "state": "running",
        "memory_bytes": 52 << 20,
        "cpu_ms": 1500,
        "pids": 4,
        "refused_calls": 0,
        "sampled_unix_ms": NOW_MS,
    }
    return RunningRun(run_id, **(given | fields))


def hold(kind="killed", target="costs@1.0.0", reason="wrong sums"):
    return Hold(kind, target, reason, 0, NOW_MS)


def status(**fields):
    given = {
        "daemon_version": "9.9",
        "mode": "production",
        "started_unix_ms": NOW_MS - 3_700_000,
        "runs_in_flight": 1,
        "launcher_problem": "",
        "cgroup_driver": "unified",
        "unavailable_tiers": {},
        "ledger_size": 3,
        "ledger_root": "00",
        "ledger_problem": "",
        "journal": "",
        "policy_sha256": "",
        "policy_path": "",
        "holds": (),
        "plugins": 1,
    }
    return Status(**(given | fields))


def metrics(**values):
    """`runs_total={"ok": 3}` and the like."""
    labels = {"runs_total": "outcome", "denials_total": "code", "violations_total": "kind"}
    return Metrics(
        {
            f"plugind_{name}": tuple(Figure({labels.get(name, "tier"): each}, value) for each, value in found.items())
            for name, found in values.items()
        }
    )


def anomaly(**fields):
    given = {
        "at_unix_ms": NOW_MS,
        "severity": "high",
        "hard": True,
        "observed": False,
        "trigger": "dangerous_syscall",
        "plugin": "costs",
        "version": "1.0.0",
        "run_id": "r1",
        "expected": "no such call",
        "actual": "mount",
    }
    return Anomaly(**(given | fields))


def reading(at_s=0.0, **fields):
    given = {"status": status(), "metrics": metrics(), "anomalies": ()}
    return Reading(at_s, NOW_MS + int(at_s * 1000), **(given | fields))


class FakeTopDaemon:
    """See plugind_client.cli.top.source.Daemon."""

    socket = "/nowhere/plugind.sock"

    def __init__(self, *runs):
        self.runs = list(runs)
        self.holds = []
        self.anomalies = ()
        self.looks = 0
        self.asked = []
        self.away = False
        self.refuses = False
        self.breaks = False
        self.answers = threading.Event()
        self.answers.set()
        self.closed = False

    def look(self):
        self.looks += 1
        self.answers.wait(10)
        if self.breaks:
            raise ZeroDivisionError(HOSTILE)
        if self.away:
            return Reading(time.monotonic(), NOW_MS, error=Unavailable("UNAVAILABLE", detail="nobody"))
        found = status(holds=tuple(self.holds), runs_in_flight=len(self.runs))
        return reading(status=found, runs=tuple(self.runs), anomalies=self.anomalies)

    def cancel(self, run_id):
        return self._do("cancel", run_id)

    def kill(self, target, reason):
        said = self._do("kill", target, reason)
        self.runs = [each for each in self.runs if f"{each.plugin}@{each.version}" != target]
        self.holds.append(hold(target=target, reason=reason))
        return said

    def lift(self, target, reason):
        return self._do("lift", target, reason)

    def quarantine(self, target, reason):
        return self._do("quarantine", target, reason)

    def _do(self, *asked):
        if self.refuses:
            raise NotAllowed("NOT_ALLOWED", detail=f"Kill: expected role operator {HOSTILE}")
        self.asked.append(asked)
        return f"{asked[0]} of {asked[1]} is done"

    def close(self):
        self.closed = True
        self.answers.set()
