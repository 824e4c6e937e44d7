"""A thousand runs of every kind: ten minutes on two cores."""

from __future__ import annotations

from pathlib import Path

from tests.system.test_processes import leave_no_trace


def test_a_thousand_runs_of_every_kind_leave_no_trace(tmp_path: Path) -> None:
    leave_no_trace(tmp_path, rounds=1000)
