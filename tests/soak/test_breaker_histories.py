"""Ten thousand histories of versions, with drift and noise, and ten thousand that go bad."""

from __future__ import annotations

import pytest

from tests.support.histories import benign, every_second_fails, gone_bad, half_of_it_fails, ten_times_as_slow

HISTORIES = 10_000


@pytest.mark.timeout(900)
def test_false_quarantines_are_below_one_in_a_thousand():
    result = benign(range(HISTORIES), 300)
    print(
        f"\n{len(result.quarantined)} of {HISTORIES} quarantined; {1000 * result.openings / result.runs:.2f} openings in 1000 runs"
    )
    assert len(result.quarantined) < HISTORIES / 1000


@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("change", "fixed", "least"),
    [
        (ten_times_as_slow, {}, 0.99),
        (half_of_it_fails, {"failing": 0.01}, 0.90),
        (half_of_it_fails, {}, 0.86),
        (every_second_fails, {"failing": 0.05, "others": 0.0}, 1.0),
    ],
)
def test_found_within_ten_runs(change, fixed, least):
    result = gone_bad(range(10**6, 10**6 + HISTORIES), change, **fixed)
    print(
        f"\n{change.__name__} {fixed}: {result.found / result.histories:.2%} of {result.histories}, within {result.latest} runs"
    )
    assert result.found / result.histories >= least
