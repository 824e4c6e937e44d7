"""What the monitor knows is a fold over the ledger: durable, bounded, and not told twice."""

from __future__ import annotations

import pytest

from plugind.errors import StateError
from plugind.governance.database import Database
from plugind.governance.monitor import MOST_ANOMALIES, Monitor, decode, encode
from plugind.governance.observations import Observation
from plugind.model import Monitoring, Outcome, Usage, Violation
from tests.support.observed import CPUS

DIGEST = "d" * 64


def seen(index, outcome=Outcome.OK, violations=(), **fields):
    given = {
        "index": index,
        "intent": index - 1,
        "run": f"run-{index}",
        "plugin_id": "plug_1",
        "plugin": "echo",
        "version": "1.0.0",
        "digest": DIGEST,
        "tier": 2,
        "stage": "",
        "plan_id": "",
        "caller_uid": 0,
        "mode": "run",
        "outcome": outcome,
        "detail": "",
        "codes": (),
        "usage": Usage(5, 5, 1 << 20),
        "output_bytes": 10,
        "violations": violations,
        "at_unix_ms": index * 1000,
    }
    return Observation(**(given | fields))


def dangerous(index):
    return seen(index, Outcome.VIOLATION, (Violation("syscall", "unshare", 1, "no plugin may make it: the run ended"),))


@pytest.fixture
def monitor(tmp_path):
    opened = []

    def make(thresholds=None):
        found = thresholds or Monitoring()
        opened.append(Database(tmp_path / "monitor.db"))
        return Monitor(opened[-1], lambda digest, tier: found, CPUS)

    yield make
    for database in opened:
        database.close()


def written(known):
    what = known.unwritten()
    known.write(what)
    known.written(what)


def test_a_dangerous_call_is_for_quarantine_at_once(monitor):
    found = monitor().observe(dangerous(2))
    assert found.quarantine
    assert [(each.trigger, each.hard) for each in found.anomalies] == [("dangerous_syscall", True)]


def test_where_the_profile_only_observes_it_is_told_and_nothing_more(monitor):
    known = monitor(Monitoring(mode="observe"))
    found = known.observe(dangerous(2))
    assert [each.observed for each in found.anomalies] == [True]
    assert not found.quarantine
    for index in range(3, 60):
        found = known.observe(seen(index, Outcome.FAILED))
        assert (found.quarantine, found.opened) == (False, False)
    assert known.why_not(DIGEST, 2, 60_000) == ""


def test_a_breaker_that_has_opened_is_open_after_a_restart(monitor):
    known = monitor()
    opened = [known.observe(seen(index, Outcome.FAILED)).opened for index in range(2, 30)]
    assert any(opened)
    assert "because of failures" in known.why_not(DIGEST, 2, 30_000)
    known.passed(30)
    written(known)
    again = monitor()
    assert again.next_index == 30
    assert "because of failures" in again.why_not(DIGEST, 2, 30_000)
    assert {each.trigger for each in again.anomalies(digest=DIGEST)} == {"failures"}


def test_what_could_not_be_written_is_written_the_next_time(monitor):
    known = monitor()
    known.observe(dangerous(2))
    first = known.unwritten()
    known.observe(dangerous(3))
    known.put_back(first)
    assert [each[0] for each in first.statistics] == [DIGEST]
    written(known)
    assert not known.has_unwritten
    assert [each.seen.index for each in known.anomalies()] == [3, 2]


def test_of_one_version_so_many_anomalies_are_kept(monitor):
    known = monitor()
    for index in range(MOST_ANOMALIES + 50):
        known.observe(dangerous(index + 1))
    written(known)
    known.observe(dangerous(5000))
    written(known)
    found = known.anomalies(digest=DIGEST, limit=10_000)
    assert len(found) == MOST_ANOMALIES
    assert found[0].seen.index == 5000


def test_an_anomaly_comes_back_as_it_was(monitor):
    (anomaly,) = monitor().observe(dangerous(2)).anomalies
    assert decode(encode(anomaly)) == anomaly


def test_a_file_that_is_none_of_its_own_is_refused(monitor, tmp_path):
    (tmp_path / "monitor.db").write_bytes(b"no database at all" * 100)
    with pytest.raises(StateError, match=r"monitor\.db"):
        monitor()
