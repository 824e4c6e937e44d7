"""What is counted of each record, and that nobody outside can make a series."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from plugind.audit.records import (
    EVENTS,
    Changed,
    Denied,
    Ended,
    Intent,
    Refused,
    Started,
    Stopped,
    Subject,
)
from plugind.governance.observations import Anomaly, Observation
from plugind.metrics.counts import ACTIONS, UNSAFE, Metrics
from plugind.model import Code, Limits, Outcome, Reason, Usage, Violation
from plugind.registry.holds import _LIFTED, _SET

SYSCALL, PEER = Violation("syscall", "ptrace", 3, ""), Violation("network", "192.0.2.7:25/tcp", 2, "refused")


def subject(tier=2, mode="run", plugin="demo"):
    return Subject("r", 1000, "plug_1", plugin, "1.0.0", "a" * 64, tier, "s", "plan", "internal", mode=mode)


def ended(outcome="ok", tier=2, mode="run", wall_ms=12, violations=()):
    return Ended(1, subject(tier, mode), str(outcome), usage=Usage(wall_ms=wall_ms), violations=violations)


def denied(*codes):
    return Denied(subject(), tuple(Reason(code, "rule") for code in codes))


def shown(metrics):
    """Every sample that is not zero, by name and label values, which stand in the order of the labels' names."""
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(metrics.text().decode())
        for sample in family.samples
        if sample.value
    }


def counted(*records):
    metrics = Metrics()
    for record in records:
        metrics.committed(record)
    return shown(metrics)


def observation(index=7, outcome=Outcome.OK, violations=()):
    return Observation(
        *(index, 6, "r", "plug_1", "demo", "1.0.0", "a" * 64, 2, "s", "plan", 1000, "run", 0),
        outcome=outcome,
        violations=violations,
    )


def anomaly(seen, *, hard=True, observed=False):
    return Anomaly("secret_in_output", hard, "critical", "none", "one", {}, seen, observed)


# --- records ---------------------------------------------------------------------------------------------------------


def test_a_run_that_ended_is_counted_by_tier_and_outcome_with_its_time():
    found = counted(ended(wall_ms=12), ended(tier=0, wall_ms=40_000), ended(Outcome.FAILED))
    assert found["plugind_runs_total", "ok", "2"] == found["plugind_runs_total", "ok", "0"] == 1
    assert found["plugind_runs_total", "failed", "2"] == 1
    assert found["plugind_run_seconds_count", "2"] == 2
    assert found["plugind_run_seconds_sum", "2"] == pytest.approx(0.024)
    assert ("plugind_run_seconds_bucket", "0.01", "2") not in found
    assert found["plugind_run_seconds_bucket", "0.025", "2"] == found["plugind_run_seconds_bucket", "+Inf", "2"] == 2
    assert found["plugind_run_seconds_bucket", "60.0", "0"] == 1
    assert found["plugind_records_total", "OUTCOME"] == 3


def test_an_import_ahead_is_no_run():
    found = counted(ended(mode="import"), ended(Outcome.TIMEOUT, mode="import"))
    assert not any(name.startswith("plugind_run") for name, *_ in found)
    assert (found["plugind_imports_total", "ok"], found["plugind_imports_total", "timeout"]) == (1, 1)
    assert found["plugind_unsafe_attempts_total", "contained"] == 1


def test_a_denial_counts_each_of_its_codes_once():
    found = counted(denied(Code.BUSY, Code.BUSY, Code.KILLED), denied(Code.BUSY))
    assert (found["plugind_denials_total", "BUSY"], found["plugind_denials_total", "KILLED"]) == (2, 1)
    assert found["plugind_records_total", "DENIED"] == 2


def test_what_a_rule_that_is_only_tried_would_have_denied_is_kept_apart():
    found = counted(Intent(subject(), (), Limits(), dry_run=(Reason(Code.STAGE_NOT_ALLOWED, "r"),) * 2))
    assert found["plugind_dry_run_denials_total", "STAGE_NOT_ALLOWED"] == 1
    assert not any(name == "plugind_denials_total" for name, *_ in found)
    assert not any(name == "plugind_unsafe_attempts_total" for name, *_ in found)


def test_violations_count_as_often_as_they_were_made():
    found = counted(ended(violations=(SYSCALL, PEER, Violation("new", "x", 4, ""))))
    assert found["plugind_violations_total", "syscall"] == 3
    assert found["plugind_violations_total", "network"] == 2
    assert found["plugind_violations_total", "other"] == 4


def test_changes_and_refused_calls_and_the_daemons_own_records():
    change = Changed("kill", "", "demo", "", "", 0, "why")
    found = counted(change, change, Refused("Kill", 1000, "operator"), Started("dev"), Stopped("SIGTERM"))
    assert found["plugind_changes_total", "kill"] == 2
    assert found["plugind_refused_calls_total",] == 1
    assert {event: found["plugind_records_total", event] for event in ("CHANGE", "REFUSED", "START", "STOP")} == {
        "CHANGE": 2,
        "REFUSED": 1,
        "START": 1,
        "STOP": 1,
    }


def test_every_action_of_holds_has_its_own_count():
    assert {*_SET.values(), *_LIFTED.values()} <= set(ACTIONS)


def test_every_code_outcome_and_event_is_there_from_the_start():
    families = {each.name: each for each in text_string_to_metric_families(Metrics().text().decode())}
    assert len(families["plugind_runs"].samples) == 4 * len(Outcome)
    assert {sample.labels["code"] for sample in families["plugind_denials"].samples} == set(Code)
    assert {sample.labels["event"] for sample in families["plugind_records"].samples} == set(EVENTS)


