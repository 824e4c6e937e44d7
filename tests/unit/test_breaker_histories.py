"""Two thousand histories with drift and noise; `make soak` takes ten thousand. What is found, and what is not harmed."""

from __future__ import annotations

import random

import pytest

from tests.support.histories import (
    History,
    Version,
    benign,
    every_second_fails,
    gone_bad,
    half_of_it_fails,
    ten_times_as_slow,
)

pytestmark = pytest.mark.slow


def test_versions_that_drift_and_vary_are_not_put_into_quarantine():
    result = benign(range(2000), 200)
    assert len(result.quarantined) <= 2, "below 0.1 %"
    assert result.openings / result.runs < 0.004


@pytest.mark.parametrize(
    "behaviour",
    [
        {"noise": 0.3},
        {"noise": 0.3, "failing": 0.01},
        {"noise": 0.5, "drift": 0.002},
        {"noise": 0.2, "drift": -0.005},
        {"noise": 0.02, "burst": 0.01},
        {"noise": 0.3, "large": 0.02},
        {"noise": 0.3, "others": 0.3},
    ],
    ids=str,
)
def test_an_ordinary_version_hardly_ever_waits(behaviour):
    opened = runs = 0
    for seed in range(20):
        history = History(Version(random.Random(seed), **behaviour))
        opened += len(history.go(500).opened)
        runs += history.runs
    assert opened / runs <= 0.0005, "one in two thousand runs"


def test_a_tenfold_slowdown_is_found_within_ten_runs():
    result = gone_bad(range(10**6, 10**6 + 1000), ten_times_as_slow)
    assert result.found / result.histories >= 0.985
    calm = gone_bad(range(10**6, 10**6 + 300), ten_times_as_slow, noise=0.3, large=0.0, others=0.0, failing=0.01)
    assert (calm.found, calm.histories) == (300, 300)


def test_a_jump_to_half_of_the_runs_failing_is_found_within_ten_runs():
    # Three failures are the fewest that can be told from chance: 94.5 % have as many in ten runs.
    result = gone_bad(range(10**6, 10**6 + 1000), half_of_it_fails, failing=0.01, others=0.0)
    assert result.found / result.histories >= 0.89
    result = gone_bad(range(10**6, 10**6 + 1000), half_of_it_fails)
    assert result.found / result.histories >= 0.85


@pytest.mark.parametrize("failing", [0.0, 0.01, 0.05, 0.1])
def test_every_second_run_failing_is_always_found_within_ten(failing):
    result = gone_bad(range(10**6, 10**6 + 300), every_second_fails, failing=failing, others=0.0)
    assert (result.found, result.histories) == (300, 300)
    assert result.latest <= 10


@pytest.mark.parametrize("before", [0.0, 0.01, 0.03])
def test_a_version_that_always_fails_from_some_run_on_is_soon_in_quarantine(before):
    for seed in range(100):
        history = History(Version(random.Random(seed), failing=before))
        history.go(100)
        history.version.failing = 1.0
        before_that = history.runs
        assert history.go(40).quarantined >= 0
        assert history.runs - before_that <= 15


def test_one_that_fails_in_half_of_its_runs_from_some_run_on_is_in_quarantine_in_the_end():
    taken = []
    for seed in range(100):
        history = History(Version(random.Random(seed), failing=0.01))
        history.go(200)
        history.version.failing = 0.5
        before = history.runs
        assert history.go(1000).quarantined >= 0
        taken.append(history.runs - before)
    assert sorted(taken)[50] <= 30
    assert max(taken) <= 150


@pytest.mark.parametrize("before", [0.05, 0.1])
def test_so_is_one_that_failed_often_enough_before(before):
    taken = []
    for seed in range(100):
        history = History(Version(random.Random(seed), failing=before))
        history.go(200)
        if history.told.quarantined >= 0:
            continue
        history.version.failing = 0.5
        began = history.runs
        assert history.go(1000).quarantined >= 0
        taken.append(history.runs - began)
    assert max(taken) <= 150


def test_one_that_becomes_slower_in_steps_is_in_quarantine_in_most_cases():
    found = 0
    for seed in range(100):
        history = History(Version(random.Random(seed), noise=0.3))
        history.go(100)
        for _ in range(6):
            history.version.wall_ms *= 5
            if history.told.quarantined < 0:
                history.go(30)
        found += history.told.quarantined >= 0
    assert found >= 75


def test_a_lasting_new_level_is_what_is_usual_after_one_opening():
    for seed in range(100):
        history = History(Version(random.Random(seed), noise=0.3))
        history.go(100)
        history.version.wall_ms *= 10
        told = history.go(400)
        assert told.quarantined < 0
        assert len(told.opened) == told.closed == 1
        assert 150 < history.statistics.levels["parked_wall_ms"].samples.median < 250
