"""Whose turn it is: fair between callers, bounded, and no place is ever lost or given twice. The clock is the test's."""

from __future__ import annotations

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, multiple, rule

from plugind import turns
from plugind.turns import Line, Ticket


class Clock:
    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


class Desk:
    """A line, and what it told whom."""

    def __init__(self, capacity=2):
        self.clock = Clock()
        self.line = Line(capacity, self.clock)
        self.told = {}
        self.placed = []

    def ask(self, uid, input_bytes=0):
        ticket = Ticket(uid, lambda full: self._settle(ticket, full), input_bytes)
        self.line.ask(ticket)
        return ticket

    def _settle(self, ticket, full):
        assert ticket not in self.told, "settled twice"
        self.told[ticket] = full
        if full is None:
            self.placed.append(ticket)

    def crowd(self, uid, count, input_bytes=0):
        return [self.ask(uid, input_bytes) for _ in range(count)]


def uids(tickets):
    return [ticket.uid for ticket in tickets]


# --- fairness --------------------------------------------------------------------------------------------------------


def test_a_free_place_is_given_at_once_and_in_the_order_of_coming():
    desk = Desk(2)
    first, second, third = desk.crowd(1, 3)
    assert desk.placed == [first, second]
    assert (desk.line.taken, desk.line.waiting) == (2, 1)
    desk.line.leave(second)
    assert desk.placed == [first, second, third]


def test_a_caller_with_500_waiting_delays_another_by_one_turn():
    desk = Desk(1)
    greedy = desk.crowd(1, 501)
    modest = desk.crowd(2, 3)
    for turn in range(6):
        desk.line.leave(desk.placed[turn])
    assert uids(desk.placed) == [1, 1, 2, 1, 2, 1, 2]
    assert [ticket for ticket in desk.placed if ticket.uid == 2] == modest
    assert [ticket for ticket in desk.placed if ticket.uid == 1] == greedy[:4]


def test_whoever_comes_last_has_its_turn_after_one_of_each_other_caller():
    desk = Desk(1)
    for uid in range(10):
        desk.crowd(uid, 20)
    last = desk.ask(99)
    for turn in range(11):
        desk.line.leave(desk.placed[turn])
    assert last in desk.placed


def test_coming_back_gives_no_turn_ahead_of_others():
    """Leaving the line and asking again goes to its end."""
    desk = Desk(1)
    desk.ask(1)
    mine = desk.ask(1)
    others = [desk.ask(2), desk.ask(3)]
    desk.line.give_up(mine)
    again = desk.ask(1)
    for turn in range(3):
        desk.line.leave(desk.placed[turn])
    assert desk.placed[1:] == [*others, again]


# --- bounds ----------------------------------------------------------------------------------------------------------


def test_no_more_of_one_caller_wait_than_may():
    desk = Desk(1)
    desk.crowd(1, 1 + turns.MOST_WAITING_OF_ONE)
    assert len(desk.told) == 1
    turned_away = desk.ask(1)
    assert desk.told[turned_away].why == "caller"
    assert desk.line.waiting == turns.MOST_WAITING_OF_ONE == desk.told[turned_away].waiting
    waits = desk.ask(2)
    assert waits not in desk.told


def test_in_a_full_line_who_waits_with_most_makes_room():
    desk = Desk(1)
    ones = desk.crowd(1, 1 + turns.MOST_WAITING_OF_ONE)
    twos = desk.crowd(2, turns.MOST_WAITING - turns.MOST_WAITING_OF_ONE)
    assert desk.line.waiting == turns.MOST_WAITING
    newcomer = desk.ask(3)
    assert newcomer not in desk.told
    (gone,) = (ticket for ticket in desk.told if desk.told[ticket] is not None)
    assert gone in {ones[-1], twos[-1]}
    assert (desk.told[gone].why, desk.line.waiting) == ("line", turns.MOST_WAITING)


def test_in_a_line_full_of_equals_the_newcomer_is_turned_away():
    desk = Desk(1)
    desk.ask(0)
    for uid in range(turns.MOST_WAITING):
        desk.ask(uid)
    assert desk.told[desk.ask(5000)].why == "line"
    assert desk.told[desk.ask(7)].why == "line"
    assert desk.line.waiting == turns.MOST_WAITING


