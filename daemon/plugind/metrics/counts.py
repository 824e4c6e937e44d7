"""What has happened since the daemon started, counted as the ledger has it. Meaning of each: SPEC.md, "Metrics"."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Final

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from plugind.audit.records import EVENTS, Changed, Denied, Ended, Intent, Record, Refused
from plugind.governance.observations import Anomaly
from plugind.metrics.tallies import Spread, Tally
from plugind.model import DRILL, SEVERITIES, TIERS, Code, Outcome, Severity, Violation

NO_TIER: Final = "none"
TIER_LABELS: Final = (*map(str, TIERS), NO_TIER)
ACTIONS: Final = (
    *("submit", "attest", "vote", "approve", "reject", "activate", "retire", "rollback", "policy_reload"),
    *("suspend", "resume", "kill", "kill_lift", "quarantine", "release", "require_revalidation", "revalidated"),
    *("release_vote", "probation_end", "incident_open", "incident_close", "monitor_lost", "monitor_back"),
    "environment_import",
)
UNSAFE: Final = frozenset(
    {
        *(Code.NOT_SIGNED, Code.BAD_SIGNATURE, Code.THRESHOLD_NOT_MET, Code.DIGEST_MISMATCH, Code.UNLISTED_FILE),
        *(Code.ATTESTATION_EXPIRED, Code.KEY_REVOKED, Code.BUNDLE_REVOKED, Code.SEQUENCE_ROLLBACK, Code.TRUST_STALE),
        *(Code.NOT_APPROVED, Code.APPROVAL_EXPIRED, Code.PERMISSION_NOT_APPROVED, Code.STAGE_NOT_ALLOWED),
        *(Code.TIER_NOT_ALLOWED, Code.SENSITIVITY_TOO_HIGH, Code.LIMIT_ABOVE_CEILING),
        *(Code.QUARANTINED, Code.KILLED, Code.REVALIDATION_REQUIRED),
    }
)
"""Denials because of what was to run. The others are the caller's mistake, the machine's state, or maintenance."""
CONTAINED: Final = frozenset(
    {
        *(Outcome.VIOLATION, Outcome.TIMEOUT, Outcome.CPU_EXCEEDED, Outcome.OUT_OF_MEMORY, Outcome.PIDS_EXCEEDED),
        Outcome.OUTPUT_LIMIT,
    }
)
"""Ends that the jail made, and not the plugin."""
RUN_BOUNDS_S: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 600)
CONTAINMENT_BOUNDS_S: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5)
QUARANTINE_BOUNDS_S: Final = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10, 60, 600, 3600)


class Metrics(Collector):
    """All counters and histograms, and the registry that everything shown is in. For the event loop alone."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        """Not the library's own, which also shows what a library would have shown."""
        self._last_missed = -1
        self._runs = Tally(
            "plugind_runs", "Runs, maps and sessions that have ended, by how", tier=TIER_LABELS, outcome=Outcome
        )
        self._run_seconds = Spread(
            "plugind_run_seconds", "How long plugin code ran in them", RUN_BOUNDS_S, tier=TIER_LABELS
        )
        self._imports = Tally("plugind_imports", "Imports ahead of runs, by how they ended", outcome=Outcome)
        self._denials = Tally("plugind_denials", "Reasons of runs that were denied, each code once a run", code=Code)
        self._dry_run = Tally(
            "plugind_dry_run_denials", "Reasons of rules in mode dryrun against runs that were allowed", code=Code
        )
        self._violations = Tally(
            "plugind_violations", "What the jail refused to plugins: calls and peers", kind=("syscall", "network")
        )
        self._records = Tally("plugind_records", "Records that became durable in the ledger", event=EVENTS)
        self._changes = Tally("plugind_changes", "Changes of what may run, and of the policy", action=ACTIONS)
        self._refused_calls = Tally(
            "plugind_refused_calls", "Calls of the API by somebody without the role that they need"
        )
        self._attempts = Tally(
            "plugind_unsafe_attempts",
            "Attempts to run something unsafe: denied before, contained by the jail, or missed and found afterwards",
            result=("denied", "contained", "missed"),
        )
        self._anomalies = Tally(
            "plugind_anomalies",
            "What the monitor found out of the ordinary; hard: one is enough for quarantine",
            severity=SEVERITIES,
            kind=("hard", "soft", "observed"),
        )
        self._incidents = Tally("plugind_incidents", "Incidents that were opened", severity=SEVERITIES)
        self._false = Tally(
            "plugind_false_positives_released", "Versions let out of quarantine because they should not have been there"
        )
        self._containment = Spread(
            "plugind_containment_seconds",
            "From the order to kill to the last process gone",
            CONTAINMENT_BOUNDS_S,
        )
        self._quarantine = Spread(
            "plugind_time_to_quarantine_seconds",
            "From the first event out of the ordinary to the durable hold",
            QUARANTINE_BOUNDS_S,
        )
        self.registry.register(self)

    # -- what happens

    def committed(self, record: Record) -> None:
        """A record is durable: call it for each, once, in the ledger's order."""
        self._records.add(record.event)
        match record:
            case Ended():
                self._ended(record)
            case Denied():
                self._denied(record)
            case Intent():
                for code in {reason.code for reason in record.dry_run}:
                    self._dry_run.add(code)
            case Changed():
                self._changes.add(record.action)
                if record.action == "incident_open" and record.plugin != DRILL:
                    self.incident(json.loads(record.detail)["severity"])
            case Refused():
                self._refused_calls.add()
            case _:
                pass

    def _ended(self, record: Ended) -> None:
        for violation in record.violations:
            self._violations.add(violation.kind, by=violation.count)
        if _contained(record.outcome, record.violations) and record.subject.plugin != DRILL:
            self._attempts.add("contained")
        if record.subject.mode == "import":
            self._imports.add(record.outcome)
            return
        tier = _tier(record.subject.tier)
        self._runs.add(tier, record.outcome)
        self._run_seconds.add(record.usage.wall_ms / 1000, tier)

    def _denied(self, record: Denied) -> None:
        codes = {reason.code for reason in record.reasons}
        for code in codes:
            self._denials.add(code)
        if not codes.isdisjoint(UNSAFE) and record.subject.plugin != DRILL:
            self._attempts.add("denied")

    def anomaly(self, found: Anomaly) -> None:
        """The monitor found something. Hard ones of runs whose result was returned untouched count as missed."""
        if found.seen.plugin == DRILL:
            return
        kind = "observed" if found.observed else "hard" if found.hard else "soft"
        self._anomalies.add(found.severity, kind)
        seen = found.seen
        returned = seen.outcome is Outcome.OK and not _contained(seen.outcome, seen.violations)
        if found.hard and returned and seen.index > self._last_missed:  # one run may have several
            self._last_missed = seen.index
            self._attempts.add("missed")

    def quarantined(self, seconds_since_first_event: float) -> None:
        """A version's hold is durable."""
        self._quarantine.add(seconds_since_first_event)

    def contained(self, seconds: float) -> None:
        """The last process is gone, so long after the order to kill it.

        Not of dangerous calls: a record says which was made, and not when. A drill measures that.
        """
        self._containment.add(seconds)

    def released_as_false(self) -> None:
        """A version is out of quarantine, and was never unsafe."""
        self._false.add()

    def incident(self, severity: Severity) -> None:
        """One was opened."""
        self._incidents.add(severity)

    # -- what is shown

    def collect(self) -> Iterator[Metric]:
        """Every family of this class."""
        for each in vars(self).values():
            if isinstance(each, Tally | Spread):
                yield each.family()
        yield _share(
            "plugind_unsafe_load_block_ratio",
            "Of plugind_unsafe_attempts_total, the share that was denied or contained; absent before the first attempt",
            ((key != ("missed",), count) for key, count in self._attempts.counts.items()),
        )
        yield _share(
            "plugind_provenance_complete_ratio",
            "Of plugind_runs_total, the share of tiers 0 and 1: built in, or with all attestations verified;"
            " absent before the first run",
            ((tier in {"0", "1"}, count) for (tier, _), count in self._runs.counts.items()),
        )

    def text(self) -> bytes:
        """Everything in the registry, in Prometheus' text format."""
        return generate_latest(self.registry)


def _tier(tier: int) -> str:
    return str(tier) if tier >= 0 else NO_TIER


def _contained(outcome: str, violations: Iterable[Violation]) -> bool:
    return outcome in CONTAINED or any(violation.kind == "network" for violation in violations)


def _share(name: str, text: str, counts: Iterable[tuple[bool, int]]) -> GaugeMetricFamily:
    """How many of all are good; no sample where there are none."""
    good = total = 0
    for is_good, count in counts:
        total += count
        good += count if is_good else 0
    family = GaugeMetricFamily(name, text)
    if total:
        family.add_metric((), good / total)
    return family
