"""Soft triggers: a circuit breaker for each version (Nygard 2007). Pure: times come with what is observed.

closed     Runs start. It opens when the version fails, or uses more, as it did not before.
open       Nothing starts for `open_ms`. That is cheap, so it may be a false alarm now and then.
half_open  `probes` runs are let through, one at a time. If they fail it is for quarantine, else it closes.

One that opens again and again, and never as before, is for quarantine too (escalation.py).

A breaker that has closed is on trial for two windows of runs, in which less evidence opens it again. It opens for

failures  `failures_percent` of the last `window` runs; or, of a version with `warm_up` runs, a CUSUM against its own
          rate of failures (sequential.py), which finds a jump to that percentage in half of the time.
schema_failures  So many results in a row that are none.
wall_ms, memory_peak_bytes, output_bytes  Again and again (a CUSUM too) beyond what is usual (usual.py). Before that is
          known the version's limits hold alone: a run that hits one counts as beyond.

What is beyond is not taken among the samples, so that it does not make itself the rule; slow drift is, and so is the
level of probes that went well. To be slow within the limits that people approved is out of the ordinary and no more: it
opens the breaker, and no probe fails for it. Otherwise a busy machine, or larger plans, would put plugins into
quarantine.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal

from plugind.governance import escalation, sequential
from plugind.governance.escalation import CHANCE
from plugind.governance.observations import Anomaly, Observation
from plugind.governance.samples import Samples
from plugind.governance.statistics import DURATIONS, FAILURES, Level, State, Statistics, Streak
from plugind.governance.usual import BEYOND, Usual, measured
from plugind.model import Monitoring, Outcome, Severity

FAILURE_LIMIT: Final = 5.6
"""Of the CUSUM of failures. Every second run of a version that fails in one of ten comes to it in nine runs."""
FEWEST: Final = 3
"""Failures, at the least; two of a breaker on trial. A version that hardly ever fails may do so twice in a row."""
ALTERNATING: Final = 9
"""Runs of which every second failed and no other. That is chance once in 150,000 runs of one that fails in ten."""
LEVEL_LIMIT: Final = 8.0
"""Of the CUSUMs of duration, memory and output: the third in a row of a version that hardly ever is beyond."""
LEVEL_RISEN: Final = 0.7
"""So often a version is beyond what was usual once that has changed: p1."""
ON_TRIAL: Final = 0.7
"""So much of these limits is enough for a breaker that has just closed."""
TRIAL_WINDOWS: Final = 2
PROBE_LOST_MS: Final = 660_000
"""A probe of which nothing is heard for so long is given up. Longer than the longest session that is shipped."""

Verdict = Literal["", "opened", "closed", "quarantine"]


@dataclass(frozen=True, slots=True)
class Judgement:
    """What an observation came to. With `mode` "observe" the anomalies say so, and the verdict is what would be."""

    anomalies: tuple[Anomaly, ...] = ()
    verdict: Verdict = ""
    late: bool = False
    """Whether it opened for time alone."""
    excusable_unix_ms: tuple[int, ...] = ()
    """For quarantine: what counted towards it for time alone."""
    spare: int = 0
    """So many of these could have been left out, and the verdict would be the same."""


_NOTHING: Final = Judgement()


def closer(thresholds: Monitoring) -> Monitoring:
    """The same for a version on probation: half the window, two thirds of all else, one bad result less."""
    return replace(
        thresholds,
        window=max(2, thresholds.window // 2),
        failures_percent=max(1, thresholds.failures_percent * 2 // 3),
        openings=max(2, thresholds.openings - 1),
        deviations=max(1, thresholds.deviations * 2 // 3),
        schema_failures=max(1, thresholds.schema_failures - 1),
    )


def _alternates(recent: Sequence[bool]) -> bool:
    return len(recent) >= ALTERNATING and all(recent[-1 - back] == (back % 2 == 0) for back in range(ALTERNATING))


class Breaker:
    """Of one version. All that it knows is in its statistics: another one over these goes on where this one was."""

    def __init__(self, thresholds: Monitoring, statistics: Statistics, cpus: int) -> None:
        """`cpus`: how many the machine has."""
        self._thresholds = thresholds
        self._statistics = statistics
        self._usual = Usual(statistics, thresholds, cpus)
        self._own = statistics.breaker

    @property
    def state(self) -> State:
        """As it was when it was last asked or told something: an open one becomes half_open when it is asked."""
        return self._own.state

    # -- before a run

    def admits(self, now_unix_ms: int) -> str:
        """Empty, or why nothing may start now and when to try again."""
        self._tick(now_unix_ms)
        own = self._own
        if self._thresholds.mode == "observe" or own.state == "closed":
            return ""
        why = f"its circuit breaker is {own.state.replace('_', '-')} because of {own.why or 'earlier runs'}"
        if own.state == "open":
            wait_s = -(-(own.opened_unix_ms + self._thresholds.open_ms - now_unix_ms) // 1000)
            return f"{why}; it lets a run through in {wait_s} s"
        if own.probe_unix_ms:
            return f"{why}; it lets one run through at a time, try again when that has ended"
        return ""

    def begin(self, now_unix_ms: int) -> bool:
        """A run starts. Takes the place of a probe where it is half open; False: there is none, and it must not start.

        Whoever has taken one and then starts nothing gives it back (`give_back`), or has its DENIED observed.
        """
        free = not self.admits(now_unix_ms)
        if self._own.state == "half_open" and not self._own.probe_unix_ms:
            self._own.probe_unix_ms = max(1, now_unix_ms)
        return free

    def give_back(self) -> None:
        """The probe that was begun never started."""
        self._own.probe_unix_ms = 0

    def release(self) -> None:
        """People have let the version go (from quarantine): closed and on trial, with its baselines."""
        self._own.probed, self._own.late, self._own.streak = [], 0, Streak()
        self._close()

    def _tick(self, now_unix_ms: int) -> None:
        own = self._own
        # Where the clock was set back: not longer than it would have been.
        own.opened_unix_ms = min(own.opened_unix_ms, now_unix_ms)
        own.probe_unix_ms = min(own.probe_unix_ms, now_unix_ms)
        if own.state == "open" and now_unix_ms >= own.opened_unix_ms + self._thresholds.open_ms:
            own.state, own.probe_unix_ms = "half_open", 0
        if own.probe_unix_ms and now_unix_ms >= own.probe_unix_ms + PROBE_LOST_MS:
            own.probe_unix_ms = 0

    # -- after it

    def observe(self, seen: Observation) -> Judgement:
        """One more record of this version, in the order of the ledger. What was seen before changes nothing."""
        if seen.index < self._statistics.next_index:
            return _NOTHING
        self._statistics.note(seen)
        if seen.mode == "import":
            return _NOTHING  # it has no input, and may well come to nothing: hard triggers alone look at it
        if seen.outcome is Outcome.OK or seen.outcome in FAILURES:
            if self._own.state == "closed":
                escalation.ran(self._statistics, seen.outcome in FAILURES)
                return self._judge(seen)
            return self._probe(seen) if self._is_probe(seen) else _NOTHING
        if self._is_probe(seen) and (seen.outcome is not None or seen.intent >= 0):
            self.give_back()  # killed, canceled, lost, or denied when its jail could not be built
        return _NOTHING

    def _judge(self, seen: Observation) -> Judgement:
        found = [self._failures(seen), self._schema_failures(seen), *self._levels(seen)]
        anomalies = tuple(anomaly for anomaly in found if anomaly is not None)
        if anomalies:
            late = all(map(escalation.is_of_time, anomalies))
            self._open(seen, ", ".join(anomaly.trigger for anomaly in anomalies), late)
            if escalation.is_due(self._statistics, self._thresholds):
                return self._escalate(seen, anomalies, late)
            return Judgement(anomalies, "opened", late)
        if self._own.trial:
            self._own.trial -= 1
            if not self._own.trial:
                self._own.streak = Streak()  # it has recovered
        return _NOTHING

    def _escalate(self, seen: Observation, anomalies: tuple[Anomaly, ...], late: bool) -> Judgement:
        own, limit = self._own, self._thresholds.openings
        streak = own.streak
        numbers: dict[str, float] = {"openings": streak.openings, "limit": limit, "for_time": len(streak.late_unix_ms),
                                     "failures": streak.failures, "runs": streak.runs}  # fmt: skip
        runs = TRIAL_WINDOWS * self._thresholds.window
        expected = f"fewer than {limit} openings of its breaker without {runs} runs in between that went well"
        actual = f"{streak.openings} since it was trusted last, now because of {own.why}"
        actual += f"; {streak.failures} of {streak.runs} runs failed meanwhile"
        again = self._anomaly(seen, "reopened", expected, actual, numbers, "high")
        times, spare = tuple(streak.late_unix_ms), streak.openings - limit
        return Judgement((*anomalies, again), "quarantine", late, times, spare)

    def _sooner(self) -> float:
        return ON_TRIAL if self._own.trial else 1.0

    def _failures(self, seen: Observation) -> Anomaly | None:
        failures, thresholds = self._statistics.failures, self._thresholds
        usual = failures.usual
        risen = min(0.95, max(thresholds.failures_percent / 100, 1.5 * usual))
        failures.add(seen.outcome in FAILURES, thresholds.window, risen)
        if not self._has_a_past():
            failures.score = 0.0
        score, limit = failures.score, FAILURE_LIMIT * self._sooner()
        count, runs = sum(failures.recent), len(failures.recent)
        most = -(-thresholds.window * thresholds.failures_percent // 100)
        risen_so = score >= limit and count >= FEWEST - bool(self._own.trial)
        if count < most and not risen_so and not (self._has_a_past() and _alternates(failures.recent)):
            return None
        late = escalation.timeouts(self._statistics, count)
        numbers = {"failures": count, "timeouts": late, "runs": runs, "usual_percent": 100 * usual, "score": score,
                   "limit": limit}  # fmt: skip
        return self._anomaly(
            seen,
            "failures",
            f"fewer than {most} failures in {thresholds.window} runs, and about as many as before ({usual:.0%})",
            f"{count} of the last {runs} runs failed",
            numbers,
        )

    def _has_a_past(self) -> bool:
        """Whether there is something to hold its failures against: who begins to write a plugin fails often."""
        failures = self._statistics.failures
        return self._own.trial > 0 or failures.runs + len(failures.recent) >= self._thresholds.warm_up

    def _schema_failures(self, seen: Observation) -> Anomaly | None:
        statistics, most = self._statistics, self._thresholds.schema_failures
        if seen.outcome is not Outcome.OUTPUT_INVALID:
            statistics.schema_failures = 0
            return None
        statistics.schema_failures += 1
        if statistics.schema_failures < most:
            return None
        numbers: dict[str, float] = {"schema_failures": statistics.schema_failures, "limit": most}
        expected = f"fewer than {most} results in a row that are none"
        return self._anomaly(seen, "schema_failures", expected, f"{statistics.schema_failures} in a row", numbers)

    def _levels(self, seen: Observation) -> list[Anomaly | None]:
        if seen.mode != "run":
            return []
        found = [self._level(seen, name, sample) for name, sample in measured(seen).items()]
        if seen.outcome is Outcome.OK:
            self._statistics.inputs.add(seen.input_bytes)
        return found

    def _level(self, seen: Observation, name: str, sample: int) -> Anomaly | None:
        level = self._statistics.levels[name]
        beyond = seen.outcome in BEYOND or self._usual.is_beyond(name, sample, seen)
        if not beyond:
            self._usual.learn(name, sample, seen)
        usual = level.beyond.usual
        score = level.beyond.add(beyond, self._thresholds.window, LEVEL_RISEN)
        limit = LEVEL_LIMIT * self._sooner()
        if score < limit:
            return None
        count, runs = sum(level.beyond.recent), len(level.beyond.recent)
        compared, bound = self._usual.level(name), self._usual.bound(name, seen)
        median, mad = compared.samples.median, compared.samples.mad
        usually = f"{bound:.0f} (median {median:.0f}, MAD {mad:.0f})" if self._usual.is_known(name) else "its limit"
        numbers = {"sample": sample, "median": median, "mad": mad, "bound": bound, "beyond": count, "runs": runs,
                   "usual_percent": 100 * usual, "score": score, "limit": limit, "input_bytes": seen.input_bytes,
                   "usual_input_bytes": self._statistics.inputs.median}  # fmt: skip
        if name in DURATIONS:
            numbers |= {"beside": seen.beside, "usually_beside": compared.beside.median}
        actual = f"{sample}, and {count} of the last {runs} runs had more"
        return self._anomaly(seen, escalation.trigger_of(name), f"at most {usually}", actual, numbers)

    def _open(self, seen: Observation, why: str, late: bool) -> None:
        statistics, own = self._statistics, self._own
        own.state, own.why, own.opened_unix_ms = "open", why, seen.at_unix_ms
        own.openings += 1
        own.probe_unix_ms, own.probed, own.late = 0, [], 0
        escalation.opened(statistics, self._thresholds, seen.at_unix_ms, late=late)
        statistics.failures.restart()
        statistics.schema_failures = 0
        for level in statistics.levels.values():
            level.beyond.score = 0.0  # what it was about stays: it is accepted if the probes go well
            level.probed = []

    # -- half open

    def _is_probe(self, seen: Observation) -> bool:
        """Whether it is the run that was let through, and not one that has been on its way since before."""
        own = self._own
        began_unix_ms = seen.at_unix_ms - seen.usage.wall_ms
        return own.state == "half_open" and own.probe_unix_ms > 0 and began_unix_ms >= own.opened_unix_ms

    def _probe(self, seen: Observation) -> Judgement:
        own, probes = self._own, self._thresholds.probes
        own.probe_unix_ms = 0
        own.probed.append(seen.outcome in FAILURES)
        own.late += seen.outcome is Outcome.TIMEOUT
        escalation.ran(self._statistics, seen.outcome in FAILURES)
        if seen.mode == "run" and seen.outcome is Outcome.OK:
            for name, sample in measured(seen).items():
                self._statistics.levels[name].probed.append(sample)
        failed, most = sum(own.probed), self._most_failed()
        if failed >= most:
            numbers: dict[str, float] = {"failed": failed, "timeouts": own.late, "ended": len(own.probed),
                                         "probes": probes, "limit": most}  # fmt: skip
            expected = f"fewer than {most} of {probes} probes to fail, after {own.why}"
            actual = f"{failed} of {len(own.probed)} failed"
            anomaly = self._anomaly(seen, "probes", expected, actual, numbers, "high")
            late, times = escalation.is_of_time(anomaly), (own.opened_unix_ms, seen.at_unix_ms)
            self._open(seen, own.why, late)
            return Judgement((anomaly,), "quarantine", late, times if late else ())
        if len(own.probed) < probes:
            return _NOTHING
        self._close()
        return Judgement((), "closed")

    def _most_failed(self) -> int:
        """So many failed probes are the version and not chance: at its usual rate once in a thousand times."""
        probes, usual = self._thresholds.probes, self._statistics.failures.usual_at_most
        for most in range(probes // 2 + 1, probes):
            if sequential.tail(most, probes, usual) <= CHANCE:
                return most
        return probes

    def _close(self) -> None:
        statistics, own = self._statistics, self._own
        own.state, own.probe_unix_ms = "closed", 0
        own.trial = TRIAL_WINDOWS * self._thresholds.window
        statistics.failures.restart(own.probed)
        statistics.schema_failures = 0
        own.probed, own.late = [], 0
        for name, level in statistics.levels.items():
            self._settle(name, level)

    def _settle(self, name: str, level: Level) -> None:
        """The probes went well. Where most of them had more than was usual, that is what is usual from now on."""
        flags = [self._usual.is_beyond(name, sample) for sample in level.probed]
        fine = [sample for sample, beyond in zip(level.probed, flags, strict=True) if not beyond]
        if 2 * len(fine) < len(level.probed):
            level.samples, level.beside, fine = Samples(), Samples(), level.probed
        for sample in fine:
            level.samples.add(sample)
        level.beyond.accept(flags)
        level.probed = []

    def _anomaly(
        self,
        seen: Observation,
        trigger: str,
        expected: str,
        actual: str,
        numbers: dict[str, float],
        severity: Severity = "medium",
    ) -> Anomaly:
        shown = {name: float(value) for name, value in numbers.items()}
        observed = self._thresholds.mode == "observe"
        return Anomaly(trigger, False, severity, expected, actual, shown, seen, observed)