@given(st.lists(st.tuples(st.text(), st.text(), st.text()), max_size=20))
def test_texts_from_outside_make_no_series(texts):
    metrics = Metrics()
    before = metrics.text().count(b"\n")
    for one, two, three in texts:
        metrics.committed(ended(one, violations=(Violation(two, three, 1, ""),)))
        metrics.committed(Changed(one, two, three, one, two, 1, three))
        metrics.committed(Denied(subject(plugin=one), ()))
    assert metrics.text().count(b"\n") <= before + 5  # "other" of outcomes, violations and changes; two ratios


# --- success ---------------------------------------------------------------------------------------------------------


def ratio(metrics, name="plugind_unsafe_load_block_ratio"):
    return shown(metrics).get((name,))


def test_a_ratio_is_absent_before_there_is_anything_to_divide():
    metrics = Metrics()
    assert (ratio(metrics), ratio(metrics, "plugind_provenance_complete_ratio")) == (None, None)
    metrics.committed(denied(Code.BUSY))
    metrics.committed(ended(violations=(SYSCALL,)))  # a refused call alone is no attempt: libraries try things
    assert ratio(metrics) is None


@pytest.mark.parametrize("code", sorted(UNSAFE))
def test_a_denial_for_what_was_to_run_is_an_unsafe_attempt(code):
    assert counted(denied(Code.BUSY, code))["plugind_unsafe_attempts_total", "denied"] == 1


@pytest.mark.parametrize(
    "code", ["BUSY", "INPUT_INVALID", "PLUGIN_NOT_FOUND", "SUSPENDED", "ISOLATION_UNAVAILABLE", "AUDIT_UNAVAILABLE"]
)
def test_a_denial_for_anything_else_is_none(code):
    assert ("plugind_unsafe_attempts_total", "denied") not in counted(denied(Code(code)))


@pytest.mark.parametrize("outcome", ["violation", "timeout", "cpu_exceeded", "out_of_memory", "pids_exceeded"])
def test_what_the_jail_ended_is_contained(outcome):
    assert counted(ended(outcome))["plugind_unsafe_attempts_total", "contained"] == 1


def test_what_was_found_only_after_its_result_was_returned_is_missed_once_a_run():
    metrics = Metrics()
    for _ in range(3):
        metrics.committed(denied(Code.NOT_APPROVED))
    metrics.anomaly(anomaly(observation(7)))
    metrics.anomaly(anomaly(observation(7)))
    assert ratio(metrics) == 0.75
    metrics.anomaly(anomaly(observation(8)))
    assert ratio(metrics) == 0.6
    assert shown(metrics)["plugind_anomalies_total", "hard", "critical"] == 3


@pytest.mark.parametrize(
    "found",
    [
        anomaly(observation(), hard=False),
        anomaly(observation(outcome=Outcome.VIOLATION)),
        anomaly(observation(outcome=None)),
        anomaly(observation(violations=(PEER,))),
    ],
    ids=["soft", "ended by the jail", "denied", "refused by the network"],
)
def test_other_anomalies_are_not_missed(found):
    metrics = Metrics()
    metrics.anomaly(found)
    assert ("plugind_unsafe_attempts_total", "missed") not in shown(metrics)


def test_an_observed_anomaly_is_told_apart():
    metrics = Metrics()
    metrics.anomaly(anomaly(observation(), observed=True))
    assert shown(metrics)["plugind_anomalies_total", "observed", "critical"] == 1


def test_provenance_is_complete_in_tiers_0_and_1():
    metrics = Metrics()
    for tier in (0, 1, 1, 2, 2, -1):
        metrics.committed(ended(tier=tier))
    assert ratio(metrics, "plugind_provenance_complete_ratio") == 0.5
    assert shown(metrics)["plugind_runs_total", "ok", "none"] == 1


def test_times_and_incidents():
    metrics = Metrics()
    metrics.quarantined(0.3)
    metrics.contained(0.004)
    metrics.contained(9)
    metrics.released_as_false()
    metrics.incident("critical")
    found = shown(metrics)
    assert found["plugind_time_to_quarantine_seconds_bucket", "0.5"] == 1
    assert ("plugind_time_to_quarantine_seconds_bucket", "0.25") not in found
    assert found["plugind_containment_seconds_bucket", "0.005"] == 1
    assert found["plugind_containment_seconds_bucket", "2.5"] == 1
    assert found["plugind_containment_seconds_count",] == 2
    assert found["plugind_false_positives_released_total",] == 1
    assert found["plugind_incidents_total", "critical"] == 1


def test_an_incident_is_counted_when_its_record_is_there_and_a_drill_is_no_attack():
    def opened(plugin):
        detail = '{"incident": "incident_1", "severity": "high", "cause": "kill"}'
        return Changed("incident_open", "plug_1", plugin, "1.0.0", "", 0, "why", detail)

    assert counted(opened("demo"))["plugind_incidents_total", "high"] == 1
    drill = subject(plugin="plugind_drill")
    metrics = Metrics()
    for record in (
        opened("plugind_drill"),
        Ended(1, drill, "violation"),
        Denied(drill, (Reason(Code.QUARANTINED, "rule"),)),
    ):
        metrics.committed(record)
    metrics.anomaly(anomaly(dataclasses.replace(observation(), plugin="plugind_drill")))
    found = shown(metrics)
    assert found["plugind_runs_total", "violation", "2"] == 1, "it is a run all the same"
    for name in ("plugind_incidents_total", "plugind_unsafe_attempts_total", "plugind_anomalies_total"):
        assert [key for key in found if key[0] == name] == []
