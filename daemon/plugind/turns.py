"""Whose turn it is: the places of one tier, and those who wait for one. Nothing here waits or knows a loop.

A place that becomes free goes to the callers (uids) in turn, and within a caller to who came first. So a caller with
hundreds of waiting runs delays another one's by one turn and not by hundreds.
"""

from __future__ import annotations

import math
import time
from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal

MOST_WAITING: Final = 1024
"""Of one tier. What waits costs memory, above all its input: so a run counts once for each COUNTED_BYTES of it that it
has begun, and all of them together hold at most 256 MiB."""
MOST_WAITING_OF_ONE: Final = 512
"""Of one caller: half, so that no caller alone can fill the line."""
COUNTED_BYTES: Final = 256 * 1024
LEAST_HINT_MS: Final = 50
"""Whoever comes again sooner mostly finds the line as it was."""
MOST_HINT_MS: Final = 60_000
"""What holds up the line may be gone long before the estimate says so."""
_FIRST_GUESS_S: Final = 1.0
"""How long a run is taken to last before one has ended."""
_NEWEST: Final = 1 / 8
"""Weight of the run that ended last in the mean: it follows a change of load within about a dozen runs."""

Why = Literal["waited", "caller", "line"]


@dataclass(frozen=True, slots=True)
class Full:
    """That there is no place, and why: it waited in vain, or as many wait as may (of its caller, or of all)."""

    why: Why
    capacity: int
    """Places of the tier."""
    waiting: int
    """Runs that wait for one, this one not counted."""
    retry_after_ms: int
    """When its turn would come about if it came now."""


@dataclass(slots=True, eq=False)
class Ticket:
    """One run that wants a place. `settle` is called once: None, it has one; Full, it gets none."""

    uid: int
    settle: Callable[[Full | None], None]
    input_bytes: int = 0
    since: float | None = None
    """When it got its place; None: it has none."""

    @property
    def cost(self) -> int:
        """As how many it counts while it waits."""
        return min(max(1, math.ceil(self.input_bytes / COUNTED_BYTES)), MOST_WAITING_OF_ONE)


class Line:
    """The places of one tier. Nobody waits while one is free."""

    def __init__(self, capacity: int, clock: Callable[[], float] = time.monotonic) -> None:
        """`clock`: seconds."""
        self.capacity = capacity
        self.taken = 0
        self._clock = clock
        self._waiting: OrderedDict[int, OrderedDict[Ticket, None]] = OrderedDict()
        """By uid, in the order of their turns; no uid without a ticket."""
        self._cost: Counter[int] = Counter()
        self._mean_s = _FIRST_GUESS_S
        self._moved_at = clock()
        """When a place was given or given back last."""

    @property
    def waiting(self) -> int:
        """How many runs wait."""
        return sum(map(len, self._waiting.values()))

    def ask(self, ticket: Ticket) -> None:
        """Give it a place, let it wait, or turn it away."""
        if self.taken < self.capacity:
            self.taken += 1
            self._give(ticket)
        elif self._cost[ticket.uid] + ticket.cost > MOST_WAITING_OF_ONE:
            ticket.settle(self._full("caller", ticket.uid))
        elif not self._has_room(ticket):
            ticket.settle(self._full("line", ticket.uid))
        else:
            self._waiting.setdefault(ticket.uid, OrderedDict())[ticket] = None
            self._cost[ticket.uid] += ticket.cost

    def give_up(self, ticket: Ticket) -> None:
        """It has waited as long as it can. One that has a place keeps it."""
        if self._remove(ticket):
            ticket.settle(self._full("waited", ticket.uid))

    def leave(self, ticket: Ticket) -> None:
        """It is done with its place, or with waiting for one. Whatever it was, and also the second time."""
        if ticket.since is None:
            self._remove(ticket)
            return
        self._mean_s += (self._clock() - ticket.since - self._mean_s) * _NEWEST
        ticket.since = None
        if self._waiting:
            self._give(self._next())
        else:
            self.taken -= 1
            self._moved_at = self._clock()

    def _give(self, ticket: Ticket) -> None:
        ticket.since = self._moved_at = self._clock()
        ticket.settle(None)

    def _next(self) -> Ticket:
        uid, queue = next(iter(self._waiting.items()))
        ticket = next(iter(queue))
        self._remove(ticket)
        if queue:
            self._waiting.move_to_end(uid)
        return ticket

    def _remove(self, ticket: Ticket) -> bool:
        """Whether it waited."""
        queue = self._waiting.get(ticket.uid, OrderedDict())
        if ticket not in queue:
            return False
        del queue[ticket]
        self._cost[ticket.uid] -= ticket.cost
        if not queue:
            del self._waiting[ticket.uid], self._cost[ticket.uid]
        return True

    def _has_room(self, ticket: Ticket) -> bool:
        """Where the line is full, whoever waits with most makes room for who waits with less: it came too often."""
        while self._cost.total() + ticket.cost > MOST_WAITING:
            most = max(self._waiting, key=lambda uid: self._cost[uid])
            newest = next(reversed(self._waiting[most]))
            if self._cost[most] - newest.cost < self._cost[ticket.uid] + ticket.cost:
                return False
            self._remove(newest)
            newest.settle(self._full("line", most))
        return True

    def _full(self, why: Why, uid: int) -> Full:
        return Full(why, self.capacity, self.waiting, self._retry_after_ms(uid))

    def _retry_after_ms(self, uid: int) -> int:
        """Until one more of this caller would have its turn: as many as go before it, at the pace of late.

        At least as long as nothing has moved: runs that do not end are not in the mean.
        """
        own = len(self._waiting.get(uid, ())) + 1
        turns = own + sum(min(len(queue), own) for other, queue in self._waiting.items() if other != uid)
        wait_s = max(turns * self._mean_s / self.capacity, self._clock() - self._moved_at)
        return min(max(LEAST_HINT_MS, math.ceil(wait_s * 1000)), MOST_HINT_MS)
