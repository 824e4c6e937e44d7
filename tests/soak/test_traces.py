"""Ten thousand runs that end in every way: an hour or less on two cores. PLUGIND_SOAK_RUNS makes it more or fewer."""

from __future__ import annotations

import os
from pathlib import Path

from tests.soak.mix import leave_no_trace

RUNS = int(os.environ.get("PLUGIND_SOAK_RUNS", "10000"))


def test_ten_thousand_runs_of_every_kind_leave_no_trace_and_take_no_memory(tmp_path: Path) -> None:
    leave_no_trace(tmp_path, RUNS, lambda line: print(line, flush=True))
