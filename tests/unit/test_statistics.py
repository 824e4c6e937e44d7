"""What is kept of a version is bounded, correct beside a slow count, and the same after it was written and read."""

from __future__ import annotations

import json
import random
import statistics as reference

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plugind.governance import samples, sequential, statistics
from plugind.governance.breaker import Breaker
from plugind.governance.samples import Samples
from plugind.governance.sequential import Sequential
from plugind.governance.statistics import MEASURES, Statistics
from plugind.model import Monitoring, Outcome
from tests.support.histories import History, Version
from tests.support.observed import CPUS, seen

SMALL = Monitoring(window=5, warm_up=5, open_ms=5000, probes=3)


def lived(seed=0, runs=200, thresholds=SMALL, **changes):
    history = History(Version(random.Random(seed), **({"failing": 0.1, "burst": 0.02} | changes)), thresholds)
    history.go(runs)
    return history


@given(st.lists(st.integers(0, 2**53 - 1), max_size=250))
def test_median_and_mad_are_those_of_the_last_samples(values):
    kept = Samples()
    for value in values:
        kept.add(value)
    last = values[-samples.MOST :]
    assert kept.values == tuple(last)
    median = reference.median(last) if last else 0
    assert kept.median == pytest.approx(median)
    assert kept.mad == pytest.approx(reference.median(abs(value - median) for value in last) if last else 0)
    assert Samples(values).values == kept.values


@given(st.lists(st.booleans(), max_size=900), st.integers(2, 100))
def test_the_sequential_test_counts_what_left_the_window_and_stays_bounded(hits, window):
    test = Sequential()
    for hit in hits:
        before = test.usual
        score = test.add(hit, window, 0.5)
        assert score >= 0
        assert 0.02 <= before <= 0.3
        assert len(test.recent) <= window
        assert 0 <= test.hits <= test.runs < sequential.MEMORY
    assert list(test.recent) == hits[-window:]
    if len(hits) - window < sequential.MEMORY:
        assert (test.runs, test.hits) == (max(0, len(hits) - window), sum(hits[:-window]))


def test_what_is_usual_follows_a_version_and_what_is_judged_is_no_part_of_it():
    test = Sequential()
    for _ in range(2000):
        test.add(False, 20, 0.5)
    assert test.usual == 0.02
    for _ in range(20):
        test.add(True, 20, 0.5)
    assert (test.usual, test.score > 50) == (0.02, True)
    test.restart()
    assert (test.usual, test.score, list(test.recent)) == (0.02, 0.0, [])
    for run in range(2000):
        test.add(run % 10 == 0, 20, 0.5)
    assert test.usual == pytest.approx(0.1, abs=0.01)
    assert 0.1 < test.usual_at_most < 0.15
    assert Sequential().usual_at_most == pytest.approx(0.13, abs=0.001), "of nothing nothing is known"


@pytest.mark.parametrize(("least", "expected"), [(0, 1.0), (1, 0.40951), (3, 0.00856), (5, 0.00001), (6, 0.0)])
def test_the_tail_of_a_binomial_distribution(least, expected):
    assert sequential.tail(least, 5, 0.1) == pytest.approx(expected)


def test_everything_is_counted_once():
    kept = Statistics()
    breaker = Breaker(Monitoring(), kept, CPUS)
    events = [
        seen(Outcome.OK, index=4),
        seen(None, index=7, codes=("BUSY",)),
        seen(Outcome.FAILED, index=9, mode="import"),
    ]
    for event in (*events, *events):
        breaker.observe(event)
    assert (kept.counts, kept.denied, kept.next_index) == ({"ok": 1, "failed": 1}, 1, 10)
    assert list(kept.outcomes) == ["ok", "failed"]


def test_first_and_last_are_times_of_the_ledger():
    kept = Statistics()
    for at, index in ((500, 1), (900, 2), (700, 3)):
        kept.note(seen(index=index, at_unix_ms=at))
    assert (kept.first_unix_ms, kept.last_unix_ms) == (500, 900)


@given(st.integers(0, 10**6), st.integers(0, 400), st.sampled_from([0.0, 0.1, 0.6, 1.0]))
def test_written_and_read_it_is_the_same_and_goes_on_the_same(seed, runs, failing):
    history = lived(seed, runs, failing=failing)
    text = history.statistics.to_json()
    assert len(text) < statistics.MOST_BYTES / 4
    again = Statistics.from_json(text)
    assert again.to_json() == text
    assert again.breaker == history.statistics.breaker
    other = Breaker(SMALL, again, CPUS)
    at = history.now_unix_ms + 5
    for place in range(12):
        assert other.begin(at) == history.breaker.begin(at)
        event = seen(
            Outcome.FAILED if place % 2 else Outcome.OK, index=history.runs + place, wall_ms=1, at_unix_ms=at + 2
        )
        assert other.observe(event) == history.breaker.observe(event)
        at += 2000
    assert again.to_json() == history.statistics.to_json()


def test_it_does_not_grow():
    small, large = (
        len(lived(1, runs, Monitoring(), wall_ms=900, noise=0).statistics.to_json()) for runs in (2000, 6000)
    )
    assert large < 1.05 * small < 6000


TEXT = lived().statistics.to_json()


