"""The launcher's loop: sockets and who handles them, until it is told to stop."""

from __future__ import annotations

import contextlib
import selectors
import socket
from collections.abc import Callable


class Loop:
    """Single-threaded. A handler takes one message of its socket and returns."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._wake, self._waker = socket.socketpair()
        self._wake.setblocking(False)
        self._waker.setblocking(False)
        self.watch(self._wake, lambda: self._wake.recv(64))
        self.stopping = False

    def watch(self, sock: socket.socket | int, handler: Callable[[], object]) -> None:
        """Call the handler whenever there is something to read."""
        self._selector.register(sock, selectors.EVENT_READ, handler)

    def leave(self, sock: socket.socket | int) -> None:
        """No more. Raises KeyError for one that is not watched."""
        self._selector.unregister(sock)

    def run(self, patience_s: Callable[[], float | None], after: Callable[[], None]) -> None:
        """Until `stop`. `patience_s` says how long to wait for the next message; `after` comes after each wait."""
        while not self.stopping:
            for key, _ in self._selector.select(patience_s()):
                if self._selector.get_map().get(key.fd) is key:  # an earlier handler may have closed it
                    key.data()
            after()

    def stop(self) -> None:
        """Have `run` return soon. For signal handlers, which must not raise into the middle of something."""
        self.stopping = True
        with contextlib.suppress(OSError):  # full: it is awake already
            self._waker.send(b"!")

    def close(self) -> None:
        """Close what is the loop's own."""
        for sock in (self._wake, self._waker):
            sock.close()
        self._selector.close()
