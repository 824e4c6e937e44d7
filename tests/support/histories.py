"""Histories of versions, made up: drift, noise, bursts, other inputs; and of those that go bad. Seeded, without numpy."""

from __future__ import annotations

import dataclasses
import math
import random
from dataclasses import dataclass, field

from plugind.governance.breaker import Breaker
from plugind.governance.statistics import Statistics
from plugind.model import Monitoring, Outcome
from tests.support import observed
from tests.support.observed import CPUS

MIB = 1024 * 1024
FAILED = (
    Outcome.FAILED,
    Outcome.FAILED,
    Outcome.FAILED,
    Outcome.OUTPUT_INVALID,
    Outcome.TIMEOUT,
    Outcome.OUT_OF_MEMORY,
)
USUAL = Monitoring()

BASE = dataclasses.replace(observed.BASE, ahead=True)
"""As most runs of a daemon that is up for a while: their instances have waited for them."""


@dataclass
class Version:
    """How one version behaves. All of it is drawn from what real ones do."""

    rng: random.Random
    failing: float = 0.0
    """Share of its runs."""
    wall_ms: float = 20.0
    noise: float = 0.3
    """Standard deviation of the logarithm: 0.3 is a third, 0.8 is more than twice, up or down."""
    drift: float = 0.0
    """Change of the logarithm in a run."""
    large: float = 0.0
    """Share of inputs that are six times as large."""
    burst: float = 0.0
    """Chance in a run that the machine is busy, and everything takes three times as long, for ten runs."""
    others: float = 0.0
    """Share of runs that are killed, canceled or lost, and of denials."""
    alternate: bool = False
    """Whether every second run fails, exactly."""
    _busy: int = 0
    _runs: int = 0

    @classmethod
    def benign(cls, seed):
        """A version that nobody should put into quarantine."""
        rng = random.Random(seed)
        return cls(
            rng,
            failing=rng.choice([0.0, 0.0, 0.0, 0.002, 0.01, 0.01, 0.02, 0.03, 0.05, 0.1]),
            wall_ms=math.exp(rng.uniform(math.log(2), math.log(4000))),
            noise=rng.choice([0.02, 0.1, 0.2, 0.3, 0.5, 0.8]),
            drift=rng.choice([0, 0, 0.001, -0.001, 0.003]),
            large=rng.choice([0, 0, 0, 0.02, 0.1, 0.3]),
            burst=rng.choice([0, 0, 0.002, 0.01]),
            others=rng.choice([0, 0.01, 0.05]),
        )

    def run(self):
        """One more execution, without its place in the ledger and its time."""
        rng = self.rng
        self._runs += 1
        if self._busy:
            self._busy -= 1
        elif self.burst and rng.random() < self.burst:
            self._busy = 10
        if self.others and rng.random() < self.others:
            return rng.choice([Outcome.KILLED, Outcome.CANCELED, Outcome.FAULT, None]), 1, MIB, 0
        size = math.exp(rng.gauss(0, self.noise) + self.drift * self._runs)
        if self.large and rng.random() < self.large:
            size *= 6
        fails = self._runs % 2 == 1 if self.alternate else rng.random() < self.failing
        outcome = rng.choice(FAILED) if fails else Outcome.OK
        wall_ms = self.wall_ms * size * (3 if self._busy else 1)
        return outcome, round(wall_ms), round(12 * MIB + 4 * MIB * size), round(300 * size)


@dataclass
class Told:
    """What a breaker said to a history."""

    opened: list[int] = field(default_factory=list)
    """At which run of it."""
    triggers: list[str] = field(default_factory=list)
    quarantined: int = -1
    closed: int = 0


class History:
    """A version and its breaker, a run every second, and waiting while the breaker is open."""

    def __init__(self, version, thresholds=USUAL, statistics=None):
        self.version = version
        self.thresholds = thresholds
        self.statistics = statistics or Statistics()
        self.breaker = Breaker(thresholds, self.statistics, CPUS)
        self.now_unix_ms = 1_000_000
        self.runs = 0
        self.told = Told()

    def go(self, runs, until_opened=False):
        """So many more runs that start; stops at quarantine."""
        for _ in range(runs):
            self.now_unix_ms += 1000
            if self.breaker.state == "open":
                assert "lets a run through" in self.breaker.admits(self.now_unix_ms)
                assert not self.breaker.begin(self.now_unix_ms)
                self.now_unix_ms += self.thresholds.open_ms
            assert self.breaker.begin(self.now_unix_ms)
            self._observe()
            if self.told.quarantined >= 0 or (until_opened and self.told.opened):
                break
        return self.told

    def _observe(self):
        outcome, wall_ms, memory, output = self.version.run()
        self.now_unix_ms += wall_ms
        # Not dataclasses.replace, which takes longer than the breaker does.
        seen = object.__new__(type(BASE))
        for name in _KEPT:
            object.__setattr__(seen, name, getattr(BASE, name))
        for name, value in (
            ("index", self.runs), ("intent", -1 if outcome is None else self.runs), ("outcome", outcome),
            ("usage", _usage(wall_ms, memory)), ("output_bytes", output), ("at_unix_ms", self.now_unix_ms),
        ):  # fmt: skip
            object.__setattr__(seen, name, value)
        self.runs += 1
        judgement = self.breaker.observe(seen)
        if outcome is None:
            self.breaker.give_back()
        if judgement.verdict == "opened":
            assert judgement.anomalies
            self.told.opened.append(self.runs)
            self.told.triggers.extend(each.trigger for each in judgement.anomalies)
        elif judgement.verdict == "quarantine":
            self.told.quarantined = self.runs
        elif judgement.verdict == "closed":
            self.told.closed += 1


_KEPT = [
    each.name
    for each in dataclasses.fields(BASE)
    if each.name not in ("index", "intent", "outcome", "usage", "output_bytes", "at_unix_ms")
]


def _usage(wall_ms, memory):
    return type(BASE.usage)(wall_ms, wall_ms, memory)


@dataclass
class Found:
    """What became of many histories."""

    histories: int = 0
    runs: int = 0
    quarantined: list[int] = field(default_factory=list)
    """Their seeds."""
    openings: int = 0
    found: int = 0
    latest: int = 0
    """Most runs that it took to find one."""


def benign(seeds, runs):
    """Versions that nobody should put into quarantine."""
    result = Found()
    for seed in seeds:
        history = History(Version.benign(seed))
        told = history.go(runs)
        result.histories += 1
        result.runs += history.runs
        result.openings += len(told.opened)
        if told.quarantined >= 0:
            result.quarantined.append(seed)
    return result


def gone_bad(seeds, change, **fixed):
    """The same that change after 80 runs, or as soon as their breaker is closed and trusted: found within ten?"""
    result = Found()
    for seed in seeds:
        version = Version.benign(seed)
        version.drift = 0.0
        for name, value in fixed.items():
            setattr(version, name, value)
        history = History(version)
        history.go(80)
        while history.told.quarantined < 0 and (history.breaker.state != "closed" or history.statistics.breaker.trial):
            history.go(1)
        if history.told.quarantined >= 0:
            continue
        history.told, before = Told(), history.runs
        change(version)
        history.go(10, until_opened=True)
        result.histories += 1
        result.found += bool(history.told.opened)
        if history.told.opened:
            result.latest = max(result.latest, history.runs - before)
    return result


def ten_times_as_slow(version):
    """A tenfold slowdown."""
    version.wall_ms *= 10


def half_of_it_fails(version):
    """A jump to failures in 50 % of its runs, at random."""
    version.failing = 0.5


def every_second_fails(version):
    """The same in turn."""
    version.alternate, version._runs = True, 0
