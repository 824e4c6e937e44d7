"""When everybody is late at once it is the machine: nobody is quarantined for that, and for all else as ever."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plugind.governance.crowd import Crowd
from plugind.governance.database import Database
from plugind.governance.escalation import is_of_time
from plugind.governance.monitor import Monitor, encode
from plugind.governance.observations import Anomaly
from plugind.model import Monitoring, Outcome, Violation
from tests.support.observed import CPUS, seen

OPEN_MS = 60_000
DANGEROUS = (Violation("syscall", "ptrace", 1, "no plugin may make it: the run ended"),)


class Plugins:
    """Some plugins, a version each, and one monitor for all. A run of each a second, where its breaker lets it."""

    def __init__(self, folder, count, start_ms=1_000_000, **thresholds):
        self.database = Database(folder / "monitor.db")
        self.thresholds = Monitoring(open_ms=OPEN_MS, **thresholds)
        self.monitor = Monitor(self.database, lambda digest, tier: self.thresholds, CPUS)
        self.names = [f"plugin_{number}" for number in range(count)]
        self.now = start_ms
        self.index = 0
        self.quarantined = {}
        self.held_back = []

    def run(self, name, outcome, violations=()):
        digest = name.encode().hex().rjust(64, "0")
        if name in self.quarantined or not self.monitor.begin(digest, 2, self.now):
            return
        self.index += 1
        found = self.monitor.observe(
            seen(outcome, index=self.index, intent=self.index, plugin=name, digest=digest, mode="map",
                 at_unix_ms=self.now + 20, violations=violations)
        )  # fmt: skip
        if found.quarantine:
            self.quarantined[name] = [each.trigger for each in found.anomalies]
        elif found.anomalies and "together" in found.anomalies[-1].numbers:
            self.held_back.append(found.anomalies[-1])
            assert found.opened

    def go(self, seconds, outcomes=lambda name: Outcome.OK):
        for _ in range(seconds):
            self.now += 1000
            for name in self.names:
                self.run(name, outcomes(name))
        return self

    def restart(self):
        what = self.monitor.unwritten()
        self.monitor.write(what)
        self.monitor.written(what)
        self.monitor = Monitor(self.database, lambda digest, tier: self.thresholds, CPUS)
        return self


@pytest.fixture
def plugins(tmp_path):
    made = []

    def make(count, **thresholds):
        made.append(Plugins(tmp_path, count, **thresholds))
        return made[-1].go(60)

    yield make
    for each in made:
        each.database.close()


def late(name):
    return Outcome.TIMEOUT


def test_three_that_are_late_together_are_held_and_not_quarantined(plugins):
    some = plugins(3).go(300, late)
    assert some.quarantined == {}
    assert all(some.monitor.why_not(name.encode().hex().rjust(64, "0"), 2, some.now) for name in some.names)
    found = some.held_back[0]
    assert (found.trigger, found.severity, found.numbers["together"]) == ("probes", "medium", 3.0)
    assert found.actual == (
        "4 of 4 failed; no quarantine: the machine is the likelier cause, breakers of 3 plugins opened for time together"
    )
    some.go(100)
    assert not any(some.monitor.why_not(name.encode().hex().rjust(64, "0"), 2, some.now) for name in some.names)


def test_two_are(plugins):
    assert plugins(2).go(300, late).quarantined == {"plugin_0": ["probes"], "plugin_1": ["probes"]}


def test_how_many_are_together_is_the_profiles(plugins):
    assert len(plugins(3, together=4).go(300, late).quarantined) == 3


def test_what_fails_meanwhile_is_quarantined(plugins):
    some = plugins(4).go(300, lambda name: Outcome.FAILED if name == "plugin_3" else Outcome.TIMEOUT)
    assert some.quarantined == {"plugin_3": ["probes"]}


def test_who_stays_late_when_the_others_are_well_again_is_quarantined(plugins):
    some = plugins(4).go(90, late)
    some.go(300, lambda name: Outcome.TIMEOUT if name == "plugin_3" else Outcome.OK)
    assert list(some.quarantined) == ["plugin_3"]


def test_a_restart_in_between_changes_nothing(plugins):
    some = plugins(3).go(30, late).restart().go(60, late).restart().go(60, late)
    assert (some.quarantined, bool(some.held_back)) == ({}, True)


def test_a_dangerous_call_is_as_ever(plugins):
    some = plugins(4).go(30, late)
    some.now += OPEN_MS
    some.run("plugin_2", Outcome.VIOLATION, DANGEROUS)
    assert some.quarantined == {"plugin_2": ["dangerous_syscall"]}


def test_versions_of_one_plugin_are_no_crowd():
    crowd = Crowd([(0, "a"), (1, "a"), (2, "a")])
    assert (crowd.around(0, 10), crowd.around(100, 10)) == (1, 0)


@given(
    st.integers(3, 6),
    st.integers(5, 400),
    st.lists(st.integers(0, 40), min_size=6, max_size=6),
    st.sets(st.integers(0, 5)),
)
def test_whenever_and_however_long_the_machine_is_busy(tmp_path_factory, count, busy_s, delays_s, bad):
    """Nobody who is only late comes to quarantine; who makes a dangerous call meanwhile does."""
    some = Plugins(tmp_path_factory.mktemp("d"), count).go(40)
    began = some.now
    delay_ms = {name: 1000 * delay for name, delay in zip(some.names, delays_s, strict=False)}
    some.go(busy_s, lambda name: Outcome.TIMEOUT if some.now >= began + delay_ms[name] else Outcome.OK)
    caught = {name for number, name in enumerate(some.names) if number in bad}
    some.go(busy_s // 2, late)
    some.now += 2 * OPEN_MS
    for name in caught:
        some.run(name, Outcome.VIOLATION, DANGEROUS)
    assert set(some.quarantined) == caught
    assert all(found[0] == "dangerous_syscall" for found in some.quarantined.values())
    some.database.close()


def test_anomalies_of_before_timeouts_were_counted_are_read(tmp_path):
    """A daemon that has been there for long starts, and they excuse nobody."""
    database = Database(tmp_path / "monitor.db")
    old = {"failures": {"failures": 9.0, "runs": 10.0}, "probes": {"failed": 3.0, "ended": 3.0, "limit": 3.0}}
    texts = [
        encode(Anomaly(trigger, False, "medium", "", "", numbers, seen(Outcome.FAILED)))
        for trigger, numbers in old.items()
    ]
    with database.changing() as connection:
        connection.executemany(
            "INSERT INTO anomalies (digest, plugin, at_unix_ms, body) VALUES ('ab', 'echo', 1, ?)",
            [(text,) for text in texts],
        )
    monitor = Monitor(database, lambda digest, tier: Monitoring(), CPUS)
    assert len(monitor.anomalies(limit=10)) == 2
    assert [is_of_time(each) for each in monitor.anomalies(limit=10)] == [False, False]
    database.close()
