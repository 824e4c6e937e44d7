"""Runs a second of one daemon with 16 callers in two processes, beside what the bare loop of the same jail does."""

from __future__ import annotations

import contextlib
from typing import Any

from tests.bench.figures import spread
from tests.bench.resources import tree_cpu_ms, tree_pss_bytes
from tests.bench.worker import Worker
from tests.support.daemon import Daemon

PROCESSES = 2
CALLERS = 16
TURNS = 2
WARM_S = 2.0
LEVELS = (1, 2, 4, 8, 16)


def measure(daemon: Daemon, floor: Worker, seconds: float, soak_s: float = 0) -> dict[str, Any]:
    """The daemon and the loop take turns; then the daemon alone for `soak_s`, to see whether its memory stays flat."""
    with contextlib.ExitStack() as stack:
        callers = [stack.enter_context(Worker("caller", str(daemon.socket))) for _ in range(PROCESSES)]
        press(daemon, callers, WARM_S)
        first_bytes = tree_pss_bytes(daemon.process.pid)
        turns = []
        for _ in range(TURNS):
            turns.append(press(daemon, callers, seconds / TURNS))
            turns[-1]["bare_runs_per_s"] = floor.ask("load", callers=CALLERS, seconds=seconds / TURNS)["runs_per_s"]
        found = joined(turns)
        if soak_s:
            found["soak"] = without_times(press(daemon, callers, soak_s))
        found["first_pss_bytes"], found["last_pss_bytes"] = first_bytes, tree_pss_bytes(daemon.process.pid)
    per_level = max(0.5, seconds / 10)
    found["bare_loop"] = [floor.ask("load", callers=level, seconds=per_level) for level in LEVELS]
    return found


def press(daemon: Daemon, callers: list[Worker], seconds: float) -> dict[str, Any]:
    """All callers at once."""
    used = tree_cpu_ms(daemon.process.pid)
    for caller in callers:
        caller.tell("load", threads=CALLERS // PROCESSES, seconds=seconds)
    heard = [caller.hear() for caller in callers]
    times = [took for each in heard for took in each["times_ms"]]
    if not times:
        raise RuntimeError(f"expected runs, got {heard[0]['failure']}")
    return {
        "times_ms": times,
        "runs_per_s": len(times) / max(each["seconds"] for each in heard),
        "failures": sum(each["failures"] for each in heard),
        "failure": next((each["failure"] for each in heard if each["failure"]), ""),
        "cpu_ms": (tree_cpu_ms(daemon.process.pid) - used) / len(times),
        "caller_cpu_ms": sum(each["cpu_ms"] for each in heard) / len(times),
    }


def joined(turns: list[dict[str, Any]]) -> dict[str, Any]:
    """Of all turns: means of rates, percentiles over all runs. Pure."""

    def mean(name: str) -> float:
        return sum(turn[name] for turn in turns) / len(turns)

    names = ("runs_per_s", "bare_runs_per_s", "cpu_ms", "caller_cpu_ms")
    return {
        "callers": CALLERS,
        **{name: mean(name) for name in names},
        "of_bare": mean("runs_per_s") / mean("bare_runs_per_s"),
        "failures": sum(turn["failures"] for turn in turns),
        "failure": next((turn["failure"] for turn in turns if turn["failure"]), ""),
        **spread([took for turn in turns for took in turn["times_ms"]]),
    }


def without_times(turn: dict[str, Any]) -> dict[str, Any]:
    """The same with percentiles instead of every run. Pure."""
    return {**{name: value for name, value in turn.items() if name != "times_ms"}, **spread(turn["times_ms"])}
