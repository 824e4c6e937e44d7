"""What times and counters come to. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Sequence


def percentile(values: Sequence[float], percent: int) -> float:
    """Of at least one value; between two of them by proportion. Raises ValueError."""
    if not values:
        raise ValueError("expected at least one value, got none")
    if len(values) == 1:
        return values[0]
    return statistics.quantiles(values, n=100, method="inclusive")[percent - 1]


def spread(times_ms: Sequence[float]) -> dict[str, float]:
    """p50 and p99, milliseconds."""
    return {"p50_ms": percentile(times_ms, 50), "p99_ms": percentile(times_ms, 99)}


def pss_bytes(rollup: str) -> int:
    """Of the text of /proc/PID/smaps_rollup. Raises ValueError. Source: proc_pid_smaps(5)."""
    for line in rollup.splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    raise ValueError(f"expected a line that begins with Pss:, got {rollup[:80]!r}")
