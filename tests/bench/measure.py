"""All contenders in turn: how long a run takes, what CPU, how much memory."""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Sequence

from tests.bench.contenders import Contender
from tests.bench.figures import spread
from tests.bench.resources import adopting, own_cpu_ms

WARM_ROUNDS = 1
RUNS_A_TURN = 4
CPU_RUNS = 40
CPU_S = 1.5
MOST_CPU_RUNS = 500
"""CPU is counted over so many runs, or more as long as this lasts: the kernel counts in ticks of 10 ms."""


def times_ms(contenders: Sequence[Contender], rounds: int, gap_s: float) -> dict[str, list[float]]:
    """Of every run, contenders taking turns: what else the machine does meets them all.

    A turn is some runs, of which the first, after all the others, counts for nobody. In another order each round: a
    command leaves work behind, such as network namespaces to be taken apart.
    """
    order = random.Random(1)
    times: dict[str, list[float]] = {each.name: [] for each in contenders}
    for number in range(rounds + WARM_ROUNDS):
        for each in order.sample(contenders, len(contenders)):
            took = turn(each, gap_s)
            if number >= WARM_ROUNDS:  # the first rounds warm caches for all
                times[each.name] += took
        if sys.stderr.isatty():
            print(f"\r{number + 1}/{rounds + WARM_ROUNDS} rounds ", end="", file=sys.stderr)
    return times


def turn(each: Contender, gap_s: float) -> list[float]:
    """Some runs of one, milliseconds each."""
    each.prepare(RUNS_A_TURN + 1)
    took = []
    for _ in range(RUNS_A_TURN + 1):
        time.sleep(gap_s)
        took.append(each.run() / each.inputs)
    return took[1:]


def runs(contenders: Sequence[Contender], rounds: int) -> dict[str, dict[str, dict[str, float]]]:
    """p50 and p99 by pace and name."""
    return {
        pace: {name: spread(values) for name, values in times_ms(contenders, rounds, gap_s).items()}
        for pace, gap_s in (("back to back", 0.0), ("spaced 10 ms", 0.01))
    }


def cost(each: Contender) -> dict[str, float | None]:
    """CPU of one run, its own and the caller's; memory of one instance."""
    each.prepare(CPU_RUNS)
    count, used, own, began = 0, each.cpu_ms(), own_cpu_ms(), time.monotonic()
    with adopting():
        while count < CPU_RUNS or (each.repeats and time.monotonic() < began + CPU_S and count < MOST_CPU_RUNS):
            each.run()
            count += 1
        own = own_cpu_ms() - own
    used = each.cpu_ms() - used
    memory = each.hold()
    return {"cpu_ms": used / count / each.inputs, "caller_cpu_ms": own / count / each.inputs, "instance_bytes": memory}
