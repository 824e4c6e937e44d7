"""A session: one instance that answers inputs as they come, as one execution.

A Conversation is what the API has of it. Its other end is the sandbox's Frames; in between every input is checked like
that of a run, every output too, and all of it goes into one transcript, whose digest is the session's. When policy or
registry change, the session ends: what was decided for it may not hold any more.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

from plugind import leaks
from plugind.answers import Governance, RunAnswer
from plugind.batch import Answer, ItemError
from plugind.model import Outcome, Profile
from plugind.payload import Contract, check_input, output_problem
from plugind.policy.facts import Grant
from plugind.sandbox.outcome import judge_frame

INPUT: Final = b"<"
"""Begins an input in a transcript; an answer begins with the kind of its frame: V, E or I."""
_LAST_MS: Final = 1000
"""So long before the launcher would end it a session takes no more inputs."""


class Ask(Protocol):
    """plugind.sandbox.frames.Frames, as far as a session needs it."""

    def ask(self, text: bytes) -> asyncio.Future[tuple[bytes, bytes]]:
        """Kind and body of the frame that answers."""
        ...


@dataclass(frozen=True, slots=True)
class Terms:
    """What was decided when a session was opened."""

    contract: Contract
    grant: Grant
    profile: Profile
    holds: Callable[[], bool]
    """Whether it would be decided in the same way now. Asked before each input, so it has to be quick."""
    idle_ms: int


class Conversation:
    """One session, from its opening to its end. For one task at a time."""

    def __init__(self, idle_ms: int = 0) -> None:
        """`idle_ms`: how long the caller lets it wait for an input; 0: as long as the tier does."""
        self.leaked = ""
        """The kind of secret that an answer carried: that was withheld, and ended it."""
        self.why = ""
        """Why it ended well: closed, idle, changed, full. Empty: it did not end, or not well."""
        self.answered = 0
        self.failed = 0
        """How many of these came to an error."""
        self.timed_out = False
        self.transcript = bytearray()
        self.files = b""
        """What it may read of a plan, packed: known when it is agreed."""
        self.idle_ms = idle_ms
        self.on_end: Callable[[], None] = lambda: None
        """Called once, when no more inputs are taken, though the caller has not closed it."""
        self.life: asyncio.Future[RunAnswer] | None = None
        self.run_id = self.version = ""
        self.governance = Governance()
        """All three: known when it is open."""
        self.cancel: Callable[[], object] = lambda: None
        """Ends its instance: the caller is gone."""
        self._loop = asyncio.get_running_loop()
        self._opened = self._loop.create_future()
        self._closing = asyncio.Event()
        self._terms: Terms | None = None
        self._frames: Ask | None = None
        self._time_out: Callable[[], None] = lambda: None
        self._asking: asyncio.Future[tuple[bytes, bytes]] | None = None
        self._idle: asyncio.TimerHandle | None = None
        self._last = 0.0

    # -- the sandbox's side

    def agree(self, terms: Terms, time_out: Callable[[], None]) -> None:
        """What holds for it. `time_out` ends the instance because of an input that takes too long."""
        self._terms = terms
        self._time_out = time_out

    async def talk(self, frames: Ask) -> None:
        """Returns when the session is to end; canceled when its instance has ended."""
        assert self._terms is not None  # noqa: S101 - agreed before the instance was started
        self._frames = frames
        self._last = self._loop.time() + (self._terms.profile.session_ms - _LAST_MS) / 1000
        self._wait_for_input()
        self._opened.set_result(None)
        try:
            await self._closing.wait()
        finally:
            self._frames = None
            self._over()

    def _over(self) -> None:
        if self._idle is not None:
            self._idle.cancel()
        if self._asking is not None:
            self._asking.cancel()
        elif self.why != "closed":  # else the caller knows
            self.on_end()

    def _wait_for_input(self) -> None:
        assert self._terms is not None  # noqa: S101
        if self._frames is None:
            return  # it has ended since it answered
        until, why = self._loop.time() + self._terms.idle_ms / 1000, "idle"
        if until > self._last:  # the launcher would end it before, and not well
            until, why = self._last, "full"
        self._idle = self._loop.call_at(until, self._end_well, why)

    def _end_well(self, why: str) -> None:
        self.why = self.why or why
        self._closing.set()

    # -- the caller's side

    async def opened(self) -> bool:
        """Whether inputs can be asked now; False: it was denied, or its instance never came to be."""
        assert self.life is not None  # noqa: S101 - set by whoever began it
        await asyncio.wait([self._opened, self.life], return_when=asyncio.FIRST_COMPLETED)
        return bool(self._opened.done())

    @property
    def over(self) -> bool:
        """Whether no more inputs are taken."""
        return self._frames is None or self._closing.is_set()

    async def ask(self, text: bytes) -> Answer | None:
        """What comes of one input. None: the session has ended, or ends now, and this input has no answer."""
        terms, frames = self._terms, self._frames
        if terms is None or frames is None or self._closing.is_set():
            return None
        checked = check_input(terms.contract, text, terms.profile.input_bytes, terms.grant.tier)
        if checked.reasons:
            return ItemError(refused=checked.reasons)
        if not terms.holds():
            self._end_well("changed")
            return None
        limit = terms.profile.session_bytes
        if len(self.transcript) + len(text) > limit or self._loop.time() > self._last:
            self._end_well("full")
            return None
        if self._idle is not None:
            self._idle.cancel()
        self._note(INPUT, text)
        frame = await self._asked(frames, text, terms.grant.limits.wall_ms)
        if frame is None or self._leaks(frame[1]):
            return None
        self._note(*frame)
        self._wait_for_input()
        answer = _answer(terms, checked.calls, *frame)
        self.answered += 1
        self.failed += isinstance(answer, ItemError)
        return answer

    def _leaks(self, body: bytes) -> bool:
        """Whether an answer carries a secret that was not given. Then nobody gets it, and the session ends."""
        self.leaked = leaks.found(body, self.transcript)
        if self.leaked and self.files:
            self.leaked = leaks.found(body, self.transcript + self.files)
        if self.leaked:
            self._end_well("leaked")  # it has not: collect.session_result says what it was
        return bool(self.leaked)

    async def _asked(self, frames: Ask, text: bytes, wall_ms: int) -> tuple[bytes, bytes] | None:
        clock = self._loop.call_later(wall_ms / 1000, self._too_long)
        self._asking = frames.ask(text)
        try:
            return await self._asking
        except asyncio.CancelledError:
            if self._frames is not None:
                raise  # nobody ended it: the caller is gone
            return None
        finally:
            self._asking = None
            clock.cancel()

    def _too_long(self) -> None:
        self.timed_out = True
        self._time_out()

    def _note(self, kind: bytes, content: bytes) -> None:
        self.transcript += b"%s %d\n%s\n" % (kind, len(content), content)

    async def close(self) -> RunAnswer:
        """No more inputs. How the execution ended."""
        assert self.life is not None  # noqa: S101
        self._end_well("closed")
        answer = await asyncio.shield(self.life)
        if answer.outcome is not Outcome.OK:
            self.why = ""
        return answer


def _answer(terms: Terms, calls: int | None, kind: bytes, body: bytes) -> Answer:
    verdict = judge_frame(kind, body)
    if verdict.error is not None:
        return ItemError(raised=verdict.error)
    if verdict.outcome is not Outcome.OK:
        return ItemError(output_invalid=verdict.detail)
    problem = output_problem(terms.contract, body, terms.grant.limits.output_bytes, calls)
    return ItemError(output_invalid=problem) if problem else body
