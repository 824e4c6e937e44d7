"""What a run is compared by, and what is more of it than is usual. Pure.

That is beyond median + deviations x MAD of its version's last good runs (Hampel 1974), in wall_ms (parked_wall_ms),
memory_peak_bytes and output_bytes. The time of a run whose instance had imported ahead is compared with such runs: one
that builds its jail and imports takes many times as long, as all do after a start of the daemon. Runs only: a map or a
session is as large as its caller makes it.

More is allowed to a run
- that had others beside it: jails were built for them, and if there were more of them than is usual, each took its
  share of the CPUs. Fewer than is usual change nothing: who waits is as slow alone as among many.
- with a larger input than is usual: as many times more of everything. Plans grow.
"""

from __future__ import annotations

from typing import Final

from plugind.governance.observations import Observation
from plugind.governance.samples import Samples
from plugind.governance.statistics import DURATIONS, Level, Statistics
from plugind.model import Monitoring, Outcome

FLOORS: Final = {
    "wall_ms": (10.0, 0.5),
    "memory_peak_bytes": (4.0 * 1024 * 1024, 0.25),
    "output_bytes": (1024.0, 0.5),
    "parked_wall_ms": (2.0, 0.5),
}
"""A MAD is taken to be at least this, and at least such a part of the median: runs that are all alike may differ once,
and a busy machine makes everybody three times as slow, and who has to build a jail and import several times."""
JAIL_MS: Final = 10.0
"""What another run's jail takes of a CPU, and so a MAD at the least for each of them."""
SMALL_INPUT_BYTES: Final = 1024
"""What is usual is taken to be at least this: an input of 2 bytes says nothing of what one of 200 needs."""
BEYOND: Final = {
    Outcome.TIMEOUT: "wall_ms",
    Outcome.CPU_EXCEEDED: "wall_ms",
    Outcome.OUT_OF_MEMORY: "memory_peak_bytes",
    Outcome.OUTPUT_LIMIT: "output_bytes",
}
"""Outcomes of runs that were beyond the limit itself. One with too many processes is a failure."""


def measured(seen: Observation) -> dict[str, int]:
    """What of a run is to be compared: of a good one all that is known, else the one whose limit it hit."""
    duration = "parked_wall_ms" if seen.ahead else "wall_ms"
    found = {
        duration: seen.usage.wall_ms,
        "memory_peak_bytes": seen.usage.memory_peak_bytes,
        "output_bytes": seen.output_bytes,
    }
    if seen.outcome is Outcome.OK:
        return {name: size for name, size in found.items() if size or name != "memory_peak_bytes"}
    limited = BEYOND.get(seen.outcome) if seen.outcome is not None else None
    limited = duration if limited == "wall_ms" else limited
    return {limited: found[limited]} if limited else {}


class Usual:
    """What is usual of one version, by its statistics. `seen`: the run that is compared; None: one like the others."""

    def __init__(self, statistics: Statistics, thresholds: Monitoring, cpus: int) -> None:
        """`cpus`: how many the machine has."""
        self._statistics = statistics
        self._thresholds = thresholds
        self._cpus = cpus

    def learn(self, name: str, sample: int, seen: Observation) -> None:
        """One more sample of a measure."""
        level = self._statistics.levels[name]
        level.samples.add(sample)
        if name in DURATIONS:
            level.beside.add(seen.beside)

    def level(self, name: str) -> Level:
        """What that measure is compared with.

        Of runs whose instances had imported ahead, while there are too few, the others' time too: theirs is longer.
        """
        own = self._statistics.levels[name]
        if name != "parked_wall_ms" or len(own.samples) >= self._thresholds.warm_up:
            return own
        others = self._statistics.levels["wall_ms"]
        return Level(
            Samples((*others.samples.values, *own.samples.values)), Samples((*others.beside.values, *own.beside.values))
        )

    def is_known(self, name: str) -> bool:
        """Whether there are enough samples to compare with. Before, the limits hold alone."""
        return len(self.level(name).samples) >= self._thresholds.warm_up

    def is_beyond(self, name: str, sample: int, seen: Observation | None = None) -> bool:
        """Whether that is more than is usual."""
        level = self.level(name)
        # A MAD takes time, and hardly any sample is so large that it decides.
        if len(level.samples) < self._thresholds.warm_up or sample <= self._bound(name, level, seen, 0.0):
            return False
        return sample > self._bound(name, level, seen, level.samples.mad)

    def bound(self, name: str, seen: Observation) -> float:
        """The most that is not, of such a run."""
        level = self.level(name)
        return self._bound(name, level, seen, level.samples.mad)

    def _bound(self, name: str, level: Level, seen: Observation | None, mad: float) -> float:
        (least, part), deviations, median = FLOORS[name], self._thresholds.deviations, level.samples.median
        alone = median + deviations * max(mad, least, part * median)
        if seen is None:
            return alone
        alone *= max(1.0, seen.input_bytes / max(SMALL_INPUT_BYTES, self._statistics.inputs.median))
        if name not in DURATIONS:
            return alone
        more = max(0.0, seen.beside - level.beside.median) / self._cpus
        return max((1 + more) * alone, median + deviations * JAIL_MS * seen.beside / self._cpus)
