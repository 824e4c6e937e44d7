"""What the monitor sees of a record is the same whether it was just written or is read after a crash."""

from __future__ import annotations

import dataclasses

import pytest

from plugind.audit.records import Denied, Ended, Stored, Subject, line, read_line
from plugind.governance.observations import Observation
from plugind.model import Code, Outcome, Reason, Usage, Violation
from plugind.observing import observed, read

SUBJECT = Subject(
    *("run-1", 1000, "plug_1", "echo", "1.0.0", "ab" * 32, 2, "report", "plan", "internal"),
    input=Stored("cd" * 32, 17, 1, 2),
)
ENDED = Ended(
    *(4, SUBJECT, "violation", "why"),
    output=Stored("ef" * 32, 99, 1, 300),
    usage=Usage(1, 2, 3),
    violations=(Violation("syscall", "mount", 2, "told"),),
    imported=3,
    beside=5,
)
DENIED = Denied(SUBJECT, (Reason(Code.DIGEST_MISMATCH, "rule", "this", "that", "mend"),), 4)


@pytest.mark.parametrize("record", [ENDED, dataclasses.replace(ENDED, imported=-1, beside=0), DENIED], ids=str)
def test_it_is_the_same_from_the_ledger(record):
    assert read(read_line(line(7, 8, record))) == observed(7, 8, record)


def test_everything_is_seen_but_what_other_records_tell():
    seen = observed(7, 8, ENDED)
    unset = [each.name for each in dataclasses.fields(Observation) if not getattr(seen, each.name)]
    assert unset == ["codes", "network"]  # of a denial; of its INTENT (watch.py)
    assert (seen.outcome, seen.input_bytes, seen.output_bytes, seen.beside, seen.ahead) == (
        *(Outcome.VIOLATION, 17, 99, 5),
        True,
    )
    assert observed(7, 8, DENIED).codes == ("DIGEST_MISMATCH",)


def test_a_record_of_before_runs_beside_were_counted_is_read():
    fields = read_line(line(7, 8, ENDED))
    del fields["beside"], fields["imported"]
    assert (read(fields).beside, read(fields).ahead) == (0, False)
