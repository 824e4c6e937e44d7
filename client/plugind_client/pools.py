"""The sessions of one module: each call of a function takes one that is idle, or opens one, and gives it back.

Source: SPEC.md, "Client".
"""

from __future__ import annotations

import contextlib
import os
import threading
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from plugind_client.errors import PlugindError, SessionOver
from plugind_client.session import Session

if TYPE_CHECKING:
    from plugind_client.aiosession import AsyncSession

Kind = TypeVar("Kind", "Session", "AsyncSession")

IDLE_MS: Final = 500
"""After so long without a call the daemon ends a session, and its place is free again.

Half as long as a run waits for a place: who holds one and does nothing is nobody's reason to be told BUSY.
"""
TRIES: Final = 3
"""Sessions that one call may meet just when the daemon ends them."""
CLOSING_S: Final = 2.0
"""Longest time that closing waits for the daemon."""


class Idle(Generic[Kind]):
    """Idle sessions of this process, the one used last on top. A forked child starts without any.

    Its parent's stay referenced and untouched. One operation of a list is enough for each method, so that threads and
    signals may come at any time.
    """

    def __init__(self) -> None:
        self._by_pid: dict[int, list[Kind]] = {}

    def take(self) -> Kind | None:
        """The one that was used last and has not failed since."""
        idle = self._by_pid.get(os.getpid(), [])
        with contextlib.suppress(IndexError):
            while True:
                session = idle.pop()
                if session.usable:
                    return session
        return None

    def give_back(self, session: Kind) -> None:
        """After a call. What has ended is not kept."""
        if session.usable:
            self._by_pid.setdefault(os.getpid(), []).append(session)

    def leave(self) -> list[Kind]:
        """All of this process, which are idle no more."""
        return self._by_pid.pop(os.getpid(), [])


def _others_too(error: SessionOver) -> bool:
    """Whether what ended one session has ended those that are idle for longer, too."""
    return error.why != "full"


class Pool:
    """Sessions of one module of a Client."""

    def __init__(self, open_session: Callable[[], Session]) -> None:
        """`open_session` gives one that opens itself at its first call."""
        self._open_session = open_session
        self._idle: Idle[Session] = Idle()
        _POOLS.add(self)

    def call(self, payload: object) -> Any:
        """What the plugin gives. Sent again where the daemon ended the session before the input reached it.

        Raises:
            The errors of Session.call.
        """
        session = self._idle.take() or self._open_session()
        left = TRIES
        while True:
            left -= 1
            try:
                return session.call(payload)
            except SessionOver as error:
                if not error.retryable or not left:
                    raise
                if _others_too(error):
                    self.close()
            finally:
                self._idle.give_back(session)
            session = self._open_session()

    def close(self) -> None:
        """Ends those that are idle well, or kills them where the daemon does not answer."""
        sessions = self._idle.leave()
        if not sessions:
            return

        def give_up() -> None:
            for session in sessions:
                session.cancel()

        late = threading.Timer(CLOSING_S, give_up)
        late.daemon = True
        late.start()
        for session in sessions:
            with contextlib.suppress(PlugindError):  # it has ended in another way, and nobody needs it any more
                session.close()
        late.cancel()
        late.join()  # at once: no thread is to be there at a fork


_POOLS: Final[weakref.WeakSet[Pool]] = weakref.WeakSet()


def _close_all() -> None:
    """Before a fork: gRPC prepares itself for it only while none of its threads waits for anything."""
    for pool in list(_POOLS):
        pool.close()


os.register_at_fork(before=_close_all)


class AsyncPool:
    """Sessions of one module of an AsyncClient."""

    def __init__(self, open_session: Callable[[], AsyncSession]) -> None:
        """As of Pool."""
        self._open_session = open_session
        self._idle: Idle[AsyncSession] = Idle()

    async def call(self, payload: object) -> Any:
        """As Pool.call."""
        session = self._idle.take() or self._open_session()
        left = TRIES
        while True:
            left -= 1
            try:
                return await session.call(payload)
            except SessionOver as error:
                if not error.retryable or not left:
                    raise
                if _others_too(error):
                    await self.close()
            finally:
                self._idle.give_back(session)
            session = self._open_session()

    async def close(self) -> None:
        """As Pool.close."""
        import asyncio  # noqa: PLC0415 - only where it is running already

        for session in self._idle.leave():
            with contextlib.suppress(PlugindError, TimeoutError):
                async with asyncio.timeout(CLOSING_S):
                    await session.close()
