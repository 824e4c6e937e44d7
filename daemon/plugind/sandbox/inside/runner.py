"""Serves the instance's one execution: input from the memfd, frames on the result pipe, then the end of the process.

Frame: 16 bytes nonce, 1 byte kind (V value, E exception, I not JSON), 8 bytes length (big endian), JSON text (of a map:
a batch, see batches.py). A run and a map give exactly one. A session gives one for each request: 8 bytes length (big
endian) and JSON text, until the pipe of requests ends.
The front believes a frame only if the nonce is the run's, it was asked for, and (of the last one) the process ended
with 0.
"""

from __future__ import annotations

import functools
import io
import json
import os
import struct
import sys
from collections.abc import Callable
from typing import NoReturn

from plugind.sandbox.inside import batches, learning
from plugind.sandbox.inside.functions import Plugin, describe, encode
from plugind.sandbox.inside.program import Program

NONCE_BYTES = 16
HEADER = struct.Struct(f">{NONCE_BYTES}scQ")
REQUEST = struct.Struct(">Q")
_CHUNK_BYTES = 64 * 1024


def read_input(descriptor: int) -> tuple[bytes, dict[str, str], bytes]:
    """Nonce, call and content from the input memfd, which is closed."""
    # By position: whoever was handed the same memfd shares the place in it, too.
    head = os.pread(descriptor, NONCE_BYTES + 4, 0)
    begin = len(head) + int.from_bytes(head[NONCE_BYTES:], "big")
    call = json.loads(os.pread(descriptor, begin - len(head), len(head)))
    # No more than there is: for a generous buffer the kernel maps and unmaps as much memory.
    content = os.pread(descriptor, os.fstat(descriptor).st_size - begin, begin)
    while chunk := os.pread(descriptor, _CHUNK_BYTES, begin + len(content)):
        content += chunk  # the first read took all, unless somebody wrote meanwhile or the kernel gave less
    os.close(descriptor)
    return head[:NONCE_BYTES], call, content


def run(input_descriptor: int, result_descriptor: int, requests: int = -1) -> NoReturn:
    """Never returns: ends the process, with 0 after a frame, or when there are no more requests."""
    nonce, call, content = read_input(input_descriptor)
    fresh_streams()
    if requests >= 0:
        _serve(nonce, call, requests, result_descriptor)
        flush()
    else:
        answer_once(lambda: _plugin(call), call, content, nonce, result_descriptor)
    os._exit(0)


def _plugin(call: dict[str, str]) -> Plugin:
    learning.begin(call)  # before its module's code runs; of a program only the runner itself could be heard
    return Program(call) if call.get("runtime") == "exec" else Plugin(call)


def answer_once(
    imported: Callable[[], Plugin], call: dict[str, str], content: bytes, nonce: bytes, result: int
) -> None:
    """The frame of a run or a map, whatever the plugin does."""
    kind, body = _outcome(lambda: _answer(imported(), call, content))
    flush()
    _give(result, nonce, kind, body)


def _answer(plugin: Plugin, call: dict[str, str], content: bytes) -> Callable[[], bytes]:
    if call["mode"] == "map":
        results = batches.answer(plugin, content)
        return lambda: results
    value = plugin.answer(plugin.load(content))
    return lambda: plugin.encode(value)


def _serve(nonce: bytes, call: dict[str, str], requests: int, result: int) -> None:
    """Answer requests until there are no more. A plugin that cannot be imported answers each with why."""
    waiting = bytearray()
    request = _next(requests, waiting)
    if not request:
        return
    try:
        plugin = _plugin(call)  # only now: from here on its first input's time is measured
    except BaseException as error:
        failure = b"E", encode(describe(error))
        answer: Callable[[bytes], tuple[bytes, bytes]] = lambda _: failure  # noqa: E731
    else:
        answer = functools.partial(_answer_one, plugin)
    while request:
        _give(result, nonce, *answer(request))
        request = _next(requests, waiting)


def _answer_one(plugin: Plugin, text: bytes) -> tuple[bytes, bytes]:
    def answer() -> Callable[[], bytes]:
        value = plugin.answer(plugin.load(text))
        return lambda: plugin.encode(value)

    return _outcome(answer)


def _next(requests: int, waiting: bytearray) -> bytes:
    """The next request; empty when there is none. `waiting`: what was read beyond it."""
    while len(waiting) < REQUEST.size or len(waiting) < REQUEST.size + REQUEST.unpack_from(waiting)[0]:
        chunk = os.read(requests, _CHUNK_BYTES)
        if not chunk:
            return b""
        waiting += chunk
    end = REQUEST.size + REQUEST.unpack_from(waiting)[0]
    request = bytes(waiting[REQUEST.size : end])
    del waiting[:end]
    return request


def _outcome(answer: Callable[[], Callable[[], bytes]]) -> tuple[bytes, bytes]:
    """Kind and body of the frame: `answer` calls the plugin, what it gives makes JSON of the value."""
    try:
        text = answer()
    except BaseException as error:  # SystemExit and KeyboardInterrupt are the plugin's failures too
        return b"E", encode(describe(error))
    try:
        return b"V", text()
    except BaseException as error:  # of a value that makes its own JSON, so to speak, anything can come
        shown = describe(error)
        return b"I", encode(f"{shown['type']}: {shown['message']}")


def _give(result: int, nonce: bytes, kind: bytes, body: bytes) -> None:
    frame = memoryview(HEADER.pack(nonce, kind, len(body)) + body)
    while frame:
        frame = frame[os.write(result, frame) :]


_prepared: list[io.TextIOWrapper] = []


def prepare_streams() -> None:
    """Make them ahead, in the zygote, which never uses them: 0 is /dev/null here, 1 and 2 pipes, as they will be."""
    _prepared[:] = _streams()


def fresh_streams() -> None:
    """Put streams in place that nobody has used."""
    # The zygote's stream objects belong to descriptors it had; buffered state must not be shared by siblings.
    sys.stdin, sys.stdout, sys.stderr = _prepared or _streams()
    sys.__stdout__, sys.__stderr__ = sys.stdout, sys.stderr  # type: ignore[misc]


def _streams() -> list[io.TextIOWrapper]:
    streams = [open(0, encoding="utf-8", closefd=False)]  # noqa: SIM115
    for descriptor in (1, 2):
        raw = io.FileIO(descriptor, "w", closefd=False)
        streams.append(
            io.TextIOWrapper(io.BufferedWriter(raw), "utf-8", errors="backslashreplace", line_buffering=True)
        )
    return streams


def flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except Exception:  # noqa: S110 - the plugin may have closed or replaced it; its output is its own
            pass
