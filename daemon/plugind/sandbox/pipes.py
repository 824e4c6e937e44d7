"""What the front reads from an instance: bounded pipes (asyncio). What it gives to it are those, and sealed memfds."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable

from plugind.sandbox.sealed import seal, sealed_memfd

__all__ = ["Capture", "seal", "sealed_memfd"]

_CHUNK_BYTES = 256 * 1024


class Capture:
    """Reads one pipe to its end, keeps at most `limit_bytes`, and calls `overflow` once when there is more."""

    def __init__(self, limit_bytes: int, overflow: Callable[[], None]) -> None:
        self.data = bytearray()
        self.overflown = False
        self.end: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._limit_bytes = limit_bytes
        self._overflow = overflow
        self._descriptor = -1

    def open(self) -> int:
        """Start reading; returns the write end."""
        self._descriptor, write_end = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(self._descriptor, False)
        asyncio.get_running_loop().add_reader(self._descriptor, self._on_readable)
        return write_end

    def _on_readable(self) -> None:
        self._read()

    def _read(self) -> bool:
        """Whether there was something."""
        try:
            chunk = os.read(self._descriptor, _CHUNK_BYTES)
        except BlockingIOError:
            return False
        if not chunk:
            self.close()
            return False
        room = self._limit_bytes - len(self.data)
        self.data += chunk[:room]
        if len(chunk) > room and not self.overflown:
            self.overflown = True
            self._overflow()
        return True

    def drain(self) -> None:
        """Read all that is there now."""
        while self._descriptor >= 0 and self._read():
            pass

    def close(self) -> None:
        """Stop reading."""
        if self._descriptor >= 0:
            asyncio.get_running_loop().remove_reader(self._descriptor)
            os.close(self._descriptor)
            self._descriptor = -1
        if not self.end.done():
            self.end.set_result(None)
