"""A crowd of killed instances: their ends wait for each other, and not for ever."""

from types import SimpleNamespace

import pytest

from plugind.sandbox.crowd import FEW, WAIT_NS, Crowd
from plugind.sandbox.supervisor import FOREVER_NS

NOW = 10**9
RUNS = [f"r{number}" for number in range(FEW + 1)]


def instance(run):
    return SimpleNamespace(run=run)


def test_their_ends_come_together_when_the_last_one_has_ended():
    crowd = Crowd()
    crowd.begin(RUNS, NOW)
    for run in RUNS[:-1]:
        assert crowd.takes(instance(run), -9)
        assert crowd.over(NOW + 1) == []
    assert crowd.takes(instance(RUNS[-1]), 0)
    ended = crowd.over(NOW + 2)
    assert [(each.run, code) for each, code in ended] == [*((run, -9) for run in RUNS[:-1]), (RUNS[-1], 0)]
    assert (crowd.over(NOW + 3), crowd.next_check_ns) == ([], FOREVER_NS)


def test_when_the_time_is_up_those_that_have_ended_wait_no_more_and_the_rest_is_none():
    crowd = Crowd()
    crowd.begin(RUNS, NOW)
    assert crowd.takes(instance(RUNS[0]), -9)
    assert crowd.next_check_ns == NOW + WAIT_NS
    assert [each.run for each, _ in crowd.over(NOW + WAIT_NS)] == [RUNS[0]]
    assert not crowd.takes(instance(RUNS[1]), -9)


@pytest.mark.parametrize("run", ["r0", "other"])
def test_a_few_are_no_crowd_and_nobody_else_belongs_to_one(run):
    crowd = Crowd()
    crowd.begin(RUNS[:FEW], NOW)
    assert not crowd.takes(instance(run), -9)
    crowd.begin(RUNS, NOW)
    assert crowd.takes(instance(run), -9) is (run == "r0")


def test_more_of_them_give_it_no_more_time():
    crowd = Crowd()
    crowd.begin(RUNS, NOW)
    crowd.begin(["late"], NOW + WAIT_NS // 2)
    assert crowd.takes(instance("late"), -9)
    assert crowd.next_check_ns == NOW + WAIT_NS


def test_names_that_nobody_has_hold_nobody_up_for_long():
    crowd = Crowd()
    crowd.begin([f"made-up-{number}" for number in range(200)], NOW)
    assert crowd.over(NOW + WAIT_NS) == []
    assert crowd.next_check_ns == FOREVER_NS