@pytest.mark.parametrize(
    "place", [[], ["failures"], ["levels"], ["levels", "wall_ms"], ["levels", "wall_ms", "beyond"], ["breaker"]]
)
def test_a_key_too_few_or_too_many_is_refused(place):
    for change in (lambda table: table.popitem(), lambda table: table.update(more=1)):
        whole = table = json.loads(TEXT)
        for key in place:
            table = table[key]
        change(table)
        with pytest.raises(ValueError, match=r"statistics: .*expected a table with"):
            Statistics.from_json(json.dumps(whole))


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (["schema"], 5),
        (["next_index"], -1),
        (["denied"], 1.0),
        (["denied"], True),
        (["counts"], []),
        (["counts"], {"won": 1}),
        (["counts"], {"ok": -1}),
        (["outcomes"], ["ok"] * 101),
        (["outcomes"], [1]),
        (["failures", "runs"], 401),
        (["failures", "runs"], "1"),
        (["failures", "hits"], 399.5),
        (["failures", "score"], -0.5),
        (["failures", "recent"], [2]),
        (["failures", "recent"], [0] * 101),
        (["failures", "recent"], [[]]),
        (["inputs"], [1] * 101),
        (["inputs"], {}),
        (["levels", "wall_ms", "samples"], [1] * 101),
        (["levels", "wall_ms", "samples"], [-1]),
        (["levels", "wall_ms", "beside"], [1] * 101),
        (["levels", "parked_wall_ms", "beside"], [-1]),
        (["levels", "output_bytes", "probed"], [0] * 21),
        (["breaker", "state"], "ajar"),
        (["breaker", "state"], []),
        (["breaker", "why"], 1),
        (["breaker", "trial"], 2**53),
        (["breaker", "probed"], [None]),
        (["breaker", "late"], 21),
        (["breaker", "streak"], {}),
        (["breaker", "streak", "openings"], -1),
        (["breaker", "streak", "late_unix_ms"], [0] * 21),
        (["breaker", "streak", "medians"], []),
        (["breaker", "streak", "medians"], {"cpu_ms": 1.0}),
        (["breaker", "streak", "medians"], {"wall_ms": -1.0}),
    ],
)
def test_a_value_that_was_never_written_is_refused(place, value):
    whole = table = json.loads(TEXT)
    for key in place[:-1]:
        table = table[key]
    table[place[-1]] = value
    with pytest.raises(ValueError, match=r"statistics: |is not a valid Outcome"):
        Statistics.from_json(json.dumps(whole))


def before_beside():
    table = json.loads(TEXT)
    del table["inputs"]
    for level in table["levels"].values():
        del level["beside"]
    return table


def test_what_was_written_before_runs_beside_were_counted_is_read():
    table = before_beside()
    found = Statistics.from_json(json.dumps(table | {"schema": 3}))
    level = found.levels["parked_wall_ms"]
    assert (list(level.samples.values), level.beside.median) == (table["levels"]["parked_wall_ms"]["samples"], 0)
    with pytest.raises(ValueError, match="expected a table with"):
        Statistics.from_json(json.dumps(table))


def test_what_was_written_before_there_were_streaks_is_read():
    table = before_beside()
    del table["breaker"]["late"], table["breaker"]["streak"]
    del table["levels"]["parked_wall_ms"]
    found = Statistics.from_json(json.dumps(table | {"schema": 1}))
    assert found.breaker.streak == statistics.Streak()
    with pytest.raises(ValueError, match="expected a table with"):
        Statistics.from_json(json.dumps(table))


def test_one_duration_of_all_runs_goes_on_as_that_of_parked_ones():
    table = before_beside()
    table["levels"]["wall_ms"] = table["levels"].pop("parked_wall_ms")
    before = table["levels"]["wall_ms"]["samples"]
    assert before
    found = Statistics.from_json(json.dumps(table | {"schema": 2}))
    assert (list(found.levels["parked_wall_ms"].samples.values), len(found.levels["wall_ms"].samples)) == (before, 0)
    assert Statistics.from_json(found.to_json()).to_json() == found.to_json()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        TEXT + "x",
        TEXT.replace("0", "NaN", 1),
        "{" * 5000,
        "\ud800",
        " " * 70000,
        '{"schema":1,"schema":1}',
    ],
)
def test_no_json_of_ours_is_refused(text):
    with pytest.raises(ValueError, match="statistics: "):
        Statistics.from_json(text)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(["ok", "closed", ""]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["runs", "hits", "score", "recent"]), inner)
    ),
    max_leaves=6,
)


@given(st.data())
def test_any_value_anywhere_is_read_or_refused(data):
    whole = json.loads(TEXT)
    table = whole
    while True:
        key = data.draw(st.sampled_from(sorted(table)))
        if not isinstance(table[key], dict) or data.draw(st.booleans()):
            break
        if not table[key]:
            break
        table = table[key]
    table[key] = data.draw(JSON)
    try:
        found = Statistics.from_json(json.dumps(whole))
    except ValueError:
        return
    assert Statistics.from_json(found.to_json()).to_json() == found.to_json()
    breaker = Breaker(Monitoring(), found, CPUS)
    breaker.begin(1)
    breaker.observe(seen(index=found.next_index))


def test_the_summary_says_what_a_person_wants_to_know():
    history = lived(3, 100, Monitoring(), failing=0.0, noise=0, burst=0)
    shown = history.statistics.summary()
    assert shown["runs"] == "100 ok"
    assert shown["failures"] == "0 of the last 20; usually 2%"
    assert shown["parked_wall_ms"] == "median 20, MAD 0 of 100 samples"
    assert shown["breaker"] == "closed, opened 0 times"
    assert set(MEASURES) < shown.keys()
    history.version.failing = 1.0
    history.go(30, until_opened=True)
    assert history.statistics.summary()["breaker"] == "open (failures), opened 1 times"
    assert Statistics().summary()["runs"] == "none"
