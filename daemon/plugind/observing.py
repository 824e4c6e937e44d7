"""Between the records of the ledger and the monitor: what it sees of an ended run, and how what it found is told."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from plugind.audit.records import Denied, Ended, Noticed, Subject, subject_of
from plugind.governance.observations import Anomaly, Observation
from plugind.model import Outcome, Usage, Violation


def noticed(anomaly: Anomaly) -> Noticed:
    """What the monitor found, as a record."""
    seen = anomaly.seen
    return Noticed(
        trigger=anomaly.trigger,
        hard=anomaly.hard,
        severity=anomaly.severity,
        plugin_id=seen.plugin_id,
        plugin=seen.plugin,
        version=seen.version,
        digest=seen.digest,
        run=seen.run,
        plan_id=seen.plan_id,
        intent=seen.intent,
        of_index=seen.index,
        expected=anomaly.expected,
        actual=anomaly.actual,
        numbers=anomaly.numbers,
        observed=anomaly.observed,
    )


def observed(index: int, at_unix_ms: int, record: Ended | Denied) -> Observation:
    """A record that was just written."""
    if isinstance(record, Denied):
        codes = tuple(dict.fromkeys(str(reason.code) for reason in record.reasons))
        return _observation(index, at_unix_ms, record.subject, record.intent, codes=codes)
    return _observation(
        index,
        at_unix_ms,
        record.subject,
        record.intent,
        outcome=Outcome(record.outcome),
        detail=record.detail,
        usage=record.usage,
        output_bytes=record.output.bytes,
        violations=record.violations,
        ahead=record.imported >= 0,
        beside=record.beside,
    )


def read(fields: Mapping[str, Any]) -> Observation:
    """A record as it stands in the ledger."""
    subject, index, at_unix_ms = subject_of(fields), fields["index"], fields["time_unix_ms"]
    if fields["event"] == "DENIED":
        codes = tuple(dict.fromkeys(reason["code"] for reason in fields["reasons"]))
        return _observation(index, at_unix_ms, subject, fields["intent"], codes=codes)
    return _observation(
        index,
        at_unix_ms,
        subject,
        fields["intent"],
        outcome=Outcome(fields["outcome"]),
        detail=fields["detail"],
        usage=Usage(**fields["usage"]),
        output_bytes=fields["output_bytes"],
        violations=tuple(Violation(**each) for each in fields["violations"]),
        ahead=fields.get("imported", -1) >= 0,
        beside=fields.get("beside", 0),
    )


def _observation(index: int, at_unix_ms: int, subject: Subject, intent: int, **seen: Any) -> Observation:
    """`seen`: what else the record says, by the names of Observation."""
    return Observation(
        index=index,
        intent=intent,
        run=subject.run,
        plugin_id=subject.plugin_id,
        plugin=subject.plugin,
        version=subject.version,
        digest=subject.digest,
        tier=subject.tier,
        stage=subject.stage,
        plan_id=subject.plan_id,
        caller_uid=subject.caller_uid,
        mode=subject.mode,  # type: ignore[arg-type]
        at_unix_ms=at_unix_ms,
        input_bytes=subject.input.bytes,
        **seen,
    )
