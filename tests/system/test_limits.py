"""Limits on the real kernel: the outcome names the one that was hit, and the daemon answers whatever happens."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from plugind.model import Outcome
from plugind_client import Client
from plugind_client.records import RunResult
from tests.support.daemon import Daemon
from tests.support.jail import jail
from tests.support.plugins import folder

FORK_BOMB = """
import os
def run(payload, context):
    while True:
        try:
            os.fork()
        except OSError:
            pass
"""
MEMORY_BOMB = """
import os
def run(payload, context):
    for _ in range(3):
        os.fork()
    held = []
    while True:
        held.append(bytearray(1 << 20))
"""
PEAK = """
def run(payload, context):
    held = bytearray(payload)
    held[::4096] = b"x" * len(held[::4096])
    return len(held)
"""
MB = 1 << 20


def test_a_fork_bomb_and_a_memory_bomb_at_once_leave_the_daemon_answering(tmp_path: Path) -> None:
    with Daemon() as daemon:
        daemon.install(folder(tmp_path, "fork_bomb", code=FORK_BOMB))
        daemon.install(folder(tmp_path, "memory_bomb", code=MEMORY_BOMB))
        daemon.install(folder(tmp_path, "echo"))
        over = threading.Event()
        with ThreadPoolExecutor(5) as pool:
            bombs = [
                pool.submit(_execute, daemon.client(), name) for name in ("fork_bomb", "memory_bomb") for _ in range(2)
            ]
            honest = pool.submit(_go_on, daemon.client(), over)
            try:
                outcomes = [(bomb.result(100).outcome, bomb.result(100).outcome_detail) for bomb in bombs]
            finally:
                over.set()
            answered = honest.result(100)
        assert [outcome for outcome, _ in outcomes] == ["pids_exceeded"] * 2 + ["out_of_memory"] * 2, outcomes
        assert [detail for _, detail in outcomes[::2]] == [
            "processes and threads: more than 32",
            "memory: more than 268435456 bytes",
        ]
        assert answered > 0
        assert daemon.client().execute("echo", 7).output == 7


def _execute(client: Client, name: str) -> RunResult:
    return client.execute(name, 1)


def _go_on(client: Client, over: threading.Event) -> int:
    """Run an honest plugin again and again: how often it was answered, each time rightly."""
    answered = 0
    while not over.is_set() or not answered:
        assert client.execute("echo", answered).output == answered
        answered += 1
    return answered


@pytest.mark.parametrize("megabytes", [1, 64])
async def test_the_memory_peak_is_what_was_used(megabytes: int) -> None:
    async with jail() as box:
        result = await box.run(PEAK, megabytes * MB)
    assert result.outcome is Outcome.OK
    assert megabytes * MB < result.usage.memory_peak_bytes < (megabytes + 12) * MB


async def test_all_processes_die_when_one_is_out_of_memory() -> None:
    code = """
import os, time
def run(payload, context):
    for _ in range(8):
        if os.fork() == 0:
            time.sleep(60)
    child = os.fork()
    if child == 0:
        bytearray(1 << 29)
    time.sleep(60)
"""
    async with jail() as box:
        result = await box.run(code, memory_bytes=32 * MB)
    assert (result.outcome, result.detail) == (Outcome.OUT_OF_MEMORY, f"memory: more than {32 * MB} bytes")
    assert result.usage.wall_ms < 5000  # the wall limit; none of them slept on
