"""Pieces of work in plans' folders, as the launcher sees them: each is done by a process of its own (helper.py).

The loop never waits for one: a helper that hangs is killed at its deadline and left behind, and counts until the
kernel lets go of it.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from plugind.errors import InvalidRequestError, PlanError
from plugind.planfiles import PLAN_CODES
from plugind.sandbox import channel, protocol
from plugind.sandbox.loop import Loop
from plugind.sandbox.plans import helper, identity
from plugind.sandbox.plans.helper import MAX_ANSWER_BYTES, Perform, Piece
from plugind.sandbox.plans.identity import Identity
from plugind.sandbox.plans.known import Known
from plugind.sandbox.plans.roots import Roots
from plugind.sandbox.supervisor import FOREVER_NS
from plugind.sandbox.words import log, parse, short

TASKS: Final = frozenset({"read", "stage", "settle", "clean", "compare"})
ALONE: Final = TASKS - {"read"}
"""What can be asked for when the caller is gone."""
DEADLINE_S: Final = 3.0
MOST: Final = 8
"""Helpers at one time, those that were left behind with them."""
MOST_OF_ONE: Final = 4
"""Of one user: who stops his own cannot keep everybody else from their plans."""
MOST_WAITING: Final = 256
"""Pieces of work that wait for a place; of one user half of them."""
LAST_S: Final = 0.1
"""So long one that was killed may take to end, which a fork does within a few ms; then it hangs."""


@dataclass(frozen=True, slots=True)
class Means:
    """What the launcher goes by, and what its helpers do."""

    roots: Roots
    known: Known
    perform: Perform
    deadline_s: float = DEADLINE_S


@dataclass(slots=True)
class _Work:
    """One helper, until the kernel has let go of it."""

    message: protocol.PlanWork
    pid: int
    pidfd: int
    sock: socket.socket
    due_ns: int
    who: Identity
    noted: bool
    """Whether what has to be known of it before it changes anything is known."""
    answered: bool = False
    """It has told, or it is told of it that it did not."""
    killed: bool = False
    gone_ns: int = FOREVER_NS
    """When one that was killed should have ended."""
    hangs: bool = False
    """It was killed, and that was long enough ago: it does not end."""


@dataclass(slots=True)
class _Waiting:
    """One that waits for a place."""

    message: protocol.PlanWork
    order: int
    until_ns: int = field(default=FOREVER_NS)


class Works:
    """`tell` gives the front a message with descriptors."""

    def __init__(self, loop: Loop, means: Means, tell: Callable[[protocol.OfAPlan, Sequence[int]], None]) -> None:
        self._loop = loop
        self._means = means
        self._deadline_ns = int(means.deadline_s * 10**9)
        self._tell = tell
        self._works: dict[int, _Work] = {}
        """By pid."""
        self._waiting: dict[str, _Waiting] = {}
        """By name, in their order."""
        self._moved = False
        """Whether there may be a place that was not there before, or is not to be waited for any more."""

    def take(self, message: protocol.PlanWork, order: int) -> None:
        """Have it done, soon. Raises InvalidRequestError for what no front in its right mind asks for."""
        if message.run in self._waiting or any(
            work.message.run == message.run and not work.answered for work in self._works.values()
        ):
            raise InvalidRequestError(f"plan work {message.run} is there already")
        try:
            if message.task not in TASKS:
                raise InvalidRequestError(f"task: expected one of {', '.join(sorted(TASKS))}, got {message.task!r:.80}")
            channel.check_sealed(order, "order", MAX_ANSWER_BYTES)
        except InvalidRequestError as error:
            self._fail(message.run, "fault", str(error))
            raise
        if not self._waiting and self._has_room(message.caller_uid):
            self._try(message, order)
        else:
            self._wait(message, order)
            self._moved = True

    def next_check_ns(self) -> int:
        """When `check` has something to do."""
        due = [work.gone_ns if work.killed else work.due_ns for work in self._works.values() if not work.hangs]
        return min((*due, *(each.until_ns for each in self._waiting.values())), default=FOREVER_NS)

    def check(self, now_ns: int) -> None:
        """Leave behind what has taken too long, and begin what can begin."""
        if not self._moved and now_ns < self.next_check_ns():
            return
        self._moved = False
        for work in self._works.values():
            if now_ns >= work.due_ns and not work.killed:
                self._leave_behind(work)
            work.hangs = now_ns >= work.gone_ns
        for name, waiting in list(self._waiting.items()):
            message = waiting.message
            if self._has_room(message.caller_uid):
                del self._waiting[name]
                self._try(message, waiting.order)
                os.close(waiting.order)
            elif now_ns >= waiting.until_ns or self._is_stuck(message.caller_uid):
                del self._waiting[name]
                os.close(waiting.order)
                self._refuse_place(message)

    def close(self) -> None:
        """Kill all, and wait for none that hangs."""
        for waiting in self._waiting.values():
            os.close(waiting.order)
        self._waiting.clear()
        until_s = time.monotonic() + LAST_S
        for work in self._works.values():
            self._kill(work)
        while self._works and (left_s := until_s - time.monotonic()) > 0:
            ends = select.poll()
            for work in self._works.values():
                ends.register(work.pidfd, select.POLLIN)
            ended = {descriptor for descriptor, _ in ends.poll(left_s * 1000)}
            for work in [work for work in self._works.values() if work.pidfd in ended]:
                work.answered = True
                self._reap(work)
        for work in self._works.values():
            log(f"plan helper {work.pid} is left behind: it does not die")

    # -- places

    def _has_room(self, uid: int) -> bool:
        of_one = sum(work.message.caller_uid == uid for work in self._works.values())
        return len(self._works) < MOST and of_one < MOST_OF_ONE

    def _is_stuck(self, uid: int) -> bool:
        """Whether every place that this user could wait for is taken by one that hangs."""
        left = [work.message.caller_uid for work in self._works.values() if work.hangs]
        return len(left) >= MOST or left.count(uid) >= MOST_OF_ONE

    def _wait(self, message: protocol.PlanWork, order: int) -> None:
        uid = message.caller_uid
        of_one = sum(each.message.caller_uid == uid for each in self._waiting.values())
        if self._is_stuck(uid) or len(self._waiting) >= MOST_WAITING or of_one >= MOST_WAITING // 2:
            self._refuse_place(message)
            return
        try:
            kept = os.dup(order)
        except OSError as error:
            self._fail(message.run, "fault", f"the launcher: {error}")
            return
        self._waiting[message.run] = _Waiting(message, kept, time.monotonic_ns() + self._deadline_ns)

    def _refuse_place(self, message: protocol.PlanWork) -> None:
        left = sum(work.hangs for work in self._works.values())
        self._fail(
            message.run,
            "busy",
            f"expected one of {MOST} plan helpers to be free, {MOST_OF_ONE} of them for uid {message.caller_uid}, got"
            f" {len(self._works)} at work, {left} of them hung: see whether the file systems of plans answer",
        )

    # -- one piece of work

    def _try(self, message: protocol.PlanWork, order: int) -> None:
        try:
            self._begin(message, order)
        except PlanError as error:
            self._fail(message.run, error.code, str(error))
        except OSError as error:
            self._fail(message.run, "fault", f"the launcher cannot start a plan helper: {error}")

    def _begin(self, message: protocol.PlanWork, order: int) -> None:
        """Raises PlanError, OSError."""
        root = self._means.roots.above(message.plan_dir)
        process = identity.open_process(message.caller_pid) if message.caller_pid else -1
        try:
            who = self._who(message, process)
            piece = Piece(message.task, root, message.plan_dir, who, process, order)
            work = self._fork(message, piece)
        finally:
            if process >= 0:
                os.close(process)
        self._works[work.pid] = work
        try:
            self._loop.watch(work.sock, lambda: self._hear(work))
            self._loop.watch(work.pidfd, lambda: self._reap(work))
            channel.send(work.sock, helper.GO)
        except OSError:
            self._end_unstarted(work)
            raise

    def _who(self, message: protocol.PlanWork, process: int) -> Identity:
        if process >= 0:
            since_ns = min(message.since_ns, time.clock_gettime_ns(time.CLOCK_BOOTTIME))
            return identity.look(process, message.caller_pid, message.caller_uid, message.caller_gid, since_ns)
        if message.task not in ALONE:
            raise PlanError("caller", f"{message.task}: expected the caller's process, got none: connect again")
        return self._means.known.identity(message.caller_uid, message.plan_dir)

    def _fork(self, message: protocol.PlanWork, piece: Piece) -> _Work:
        """A helper that waits for its GO. Raises OSError."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        parent = os.getpid()
        try:
            pid = os.fork()
            if pid == 0:
                helper.become(theirs, parent, piece, self._means.perform)
        except OSError:
            ours.close()
            raise
        finally:
            theirs.close()
        try:
            pidfd = os.pidfd_open(pid)
        except OSError:
            ours.close()
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)  # it has done nothing yet that could hang
            raise
        due_ns = time.monotonic_ns() + self._deadline_ns
        noted = message.task != "stage" or piece.process < 0
        return _Work(message, pid, pidfd, ours, due_ns, piece.who, noted)

    def _end_unstarted(self, work: _Work) -> None:
        work.answered = True
        self._kill(work)
        os.waitpid(work.pid, 0)  # the same
        self._forget(work)

    def _hear(self, work: _Work) -> None:
        """That it goes on, its answer; or its end, of which the kernel tells by the pidfd too."""
        try:
            data, descriptors, cut = channel.receive(work.sock, helper.MESSAGE_BYTES, 1)
        except BlockingIOError:
            return
        except OSError:
            data, descriptors, cut = b"", [], False
        if data == helper.SEEN and not work.noted:
            channel.close(descriptors)
            self._go_on(work)
            return
        self._hang_up(work)
        try:
            if data:
                work.answered = True
                self._answer(work.message, data if not cut else b"", descriptors)
        finally:
            channel.close(descriptors)

    def _go_on(self, work: _Work) -> None:
        """It can see the plan as its caller does: from here on there can be something to settle without him."""
        try:
            self._means.known.note(work.who, work.message.plan_dir)
            work.noted = True
            channel.send(work.sock, helper.GO)
        except PlanError as error:
            work.answered = True
            self._kill(work)
            self._fail(work.message.run, error.code, str(error))
        except OSError:
            self._hang_up(work)  # it has ended, of which the pidfd tells

    def _answer(self, message: protocol.PlanWork, data: bytes, descriptors: Sequence[int]) -> None:
        match parse(data):
            case {"op": "done"} if len(descriptors) == 1:
                try:
                    channel.check_sealed(descriptors[0], "answer", MAX_ANSWER_BYTES)
                except InvalidRequestError as error:
                    self._fail(message.run, "fault", f"the plan helper: {error}")
                else:
                    self._tell(protocol.PlanDone(message.run), descriptors)
            case {"op": "failed", "code": str(code), "detail": str(detail)} if code in PLAN_CODES:
                self._fail(message.run, code, detail)
            case _:
                self._fail(message.run, "fault", "the plan helper: expected an answer, got nonsense")

    def _leave_behind(self, work: _Work) -> None:
        self._kill(work)
        if work.answered:
            return  # it only does not end
        work.answered = True
        message = work.message
        took = f"{self._means.deadline_s:g} s"
        log(f"plan helper {work.pid}: no answer in {took}, killed: {message.task} in {message.plan_dir!a:.300}")
        self._fail(
            message.run,
            "deadline",
            f"{message.plan_dir:.300}: expected an answer within {took}, got none: see whether its file system answers",
        )

    def _kill(self, work: _Work) -> None:
        work.killed = True
        work.gone_ns = min(work.gone_ns, time.monotonic_ns() + int(LAST_S * 10**9))
        self._moved = True
        self._hang_up(work)
        signal.pidfd_send_signal(work.pidfd, signal.SIGKILL)  # its zombie is ours: it is there as long as the pidfd

    def _reap(self, work: _Work) -> None:
        if work.sock.fileno() >= 0:
            self._hear(work)  # what it said before it ended
        pid, status = os.waitpid(work.pid, os.WNOHANG)
        if not pid:
            return
        self._forget(work)
        if not work.answered:
            ended = os.waitstatus_to_exitcode(status)
            how = f"was killed by signal {-ended}" if ended < 0 else "ended without an answer"
            self._fail(work.message.run, "fault", f"the plan helper {how}")

    def _forget(self, work: _Work) -> None:
        self._moved = True
        del self._works[work.pid]
        self._hang_up(work)
        with contextlib.suppress(KeyError):  # it was not watched yet
            self._loop.leave(work.pidfd)
        os.close(work.pidfd)

    def _hang_up(self, work: _Work) -> None:
        if work.sock.fileno() >= 0:
            with contextlib.suppress(KeyError):
                self._loop.leave(work.sock)
            work.sock.close()

    def _fail(self, run: str, code: str, detail: str) -> None:
        self._tell(protocol.PlanFailed(run, code, short(detail)), ())
