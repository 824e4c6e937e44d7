"""Whether the daemon still says that it is well, and how fast, while it has a crowd at the door and a queue."""

from __future__ import annotations

import asyncio
import contextlib
import json
import select
import socket
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from plugind_proto.v1 import runtime_pb2, runtime_pb2_grpc
from tests.bench.figures import percentile
from tests.bench.plugins import ECHO, write_plugin
from tests.bench.resources import allow_descriptors
from tests.bench.stopping import wide_config
from tests.bench.worker import Worker, say, serve
from tests.support.daemon import Daemon

CONNECTIONS = 1000
QUEUED = 520
"""Some of them are on their way back into the queue: 500 wait at any time."""
INSTANCES = 16
CHECKS = 300
GAP_S = 0.01
CHANNELS = 4
"""A connection has at most 256 calls at a time."""
DESCRIPTORS = 8192
HELLO = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(3) + b"\x04" + bytes(5) + bytes(3) + b"\x04\x01" + bytes(4)
"""The preface, empty settings, and the word that the other's settings are taken. Source: RFC 9113, 3.4 and 6.5."""


def measure() -> dict[str, Any]:
    """Check of an idle daemon, then with idle connections, then with queued runs too."""
    allow_descriptors(DESCRIPTORS)
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="plugind-bench-")))
        config = wide_config(folder, instances=INSTANCES, connections=CONNECTIONS + 100)
        daemon = stack.enter_context(Daemon("--config", str(config)))
        daemon.install(write_plugin(folder, ECHO, limits="[limits]\nwall_ms = 60000\n"))
        channel = stack.enter_context(grpc.insecure_channel(f"unix:{daemon.socket}"))
        check = health_pb2_grpc.HealthStub(channel).Check
        found: dict[str, Any] = {"idle": checked(check)}
        crowd = stack.enter_context(Worker("health", "crowd", str(daemon.socket)))
        found["connections"] = checked(check) | {"connections": crowd.ask("alive")["alive"]}
        queue = stack.enter_context(Worker("health", "queue", str(daemon.socket)))
        time.sleep(1.5)  # until everybody has come
        waiting = [len(daemon.client().runs())]
        found["queued"] = checked(check)
        waiting.append(len(daemon.client().runs()))
        found["queued"] |= {"waiting": min(waiting) - INSTANCES, "connections": crowd.ask("alive")["alive"]}
        found["queued"] |= queue.ask("count")
    return found


def checked(check: Any) -> dict[str, float]:
    """p50 and the longest, milliseconds. Raises RuntimeError when it does not say that it serves."""
    times = []
    for _ in range(CHECKS):
        started = time.perf_counter()
        status = check(health_pb2.HealthCheckRequest(), timeout=20).status
        times.append((time.perf_counter() - started) * 1000)
        if status != health_pb2.HealthCheckResponse.SERVING:
            raise RuntimeError(f"expected SERVING, got {status}")
        time.sleep(GAP_S)
    return {"p50_ms": percentile(times, 50), "p99_ms": percentile(times, 99), "max_ms": max(times)}


def crowd(path: str) -> None:
    """A worker: connections that have said hello and are silent from then on."""
    allow_descriptors(DESCRIPTORS)
    open_ones = []
    for _ in range(CONNECTIONS):
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(path)
        sock.sendall(HELLO)
        open_ones.append(sock)
    time.sleep(0.5)

    def alive() -> dict[str, Any]:
        """How many the daemon has not hung up on."""
        for sock in open_ones:
            sock.setblocking(False)
        poll = select.poll()
        for sock in open_ones:
            with contextlib.suppress(BlockingIOError, ConnectionError):
                while sock.recv(65536):
                    pass
            poll.register(sock, select.POLLRDHUP)
        return {"alive": CONNECTIONS - len(poll.poll(0))}

    serve({"alive": alive})


async def queue(path: str) -> None:
    """A worker: instances that sleep in every place, and callers that wait for one, and again when they had no luck.

    They come one after the other over the second that a run may wait, as callers do who do not know of each other.
    """
    answers: dict[str, int] = {}

    async def call(number: int) -> None:
        stub = runtime_pb2_grpc.RuntimeStub(channels[number % CHANNELS])
        holder = number < INSTANCES
        text = json.dumps({"values": [], "text": "", "hold": 50 if holder else 0}).encode()
        await asyncio.sleep(0 if holder else 0.3 + number / (QUEUED + INSTANCES))
        while True:
            answer = await stub.Run(runtime_pb2.RunRequest(plugin=ECHO, input_json=text))
            kind = answer.outcome or ",".join(reason.code for reason in answer.reasons)
            answers[kind] = answers.get(kind, 0) + 1

    channels = [
        grpc.aio.insecure_channel(f"unix:{path}", options=[("grpc.use_local_subchannel_pool", 1)])
        for _ in range(CHANNELS)
    ]
    tasks = [asyncio.create_task(call(number)) for number in range(INSTANCES + QUEUED)]
    say(ready=True)
    while line := await asyncio.to_thread(sys.stdin.readline):
        if json.loads(line)["do"] == "count":
            say(answers=answers)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    for channel in channels:
        await channel.close()


if __name__ == "__main__":
    if sys.argv[1] == "crowd":
        crowd(sys.argv[2])
    else:
        asyncio.run(queue(sys.argv[2]))
