"""Observations and anomalies for tests."""

from __future__ import annotations

from plugind.governance.observations import Anomaly, Observation
from plugind.model import Outcome, Usage


def observation(**fields):
    given = {
        "index": 5, "intent": 4, "run": "r1", "plugin_id": "plug_1", "plugin": "demo", "version": "1.0.0",
        "digest": "ab" * 32, "tier": 2, "stage": "durations", "plan_id": "plan-1", "caller_uid": 1000, "mode": "run",
        "outcome": Outcome.VIOLATION, "detail": "unshare", "codes": (), "usage": Usage(3, 2, 1), "output_bytes": 0,
        "violations": (), "at_unix_ms": 40,
    }  # fmt: skip
    return Observation(**given | fields)


def anomaly(**fields):
    given = {
        "trigger": "dangerous_syscall",
        "hard": True,
        "severity": "high",
        "expected": "no call that no plugin may make",
        "actual": "unshare",
        "numbers": {"count": 1.0},
        "seen": observation(),
    }
    return Anomaly(**given | fields)
