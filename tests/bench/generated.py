"""Calls of generated functions: one by one in a session, by column in a map, and what gRPC alone costs for the same.

The echo is a bare grpc.aio server in a process of its own: a session cannot be faster than that. They take turns.
"""

from __future__ import annotations

import math
import multiprocessing
import queue
import time
from array import array
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc

from plugind_client import Client, Columns

SOURCE = """
def scale(x: float, by: float = 2.0) -> float:
    return x * by
"""
CALL = {"function": "scale", "arguments": {"x": 1.5, "by": 3.0}}
MESSAGE = b"x" * 80
COLUMNS, ROWS = 6, 10_000
ROUNDS, CALLS = 5, 400


@dataclass(frozen=True)
class Measured:
    """The best round of each, per second: others share the machine, and only ratios within a round matter."""

    session_calls_per_s: float
    session_calls_ahead_per_s: float
    echo_calls_per_s: float
    map_evaluations_per_s: float
    in_process_evaluations_per_s: float


def measure(client: Client, folder: Path) -> Measured:
    """All four in turn."""
    module = client.load_source(SOURCE, name="bench_generated")
    namespace: dict[str, Callable[..., float]] = {}
    exec(SOURCE, {}, namespace)
    x = array("d", (math.sin(row) for row in range(ROWS)))
    best: dict[str, float] = {}

    def timed(name: str, count: int, work: Callable[[], object]) -> None:
        started = time.perf_counter()
        work()
        best[name] = max(best.get(name, 0.0), count / (time.perf_counter() - started))

    def by_map() -> None:
        found = client.map(module, [Columns("scale", {"x": x, "by": float(by)}) for by in range(COLUMNS)])
        assert found[COLUMNS - 1].values[1] == x[1] * (COLUMNS - 1)

    def in_process() -> None:
        scale = namespace["scale"]
        for by in range(COLUMNS):
            array("d", [scale(x=value, by=float(by)) for value in x])

    with client.session(module) as session, echo(folder / "echo.sock") as call:
        assert session.call(CALL) == 4.5
        call()
        for _ in range(ROUNDS):
            timed("session", CALLS, lambda: [session.call(CALL) for _ in range(CALLS)])
            timed("ahead", CALLS, lambda: session.call_many([CALL] * CALLS))
            timed("echo", CALLS, lambda: [call() for _ in range(CALLS)])
            timed("map", COLUMNS * ROWS, by_map)
            timed("in process", COLUMNS * ROWS, in_process)
    return Measured(best["session"], best["ahead"], best["echo"], best["map"], best["in process"])


@contextmanager
def echo(path: Path) -> Iterator[Callable[[], bytes]]:
    """One call and its answer over a bidirectional stream, to a server that gives back what it gets."""
    ready = multiprocessing.get_context("spawn")
    started = ready.Event()
    server = ready.Process(target=serve_echo, args=(str(path), started), daemon=True)
    server.start()
    try:
        if not started.wait(20):
            raise RuntimeError("the echo server did not start within 20 s")
        with grpc.insecure_channel(f"unix:{path}", options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
            requests: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
            answers = channel.stream_stream("/bench/Echo")(iter(requests.get, None))

            def call() -> bytes:
                requests.put(MESSAGE)
                return next(answers)

            yield call
            requests.put(None)
    finally:
        server.terminate()
        server.join()


def serve_echo(path: str, started) -> None:
    """Until it is terminated."""
    import asyncio  # in the child alone

    async def serve() -> None:
        async def each(requests, context):
            del context
            async for request in requests:
                yield request

        handler = grpc.stream_stream_rpc_method_handler(each)
        server = grpc.aio.server()
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("bench", {"Echo": handler}),))
        server.add_insecure_port(f"unix:{path}")
        await server.start()
        started.set()
        await server.wait_for_termination()

    asyncio.run(serve())
