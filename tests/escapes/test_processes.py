"""Processes: none outlives its run, none withstands its end, none of the daemon's takes its instances' place."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

import pytest

from tests.escapes.attack import OWN, attack
from tests.escapes.box import Box
from tests.support.daemon import Daemon
from tests.support.jail import assert_gone_within_50_ms, descendants


def until(condition, seconds: float = 15) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.005)


@attack(
    28,
    "double fork, setsid, every signal ignored, PDEATHSIG cleared, output closed: outlive the run",
    "pid namespace, kill of the group",
)
def test_nothing_outlives_the_run(box: Box) -> None:
    assert box.run("processes.outlive", seconds=30).value() == "returned"
    assert box.left() == []


@attack(
    29,
    "processes that are stopped, or wait uninterruptibly for a vfork child, when the end comes",
    "SIGKILL to init and to the group",
)
@pytest.mark.parametrize(("how", "arguments"), [("stop_all", {"children": 10}), ("vfork_parent", {})])
@pytest.mark.parametrize("end", ["timeout", "canceled"])
def test_stopped_processes_end_too(box: Box, how: str, arguments: dict[str, int], end: str) -> None:
    ended: list[str] = []

    def run() -> None:
        ran = box.run(
            f"processes.{how}", seconds=30, limits={"wall_ms": 1000 if end == "timeout" else 9000}, **arguments
        )
        ended.append(ran.outcome)

    thread = threading.Thread(target=run)
    thread.start()
    if end == "canceled":
        until(lambda: len(box.instances()) >= 2)
        for running in box.client.runs():
            box.client.cancel(running.run_id)
    thread.join(20)
    assert ended == [end]
    assert box.left() == []


@attack(
    30,
    "processes that come and go so fast that their pids are used again, while others are killed",
    "pidfd and the group's own kill",
)
def test_kills_hit_nobody_else(box: Box) -> None:
    host = os.getpid()
    churn = [lambda: box.run("processes.churn", rounds=1000, limits={"cpu_ms": 30_000, "wall_ms": 60_000})] * 2

    def kill_many() -> None:
        for _ in range(25):
            ran = box.run("processes.stop_all", seconds=30, children=2, limits={"wall_ms": 60})
            assert ran.outcome == "timeout", ran.why()

    *churned, _ = box.together(*churn, kill_many)  # type: ignore[list-item]
    assert [ran.value() for ran in churned] == [1000, 1000]
    assert os.getpid() == host
    assert box.daemon.process.poll() is None


@attack(
    53,
    "clear PDEATHSIG, take a name of the daemon's, and wait for zygote, init, launcher or front to be killed",
    "the template's init is pid 1 of a pid namespace",
)
@pytest.mark.parametrize("victim", ["plugind-zygote", "plugind-init", "plugind-launch", "front"])
def test_whoever_is_killed_no_instance_is_left(victim: str) -> None:
    with Daemon() as daemon:
        box = Box(daemon, 2)
        box.run("processes.capabilities")
        thread = threading.Thread(target=_run_and_lose, args=(box,))
        thread.start()
        until(lambda: list(descendants(daemon.pids[0]).values()).count("plugind-launch") >= 2)
        until(lambda: len(_renamed(daemon)) == 4)
        below = descendants(daemon.pids[0])
        own = _renamed(daemon)
        pids = [daemon.pids[0]] if victim == "front" else _victims(daemon, below, victim, own)
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        _assert_gone(own)
        assert_gone_within_50_ms(below)
        thread.join(20)
        assert victim not in ("front", "plugind-launch") or daemon.wait_gone(15)


def _run_and_lose(box: Box) -> None:
    try:
        box.client.execute(box._attacks({}), {"attack": "processes.clear_death_signal", "arguments": {"seconds": 30}})
    except Exception:  # noqa: BLE001 - with the front gone there is no answer
        pass


def _renamed(daemon: Daemon) -> list[int]:
    """Processes of the instance: they have the launcher's name, but not its pid."""
    return [
        pid for pid, name in descendants(daemon.pids[0]).items() if name == "plugind-launch" and pid != daemon.pids[1]
    ]


def _victims(daemon: Daemon, below: dict[int, str], name: str, own: list[int]) -> list[int]:
    if name == "plugind-launch":
        return [daemon.pids[1]]
    return [pid for pid, each in below.items() if each == name and pid not in own]


def _assert_gone(pids: list[int]) -> None:
    began = time.monotonic()
    while [pid for pid in pids if _alive(pid)]:
        time.sleep(0.001)
        assert time.monotonic() - began < 5, "a process outlives it"


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


@attack(
    OWN,
    "kill -9 and SIGSTOP to everything, its own init too, from inside",
    "pid 1 takes no signal from its own namespace",
)
def test_a_plugin_can_only_end_itself(box: Box) -> None:
    others = len(descendants(box.daemon.pids[0]))
    ran = box.run("syscalls.signal_everybody")
    assert ran.outcome == "ok"
    assert len(descendants(box.daemon.pids[0])) >= others - 1