def test_what_waits_counts_by_its_size():
    desk = Desk(1)
    desk.ask(1, 10**9)  # a place costs nothing of the line
    assert desk.ask(1, turns.COUNTED_BYTES).cost == 1
    large = desk.ask(1, turns.COUNTED_BYTES * (turns.MOST_WAITING_OF_ONE - 1))
    assert large not in desk.told
    small = desk.ask(1)
    assert desk.told[small].why == "caller"
    desk.line.give_up(large)
    assert desk.ask(1) not in desk.told


# --- the hint --------------------------------------------------------------------------------------------------------


def hint(desk, uid=1):
    """What one more of this caller is told that waits in vain."""
    ticket = desk.ask(uid)
    desk.line.give_up(ticket)
    return desk.told[ticket].retry_after_ms


def lasting(desk, seconds, count=100):
    """So many runs after each other, each as long."""
    for _ in range(count):
        ticket = desk.ask(9)
        desk.clock.now += seconds
        desk.line.leave(ticket)


def test_the_hint_is_the_length_of_runs_times_those_ahead_over_the_places():
    desk = Desk(4)
    lasting(desk, 0.8)
    desk.crowd(1, 4 + 9)
    assert hint(desk) == pytest.approx(10 * 800 / 4, rel=0.01)


def test_the_hint_knows_that_callers_have_turns():
    """Of a crowd of another caller's only one goes ahead of the first of mine."""
    desk = Desk(1)
    lasting(desk, 0.1)
    desk.crowd(1, 1 + 100)
    assert hint(desk, uid=2) == pytest.approx(200, rel=0.01)
    assert hint(desk, uid=1) == pytest.approx(10_100, rel=0.01)


def test_the_hint_follows_what_runs_last_of_late():
    desk = Desk(1)
    lasting(desk, 5.0)
    lasting(desk, 0.2, count=50)
    desk.ask(1)
    assert 200 <= hint(desk) < 250


def test_before_anything_has_ended_the_hint_is_a_guess_and_not_nothing():
    desk = Desk(1)
    desk.clock.now += 10_000  # that nobody came means nothing
    desk.ask(1)
    assert hint(desk) == 1000


def test_while_nothing_ends_the_hint_grows():
    desk = Desk(1)
    lasting(desk, 0.1)
    desk.ask(1)
    assert hint(desk) == pytest.approx(100, rel=0.01)
    desk.clock.now += 7
    assert hint(desk) == 7000


def test_the_hint_has_bounds():
    desk = Desk(8)
    lasting(desk, 0.0001, count=200)
    desk.crowd(1, 8)
    assert hint(desk) == turns.LEAST_HINT_MS
    desk.clock.now += 10**6
    assert hint(desk) == turns.MOST_HINT_MS


# --- no place is lost or given twice ---------------------------------------------------------------------------------


class AnyOrder(RuleBasedStateMachine):
    """Coming, giving up and leaving in any order, also twice, and also after being turned away."""

    tickets = Bundle("tickets")

    def __init__(self):
        super().__init__()
        self.desk = Desk(3)
        self.asked = []
        self.gone = set()

    @rule(target=tickets, uid=st.integers(0, 3), size=st.sampled_from([0, 1, 2**20, 2**26]), count=st.integers(1, 40))
    def come(self, uid, size, count):
        crowd = self.desk.crowd(uid, count, size)
        self.asked += crowd
        return multiple(*crowd)

    @rule(ticket=tickets)
    def give_up(self, ticket):
        self.desk.line.give_up(ticket)

    @rule(ticket=tickets)
    def leave(self, ticket):
        self.desk.line.leave(ticket)
        self.gone.add(ticket)

    @rule(ticket=consumes(tickets), ms=st.integers(0, 5000))
    def leave_for_good(self, ticket, ms):
        self.desk.clock.now += ms / 1000
        self.leave(ticket)

    @invariant()
    def every_place_has_one_holder(self):
        told = self.desk.told
        holders = [each for each in self.asked if each not in self.gone and each in told and told[each] is None]
        waiting = [each for each in self.asked if each not in self.gone and each not in told]
        line = self.desk.line
        assert line.taken == len(holders) <= line.capacity
        assert line.waiting == len(waiting)
        assert not waiting or line.taken == line.capacity
        assert sum(each.cost for each in waiting) == line._cost.total() <= turns.MOST_WAITING
        assert all(full is None or full.retry_after_ms >= turns.LEAST_HINT_MS for full in told.values())

    def teardown(self):
        for ticket in self.asked:
            self.leave(ticket)
        assert (self.desk.line.taken, self.desk.line.waiting) == (0, 0)


TestAnyOrder = AnyOrder.TestCase
