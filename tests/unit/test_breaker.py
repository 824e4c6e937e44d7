"""A breaker by example: what opens it, what it lets through then, what closes it, and what is for quarantine."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plugind.governance.breaker import PROBE_LOST_MS, Breaker, closer
from plugind.governance.escalation import MOST_RUNS
from plugind.governance.statistics import FAILURES, Statistics
from plugind.model import Monitoring, Outcome
from tests.support.observed import CPUS, seen

MIB = 1024 * 1024
OK, FAILED = Outcome.OK, Outcome.FAILED
OPEN_MS = 60_000
OTHERS_DOING = [Outcome.KILLED, Outcome.CANCELED, Outcome.FAULT, Outcome.UNKNOWN]


class Desk:
    """A breaker with a clock and a ledger."""

    def __init__(self, **thresholds):
        self.thresholds = Monitoring(**thresholds)
        self.statistics = Statistics()
        self.breaker = Breaker(self.thresholds, self.statistics, CPUS)
        self.now = 1_000_000
        self.index = 0

    def run(self, outcome=OK, *, begin=True, **fields):
        """One run that is let through; what was said of it."""
        if begin:
            assert self.breaker.begin(self.now)
        self.now += 100
        self.index += 1
        given = {"wall_ms": 20, "output_bytes": 2000, "intent": self.index} | fields
        return self.breaker.observe(seen(outcome, index=self.index, at_unix_ms=self.now, **given))

    def runs(self, *outcomes, **fields):
        """The first that had a verdict, and how many it took."""
        for count, outcome in enumerate(outcomes, 1):
            judgement = self.run(outcome, **fields)
            if judgement.verdict:
                return judgement, count
        return None, len(outcomes)

    def opened(self):
        """An old, good version that has begun to fail."""
        self.runs(*[OK] * 300)
        judgement, _ = self.runs(*[FAILED] * 10)
        assert judgement.verdict == "opened"
        assert self.breaker.state == "open"
        return self

    def half_open(self):
        self.opened()
        self.now += OPEN_MS
        assert self.breaker.admits(self.now) == ""
        assert self.breaker.state == "half_open"
        return self


# --- what opens it ----------------------------------------------------------------------------------------------------


def test_a_slowdown_is_found_whether_or_not_its_instances_had_waited_before():
    """Half of its runs had, and neither half is enough to compare with. Those that had are quicker than both together."""
    desk = Desk()
    for number in range(34):
        assert not desk.run(wall_ms=20 if number % 2 else 30, ahead=number % 2 == 1).verdict
    judgement, count = desk.runs(*[OK] * 10, wall_ms=600, ahead=True)
    assert (judgement.verdict, count <= 4) == ("opened", True)
    assert judgement.anomalies[0].numbers["median"] == 25


def test_one_that_imports_is_compared_with_none_that_had_it_done():
    desk = Desk()
    assert desk.runs(*[OK] * 29, wall_ms=1, ahead=True)[0] is None
    assert desk.runs(*[OK] * 29, wall_ms=500)[0] is None
    assert desk.runs(*[OK] * 80, wall_ms=1, ahead=True)[0] is None


@pytest.mark.parametrize("ahead", [False, True])
def test_a_crowd_of_runs_is_no_slowdown_of_any(ahead):
    """After calls with pauses between them sixteen callers at once share two CPUs, and the jails of all are built."""
    desk = Desk()
    assert desk.runs(*[OK] * 80, wall_ms=1, ahead=ahead)[0] is None
    assert desk.runs(*[OK] * 80, wall_ms=100, ahead=ahead, beside=15)[0] is None
    assert desk.runs(*[OK] * 80, wall_ms=1, ahead=ahead)[0] is None


@pytest.mark.parametrize(("beside", "wall_ms"), [(0, 20), (1, 20), (15, 60), (199, 700)])
def test_a_tenfold_slowdown_is_found_among_as_many_runs_as_before(beside, wall_ms):
    desk = Desk()
    desk.runs(*[OK] * 80, wall_ms=wall_ms, beside=beside)
    judgement, count = desk.runs(*[OK] * 10, wall_ms=10 * wall_ms, beside=beside)
    assert (judgement.verdict, count <= 4) == ("opened", True)
    numbers = judgement.anomalies[0].numbers
    assert (numbers["beside"], numbers["usually_beside"]) == (beside, beside)


@pytest.mark.parametrize(("wall_ms", "beside", "bound"), [(50, 0, 200), (50, 1, 300), (50, 4, 600), (1, 15, 518)])
def test_more_runs_beside_excuse_no_more_than_they_take(wall_ms, beside, bound):
    """Of two CPUs. 200 ms: a median of 50 and six times half of it. 518: eight and a half times a median of 1 and six times 10."""
    for late_ms, verdict in ((bound, ""), (bound + 1, "opened")):
        desk = Desk()
        desk.runs(*[OK] * 80, wall_ms=wall_ms)
        judgement, _ = desk.runs(*[OK] * 10, wall_ms=late_ms, beside=beside)
        assert (judgement.verdict if judgement else "") == verdict, late_ms


def test_a_crowd_that_becomes_usual_excuses_what_its_jails_take():
    """Most are quick and one in ten is not, also when the median is that of a crowd."""
    desk = Desk()
    desk.runs(*[OK] * 60, wall_ms=2)
    for number in range(300):
        assert not desk.run(wall_ms=200 if number % 10 == 0 else 8, beside=15).verdict


@pytest.mark.parametrize("measure", [{"wall_ms": 2000}, {"memory": 2000 * MIB}, {"output_bytes": 10**6}])
def test_who_is_given_ten_times_as_much_may_use_ten_times_as_much(measure):
    usual = {name: size // 10 for name, size in measure.items()}
    desk = Desk()
    assert desk.runs(*[OK] * 80, input_bytes=5000, **usual)[0] is None
    assert desk.runs(*[OK] * 80, input_bytes=50_000, **measure)[0] is None
    assert desk.runs(*[OK] * 80, input_bytes=5000, **usual)[0] is None
    for size in (5000, 500, 0):
        slow = Desk()
        slow.runs(*[OK] * 80, input_bytes=5000, **usual)
        judgement, _ = slow.runs(*[OK] * 10, input_bytes=size, **measure)
        assert judgement.verdict == "opened"
        numbers = judgement.anomalies[0].numbers
        assert (numbers["input_bytes"], numbers["usual_input_bytes"]) == (size, 5000)


def test_a_small_input_that_grows_excuses_nothing():
    desk = Desk()
    desk.runs(*[OK] * 80, input_bytes=2)
    judgement, _ = desk.runs(*[OK] * 10, input_bytes=1000, output_bytes=10**6)
    assert judgement.verdict == "opened"


def test_runs_beside_excuse_time_and_nothing_else():
    for measure in ({"memory": 600 * MIB}, {"output_bytes": 10**6}):
        desk = Desk()
        desk.runs(*[OK] * 80)
        judgement, _ = desk.runs(*[OK] * 10, beside=199, **measure)
        assert judgement.verdict == "opened"


def test_runs_that_import_are_not_compared_with_those_that_had_it_done():
    """After a start of the daemon all import: that is no slowdown of the version."""
    desk = Desk()
    assert desk.runs(*[OK] * 80, wall_ms=1, ahead=True)[0] is None
    assert desk.runs(*[OK] * 80, wall_ms=25)[0] is None
    assert desk.runs(*[OK] * 80, wall_ms=1, ahead=True)[0] is None
    for ahead in (False, True):
        slow = Desk()
        slow.runs(*[OK] * 80, wall_ms=25, ahead=ahead)
        judgement, count = slow.runs(*[OK] * 10, wall_ms=250, ahead=ahead)
        assert (judgement.verdict, judgement.anomalies[0].trigger, judgement.late) == ("opened", "wall_ms", True)
        assert count <= 4


@pytest.mark.parametrize("outcome", sorted(FAILURES - {Outcome.OUTPUT_INVALID}))
def test_failures_in_a_row_open_it_with_the_numbers(outcome):
    desk = Desk()
    desk.runs(*[OK] * 60)
    judgement, count = desk.runs(*[outcome] * 10)
    assert (judgement.verdict, count <= 4) == ("opened", True)
    found = judgement.anomalies[0]
    assert (found.trigger, found.hard, found.severity, found.observed) == ("failures", False, "medium", False)
    assert found.expected == "fewer than 10 failures in 20 runs, and about as many as before (2%)"
    assert found.actual == "3 of the last 20 runs failed"
    assert (found.numbers["failures"], found.numbers["runs"], found.numbers["usual_percent"]) == (3.0, 20.0, 2.0)
    assert found.numbers["score"] >= found.numbers["limit"]
    assert all(type(value) is float for value in found.numbers.values())


def test_of_a_version_that_often_fails_half_of_the_window_opens_it():
    desk = Desk(warm_up=100)
    assert desk.runs(*[FAILED, OK, OK] * 100) == (None, 300)
    judgement, count = desk.runs(*[FAILED, FAILED, OK, OK] * 10)
    assert (judgement.verdict, judgement.anomalies[0].numbers["failures"]) == ("opened", 10)
    assert count < 20


def test_a_few_failures_now_and_then_do_not():
    desk = Desk()
    assert desk.runs(*([OK] * 19 + [FAILED]) * 30) == (None, 600)
    assert desk.runs(*[OK] * 9, FAILED, FAILED, *[OK] * 30) == (None, 41), "nor two in a row"


@pytest.mark.parametrize("outcome", [*OTHERS_DOING, None])
def test_what_is_not_the_plugins_doing_is_not_counted(outcome):
    desk = Desk()
    assert desk.runs(*[outcome] * 100) == (None, 100)
    desk.runs(*[OK] * 60)
    judgement, count = desk.runs(*[FAILED, outcome] * 10)
    assert (judgement.verdict, count) == ("opened", 5), "and does not stand between failures"


def test_of_a_new_version_nothing_is_known_but_the_window():
    desk = Desk()
    judgement, count = desk.runs(*[FAILED, OK] * 4, *[FAILED] * 20)
    assert (judgement.verdict, count) == ("opened", 14)
    assert judgement.anomalies[0].numbers["failures"] == 10
    desk.now += OPEN_MS
    desk.runs(FAILED, *[OK] * 4)
    assert desk.runs(FAILED, FAILED)[0].verdict == "opened", "but on trial it is held to what is usual for anybody"


def test_imports_ahead_are_nothing_to_it():
    desk = Desk()
    assert desk.runs(*[FAILED] * 50, mode="import") == (None, 50)
    assert desk.runs(*[OK] * 50, mode="import", wall_ms=90_000) == (None, 50)
    assert desk.statistics.failures.runs == 0


def test_results_that_are_none_in_a_row():
    desk = Desk()
    invalid = Outcome.OUTPUT_INVALID
    desk.runs(*[OK] * 5)
    assert desk.runs(invalid, invalid, OK, invalid, invalid) == (None, 5)
    judgement, _ = desk.runs(invalid)
    found = {each.trigger: each for each in judgement.anomalies}["schema_failures"]
    assert (found.actual, found.numbers) == ("3 in a row", {"schema_failures": 3.0, "limit": 3.0})


@pytest.mark.parametrize(
    ("trigger", "usual", "more"),
    [
        ("wall_ms", {"wall_ms": 20}, {"wall_ms": 200}),
        ("wall_ms", {"wall_ms": 2, "ahead": True}, {"wall_ms": 20, "ahead": True}),
        ("memory_peak_bytes", {"memory": 16 * MIB}, {"memory": 160 * MIB}),
        ("output_bytes", {"output_bytes": 1000}, {"output_bytes": 10_000}),
    ],
)
def test_ten_times_as_much_opens_it(trigger, usual, more):
    desk = Desk()
    assert desk.runs(*[OK] * 60, **usual) == (None, 60)
    judgement, count = desk.runs(*[OK] * 10, **more)
    assert (judgement.verdict, count <= 4) == ("opened", True)
    (found,) = judgement.anomalies
    assert found.trigger == trigger
    assert found.numbers["sample"] > found.numbers["bound"] > found.numbers["median"]
    assert str(int(found.numbers["sample"])) in found.actual
    assert f"{found.numbers['bound']:.0f} (median" in found.expected


@pytest.mark.parametrize("mode", ["map", "session"])
def test_maps_and_sessions_are_as_large_as_their_caller_makes_them(mode):
    desk = Desk()
    desk.runs(*[OK] * 60)
    assert desk.runs(*[OK] * 30, wall_ms=9000, memory=900 * MIB, output_bytes=10**7, mode=mode) == (None, 30)
    assert desk.statistics.levels["wall_ms"].samples.median == 20
    judgement, _ = desk.runs(*[FAILED] * 5, mode=mode)
    assert judgement.verdict == "opened", "but when they fail they fail"


def test_runs_that_are_all_alike_may_differ():
    desk = Desk()
    desk.runs(*[OK] * 60, wall_ms=2, memory=9 * MIB, output_bytes=10)
    assert desk.runs(*[OK] * 100, wall_ms=3, memory=12 * MIB, output_bytes=100) == (None, 100)
    assert desk.runs(*[OK] * 10, wall_ms=9)[0] is None


def test_one_large_input_does_not():
    desk = Desk()
    desk.runs(*[OK] * 60)
    for _ in range(30):
        assert desk.run(wall_ms=5000).verdict == ""
        assert desk.runs(*[OK] * 30)[0] is None
    assert desk.statistics.levels["wall_ms"].samples.median == 20


def test_before_the_warm_up_its_limits_hold_alone():
    desk = Desk()
    assert desk.runs(*[OK] * 29, wall_ms=20)[0] is None
    fresh = Desk(warm_up=100)
    fresh.runs(*[OK] * 90)
    assert fresh.runs(*[OK] * 9, wall_ms=900)[0] is None
    limited = Desk(warm_up=100, failures_percent=100, window=100)
    limited.runs(*[OK] * 90)
    judgement, _ = limited.runs(*[Outcome.TIMEOUT] * 10, wall_ms=1000)
    found = {each.trigger: each for each in judgement.anomalies}["wall_ms"]
    assert found.expected == "at most its limit"


def test_slow_drift_moves_what_is_usual():
    desk = Desk()
    for wall_ms in range(100, 3000, 2):
        assert desk.run(wall_ms=wall_ms).verdict == "", wall_ms
    assert desk.statistics.levels["wall_ms"].samples.median > 2800


# --- open -------------------------------------------------------------------------------------------------------------


def test_open_it_lets_nothing_start_and_says_when_it_will():
    desk = Desk().opened()
    assert not desk.breaker.begin(desk.now)
    assert (
        desk.breaker.admits(desk.now)
        == "its circuit breaker is open because of failures; it lets a run through in 60 s"
    )
    assert "in 1 s" in desk.breaker.admits(desk.now + OPEN_MS - 1)
    assert desk.breaker.admits(desk.now + OPEN_MS) == ""


def test_what_was_on_its_way_when_it_opened_says_nothing_more():
    desk = Desk().opened()
    for _ in range(10):
        assert desk.run(FAILED, begin=False).verdict == ""
    desk.now += OPEN_MS
    assert desk.breaker.begin(desk.now)
    late = desk.run(FAILED, begin=False, wall_ms=OPEN_MS + 5000)
    assert late.verdict == ""
    assert desk.statistics.breaker.probed == [], "it had begun before"
    desk.run(OK, begin=False)
    assert desk.statistics.breaker.probed == [False]


def test_a_clock_that_was_set_back_keeps_it_open_no_longer():
    desk = Desk().opened()
    desk.now -= 10_000_000
    assert "in 60 s" in desk.breaker.admits(desk.now)
    assert desk.breaker.admits(desk.now + OPEN_MS) == ""


@pytest.mark.parametrize("ms_later", [0, 30_000, OPEN_MS])
def test_a_restart_does_not_close_it(ms_later):
    desk = Desk().opened()
    again = Breaker(desk.thresholds, Statistics.from_json(desk.statistics.to_json()), CPUS)
    assert again.state == "open"
    at = desk.now + ms_later
    assert (again.admits(at), again.begin(at), again.state) == (
        desk.breaker.admits(at),
        desk.breaker.begin(at),
        desk.breaker.state,
    )


# --- half open --------------------------------------------------------------------------------------------------------


def test_half_open_lets_one_run_through_at_a_time():
    desk = Desk().half_open()
    assert desk.breaker.begin(desk.now)
    assert not desk.breaker.begin(desk.now)
    assert "one run through at a time" in desk.breaker.admits(desk.now)
    desk.run(OK, begin=False)
    assert desk.breaker.begin(desk.now)


@pytest.mark.parametrize("outcome", OTHERS_DOING)
def test_a_probe_that_others_end_is_given_back(outcome):
    desk = Desk().half_open()
    desk.run(outcome)
    assert desk.statistics.breaker.probed == []
    assert desk.breaker.begin(desk.now)


def test_a_probe_that_is_denied_after_its_intent_is_given_back_and_no_other_denial_gives_one():
    desk = Desk().half_open()
    assert desk.breaker.begin(desk.now)
    desk.run(None, begin=False, intent=-1, wall_ms=0)
    assert not desk.breaker.begin(desk.now)
    desk.run(None, begin=False, wall_ms=0)
    assert desk.breaker.begin(desk.now)
    desk.breaker.give_back()
    assert desk.breaker.begin(desk.now)


def test_a_probe_of_which_nothing_is_heard_is_given_up():
    desk = Desk().half_open()
    assert desk.breaker.begin(desk.now)
    assert not desk.breaker.begin(desk.now + PROBE_LOST_MS - 1)
    assert desk.breaker.begin(desk.now + PROBE_LOST_MS)


def test_probes_that_go_well_close_it():
    desk = Desk().half_open()
    judgement, count = desk.runs(*[OK] * 10)
    assert (judgement.verdict, judgement.anomalies, count) == ("closed", (), 5)
    assert desk.breaker.state == "closed"
    assert desk.breaker.admits(desk.now) == ""


def test_probes_that_fail_are_for_quarantine():
    desk = Desk().half_open()
    judgement, count = desk.runs(*[FAILED] * 10)
    assert (judgement.verdict, count) == ("quarantine", 3), "more than half"
    (found,) = judgement.anomalies
    assert (found.trigger, found.hard, found.severity) == ("probes", False, "high")
    assert (found.expected, found.actual) == ("fewer than 3 of 5 probes to fail, after failures", "3 of 3 failed")
    assert found.numbers == {"failed": 3.0, "timeouts": 0.0, "ended": 3.0, "probes": 5.0, "limit": 3.0}
    assert not desk.breaker.begin(desk.now), "and nothing starts, whoever hears of it"


def test_a_version_that_fails_now_and_then_needs_more_failed_probes():
    desk = Desk()
    desk.runs(*([OK] * 9 + [FAILED]) * 60)
    desk.runs(*[FAILED] * 10)
    desk.now += OPEN_MS
    assert desk.runs(FAILED, FAILED, FAILED)[0] is None
    assert desk.run(FAILED).verdict == "quarantine"


def test_slow_probes_within_the_limits_do_not_fail_and_are_what_is_usual_from_then_on():
    desk = Desk()
    desk.runs(*[OK] * 60, wall_ms=20)
    assert desk.runs(*[OK] * 10, wall_ms=400)[0].verdict == "opened"
    desk.now += OPEN_MS
    assert desk.runs(*[OK] * 5, wall_ms=400)[0].verdict == "closed"
    assert desk.statistics.levels["wall_ms"].samples.values == (400,) * 5
    assert desk.runs(*[OK] * 200, wall_ms=400)[0] is None
    assert desk.runs(*[OK] * 10, wall_ms=4000)[0].verdict == "opened"


def test_after_a_burst_what_was_usual_is_what_is_usual():
    desk = Desk()
    desk.runs(*[OK] * 60, wall_ms=20)
    assert desk.runs(*[OK] * 10, wall_ms=400)[0].verdict == "opened"
    desk.now += OPEN_MS
    assert desk.runs(*[OK] * 5, wall_ms=20)[0].verdict == "closed"
    samples = desk.statistics.levels["wall_ms"].samples
    assert (samples.median, len(samples)) == (20, 65)


def test_what_has_just_closed_opens_sooner_until_it_has_earned_trust():
    old = Desk()
    old.runs(*[OK] * 60)
    assert old.runs(FAILED, FAILED)[0] is None
    desk = Desk().half_open()
    desk.runs(*[OK] * 5)
    assert desk.runs(FAILED, FAILED)[0].verdict == "opened"
    desk.now += OPEN_MS
    desk.runs(*[OK] * 5)
    assert "on trial for 40 more runs" in desk.statistics.summary()["breaker"]
    desk.runs(*[OK] * 40)
    assert desk.statistics.breaker.trial == 0
    assert desk.runs(FAILED, FAILED)[0] is None


def reopening(desk, failures, runs=30, probes=(OK,) * 5):
    """It opens, its probes go well, and so on: so many failures at the end of these runs. The last verdict."""
    desk.opened()
    for _ in range(10):
        desk.now += OPEN_MS
        assert desk.runs(*probes)[0].verdict == "closed"
        judgement, _ = desk.runs(*[OK] * (runs - failures), *[FAILED] * failures)
        if judgement is None or judgement.verdict == "quarantine":
            return judgement
    return judgement


def test_one_that_opens_again_and_again_and_fails_more_than_before_is_for_quarantine():
    desk = Desk()
    judgement = reopening(desk, failures=3, runs=4, probes=[FAILED, OK, FAILED, OK, OK])
    assert (judgement.verdict, desk.statistics.breaker.openings) == ("quarantine", 3)
    why, found = judgement.anomalies
    assert (why.trigger, found.trigger, found.hard, found.severity) == ("failures", "reopened", False, "high")
    assert found.expected == "fewer than 3 openings of its breaker without 40 runs in between that went well"
    assert found.actual.startswith("3 since it was trusted last, now because of failures; ")
    assert found.numbers["failures"] / found.numbers["runs"] >= 1 / 3
    assert desk.breaker.state == "open"


def test_one_that_has_recovered_in_between_begins_anew():
    desk = Desk()
    assert reopening(desk, failures=0, runs=40) is None
    assert desk.statistics.breaker.streak.openings == 0
    assert desk.runs(*[FAILED] * 10)[0].verdict == "opened"
    assert desk.statistics.breaker.streak.openings == 1


def test_opening_again_alone_is_not_enough():
    desk = Desk()
    assert reopening(desk, failures=2, runs=30).verdict == "opened", "2 of 35 are no more than chance"
    assert desk.statistics.breaker.openings == 11
    assert desk.statistics.breaker.streak.runs <= MOST_RUNS


def test_one_that_becomes_slower_each_time_is_not_accepted_for_ever():
    desk = Desk()
    desk.runs(*[OK] * 100)
    verdicts = []
    for wall_ms in (200, 2000, 20_000):
        judgement, _ = desk.runs(*[OK] * 20, wall_ms=wall_ms)
        verdicts.append(judgement.verdict)
        desk.now += OPEN_MS
        desk.runs(*[OK] * 5, wall_ms=wall_ms)
        desk.runs(*[OK] * 27, wall_ms=wall_ms)
    assert verdicts == ["opened", "opened", "quarantine"]
    assert [each.trigger for each in judgement.anomalies] == ["wall_ms", "reopened"]


def test_who_is_released_begins_its_openings_anew():
    desk = Desk()
    reopening(desk, failures=3, runs=4, probes=[FAILED, OK, FAILED, OK, OK])
    desk.breaker.release()
    assert desk.statistics.breaker.streak.openings == 0
    assert desk.runs(FAILED, FAILED)[0].verdict == "opened"


@pytest.mark.parametrize(
    ("failures", "late"),
    [([Outcome.TIMEOUT] * 3, True), ([FAILED] * 3, False), ([Outcome.TIMEOUT, Outcome.TIMEOUT, FAILED], True)],
)
def test_what_opens_for_time_alone_says_so(failures, late):
    desk = Desk()
    desk.runs(*[OK] * 100)
    judgement, _ = desk.runs(*failures, mode="map")
    assert (judgement.verdict, judgement.late) == ("opened", late)
    desk.now += OPEN_MS
    judgement, _ = desk.runs(*failures, mode="map")
    assert (judgement.verdict, len(judgement.excusable_unix_ms)) == ("quarantine", 2 if late else 0)


def test_who_is_released_is_on_trial():
    desk = Desk().half_open()
    assert desk.runs(*[FAILED] * 5)[0].verdict == "quarantine"
    desk.breaker.release()
    assert (desk.breaker.state, desk.breaker.begin(desk.now), desk.statistics.breaker.trial) == ("closed", True, 40)


# --- observing, probation ---------------------------------------------------------------------------------------------


def test_where_it_only_observes_nothing_comes_of_it_and_all_is_said():
    desk = Desk(mode="observe")
    desk.runs(*[OK] * 60)
    judgement, _ = desk.runs(*[FAILED] * 10)
    assert (judgement.verdict, desk.breaker.state) == ("opened", "open")
    assert all(each.observed for each in judgement.anomalies)
    assert (desk.breaker.admits(desk.now), desk.breaker.begin(desk.now)) == ("", True)
    desk.now += OPEN_MS
    assert (desk.breaker.begin(desk.now), desk.breaker.begin(desk.now)) == (True, True), "as many as come"
    judgement, _ = desk.runs(*[FAILED] * 10)
    assert (judgement.verdict, judgement.anomalies[0].observed) == ("quarantine", True)
    assert desk.breaker.begin(desk.now)


def test_on_probation_everything_is_closer():
    found = closer(Monitoring())
    assert (found.window, found.failures_percent, found.deviations, found.schema_failures) == (10, 33, 4, 2)
    assert (found.mode, found.probes, found.open_ms, found.warm_up) == ("enforce", 5, 60_000, 30)
    assert (found.openings, found.together) == (2, 3)
    least = Monitoring(window=2, failures_percent=1, deviations=1, schema_failures=1, openings=2)
    assert closer(least) == least


# --- whatever happens -------------------------------------------------------------------------------------------------

EVENTS = st.lists(
    st.tuples(
        st.sampled_from([None, OK, OK, OK, FAILED, *Outcome]),
        st.sampled_from(["run", "run", "map", "session", "import"]),
        st.sampled_from([1, 20, 5000, 10**12]),
        st.sampled_from([0, 100, OPEN_MS, -500_000]),
        st.booleans(),
    ),
    max_size=120,
)
THRESHOLDS = st.builds(
    Monitoring,
    mode=st.sampled_from(["enforce", "observe"]),
    window=st.integers(2, 100),
    failures_percent=st.integers(1, 100),
    schema_failures=st.integers(1, 5),
    warm_up=st.integers(5, 100),
    deviations=st.integers(1, 9),
    probes=st.integers(1, 20),
    openings=st.integers(2, 20),
)


@given(EVENTS, THRESHOLDS, st.booleans())
def test_whatever_happens_it_is_consistent(events, thresholds, probation):
    thresholds = closer(thresholds) if probation else thresholds
    statistics = Statistics()
    breaker = Breaker(thresholds, statistics, CPUS)
    now = 10**9
    for index, (outcome, mode, size, later, begin) in enumerate(events):
        now = max(0, now + later)
        why = breaker.admits(now)
        if begin:
            assert breaker.begin(now) == (not why)
        assert not why or thresholds.mode == "enforce"
        assert bool(why) == (breaker.state != "closed" and thresholds.mode == "enforce") or breaker.state == "half_open"
        before = breaker.state
        judgement = breaker.observe(
            seen(outcome, index=index, mode=mode, wall_ms=size, memory=size, output_bytes=size, at_unix_ms=now)
        )
        assert (
            judgement.verdict
            in {"closed": ("", "opened", "quarantine"), "open": ("",), "half_open": ("", "closed", "quarantine")}[
                before
            ]
        )
        assert bool(judgement.anomalies) == (judgement.verdict in ("opened", "quarantine"))
        assert (
            breaker.state == {"opened": "open", "quarantine": "open", "closed": "closed", "": before}[judgement.verdict]
        )
        assert all(each.observed == (thresholds.mode == "observe") for each in judgement.anomalies)
        again = Statistics.from_json(statistics.to_json())
        assert again.to_json() == statistics.to_json()
    assert breaker.observe(seen(index=0)).verdict == "" or not events


def test_what_was_seen_before_changes_nothing():
    desk = Desk().opened()
    text = desk.statistics.to_json()
    for index in range(1, desk.index + 1):
        assert desk.breaker.observe(seen(FAILED, index=index)).verdict == ""
    assert desk.statistics.to_json() == text
