"""GET /metrics over HTTP/1.1, on a socket that was made ready: what Prometheus reads. Nothing else is answered.

Whoever may connect is decided by the socket: its mode, or for loopback everybody on this machine. So nothing is taken
from a caller but a head of 8 KiB, each connection has one answer and five seconds, and what it costs is bounded.
"""

from __future__ import annotations

import asyncio
import re
import socket
import time
import traceback
from collections.abc import Callable
from http import HTTPStatus
from typing import Final

from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from plugind.config import log

HEAD_BYTES: Final = 8192
"""Of a request: its line and its fields."""
DEADLINE_S: Final = 5.0
"""From the connection to its end, whatever the other side does."""
MOST_CONNECTIONS: Final = 8
KEPT_S: Final = 0.2
"""So long a text is given again: however often it is asked for, making it takes little of the event loop."""
_END: Final = b"\r\n\r\n"
_TOKEN: Final = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_REQUEST: Final = re.compile(rb"(%s) ([\x21-\x7e]+) HTTP/1\.([01])" % _TOKEN)
_FIELD: Final = re.compile(rb"(%s):[\t\x20-\x7e\x80-\xff]*" % _TOKEN)


class Exposition:
    """Serves what `text` gives. It is called on the event loop and must not block."""

    def __init__(
        self,
        listener: socket.socket,
        text: Callable[[], bytes],
        *,
        deadline_s: float = DEADLINE_S,
        kept_s: float = KEPT_S,
    ) -> None:
        self._listener = listener
        self._text = text
        self._deadline_s = deadline_s
        self._kept_s = kept_s
        self._made = (float("-inf"), b"")
        """When, time.monotonic() seconds, and what."""
        self._connections: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None

    async def open(self) -> None:
        """Begin to answer."""
        self._listener.setblocking(False)
        self._server = await asyncio.start_server(self._serve, sock=self._listener, limit=HEAD_BYTES)

    async def close(self) -> None:
        """Answer nobody any more."""
        if self._server is not None:
            self._server.close()
        for writer in list(self._connections):
            writer.transport.abort()
        await asyncio.sleep(0)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._connections.add(writer)
        try:
            async with asyncio.timeout(self._deadline_s):
                writer.write(await self._answer(reader))
                writer.close()
                await writer.wait_closed()
        except (TimeoutError, OSError, EOFError):  # it is slow, or gone
            pass
        finally:
            writer.transport.abort()
            self._connections.discard(writer)

    async def _answer(self, reader: asyncio.StreamReader) -> bytes:
        if len(self._connections) > MOST_CONNECTIONS:
            return answer(HTTPStatus.SERVICE_UNAVAILABLE)
        try:
            status = judged(await reader.readuntil(_END))
        except asyncio.LimitOverrunError:
            status = HTTPStatus.BAD_REQUEST
        if status is not HTTPStatus.OK:
            return answer(status)
        try:
            return answer(status, self._kept())
        except Exception:  # noqa: BLE001 - a fault of ours: told in the log, and never with its inside to a caller
            log(f"fault while metrics were read:\n{traceback.format_exc()}")
            return answer(HTTPStatus.INTERNAL_SERVER_ERROR)

    def _kept(self) -> bytes:
        made_s, text = self._made
        now_s = time.monotonic()
        if now_s - made_s >= self._kept_s:
            text = self._text()
            self._made = (now_s, text)
        return text


def judged(head: bytes) -> HTTPStatus:
    """What a request gets, by its head with the empty line at its end. Source: RFC 9112, sections 2.2, 3 and 5."""
    first, *fields = head.removesuffix(_END).split(b"\r\n")
    request = _REQUEST.fullmatch(first)
    names = [field[1].lower() if (field := _FIELD.fullmatch(each)) else b"" for each in fields]
    if request is None or b"" in names:
        return HTTPStatus.BAD_REQUEST
    method, target, minor = request.groups()
    if minor == b"1" and names.count(b"host") != 1:
        return HTTPStatus.BAD_REQUEST
    if target.partition(b"?")[0] != b"/metrics":
        return HTTPStatus.NOT_FOUND
    return HTTPStatus.OK if method == b"GET" else HTTPStatus.METHOD_NOT_ALLOWED


def answer(status: HTTPStatus, text: bytes = b"") -> bytes:
    """A whole answer; the connection ends with it."""
    lines = [
        f"HTTP/1.1 {status.value} {status.phrase}",
        f"Content-Type: {CONTENT_TYPE_PLAIN_0_0_4}",
        f"Content-Length: {len(text)}",
        "Connection: close",
    ]
    if status is HTTPStatus.METHOD_NOT_ALLOWED:
        lines.append("Allow: GET")
    return "\r\n".join(lines).encode("ascii") + _END + text
