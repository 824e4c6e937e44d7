"""The front's side of a session: requests into one pipe, exactly one frame for each out of another (asyncio).

Nothing that comes out is trusted: the plugin shares its process with whoever writes the frames.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable

from plugind.sandbox.inside.runner import HEADER, REQUEST
from plugind.sandbox.outcome import KINDS

_CHUNK_BYTES = 256 * 1024


class Frames:
    """One request at a time. What is not the one frame that answers it ends the session; `problem` says why."""

    def __init__(self, nonce: bytes, limit_bytes: int, end: Callable[[], None]) -> None:
        """`limit_bytes`: of one answer. `end` ends the instance: called once, for what the plugin should not do."""
        self.problem = ""
        self.unanswered = False
        """Whether its results ended in the middle of a request, or before it."""
        self.over = False
        """Whether the session was over before its instance was: set by whoever talks."""
        self.lingered = False
        """Whether it had to be ended after that."""
        self.overflown = False
        self._nonce = nonce
        self._limit_bytes = limit_bytes
        self._end = end
        self._loop = asyncio.get_running_loop()
        self._requests = self._results = -1
        self._unsent = memoryview(b"")
        self._received = bytearray()
        self._answer: asyncio.Future[tuple[bytes, bytes]] | None = None

    def open(self) -> tuple[int, int]:
        """Begin; gives the instance's ends: of requests, and of results."""
        theirs, self._requests = os.pipe2(os.O_CLOEXEC)
        self._results, results = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(self._requests, False)
        os.set_blocking(self._results, False)
        self._loop.add_reader(self._results, self._on_readable)
        return theirs, results

    def ask(self, text: bytes) -> asyncio.Future[tuple[bytes, bytes]]:
        """Kind and body of the frame that answers. It has no clock: whoever waits for it has.

        When the instance is gone nothing comes of it, and the session is canceled (LauncherClient.run).
        """
        self._answer = self._loop.create_future()
        self.unanswered = self._results < 0  # it has closed them, and lives on: nothing can come
        self._unsent = memoryview(REQUEST.pack(len(text)) + text)
        self._send()
        return self._answer

    def _send(self) -> None:
        # Not in one piece where it is longer than a pipe holds: who does not read it may not stop the loop.
        try:
            while self._unsent and self._requests >= 0:
                self._unsent = self._unsent[os.write(self._requests, self._unsent) :]
        except BlockingIOError:
            self._loop.add_writer(self._requests, self._send_more)
        except OSError:  # it is gone, or has closed the pipe: how it ended says more
            self._unsent = memoryview(b"")

    def _send_more(self) -> None:
        self._loop.remove_writer(self._requests)
        self._send()

    def _on_readable(self) -> None:
        try:
            chunk = os.read(self._results, _CHUNK_BYTES)
        except BlockingIOError:
            return
        if not chunk:
            self._at_end()
            return
        if self.problem or self.overflown:
            return  # it was ended for what came before
        self._received += chunk
        self._take()

    def _take(self) -> None:
        received = self._received
        if self._answer is not None and self._answer.cancelled():
            received.clear()  # whoever asked is gone, and is about to end it
            return
        if len(received) < HEADER.size:
            return
        nonce, kind, length = HEADER.unpack_from(received)
        if self._answer is None or self._answer.done():
            self._refuse("gave an answer that nobody had asked for")
        elif nonce != self._nonce:
            self._refuse("an answer does not carry this session's nonce")
        elif kind not in KINDS:
            self._refuse("an answer is of an unknown kind")
        elif length > self._limit_bytes:
            self.overflown = True
            self._end()
        elif len(received) > HEADER.size + length:
            self._refuse("gave more than one answer to an input")
        elif len(received) == HEADER.size + length:
            body = bytes(received[HEADER.size :])
            received.clear()
            self._answer.set_result((kind, body))

    def _refuse(self, problem: str) -> None:
        self.problem = problem
        self._received.clear()
        self._end()

    def _at_end(self) -> None:
        """The instance has closed its end; it is gone, or will be when its requests end."""
        self.unanswered = self._answer is not None and not self._answer.done()
        self._close_results()

    def hang_up(self) -> None:
        """No more requests: the instance ends by itself."""
        if self._requests >= 0:
            self._loop.remove_writer(self._requests)
            os.close(self._requests)
            self._requests = -1

    def _close_results(self) -> None:
        if self._results >= 0:
            self._loop.remove_reader(self._results)
            os.close(self._results)
            self._results = -1

    def close(self) -> None:
        """Free the descriptors."""
        self.hang_up()
        self._close_results()
