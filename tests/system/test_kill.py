"""The kill switch on real instances: they are gone when the call returns, also while the launcher stands still."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

import pytest

from plugind.sandbox import latch
from plugind_client import PlugindError
from plugind_proto.v1 import governance_pb2
from tests.support.daemon import Daemon
from tests.support.jail import descendants, living_instances
from tests.support.pace import stretched
from tests.support.plugins import folder

pytestmark = [pytest.mark.root, pytest.mark.alone]

SLEEPER = "import os, time\ndef run(p, c):\n    if p:\n        os.fork(); time.sleep(4)\n"
"""Below the usual wall limit, and long for a test."""


def instances(daemon: Daemon) -> list[int]:
    """Processes of plugins that are not dead."""
    return living_instances(descendants(daemon.pids[0]))


class Sleepers:
    """So many runs that sleep, each with two processes."""

    def __init__(self, daemon: Daemon, count: int, name: str = "sleeper", plan_id: str = "") -> None:
        self.outcomes: list[str] = []
        before = len(instances(daemon))
        self._threads = [
            threading.Thread(target=self._run, args=(daemon, name, plan_id), daemon=True) for _ in range(count)
        ]
        for thread in self._threads:
            thread.start()
        until(lambda: len(instances(daemon)) >= before + 2 * count)

    def _run(self, daemon: Daemon, name: str, plan_id: str) -> None:
        try:
            result = daemon.client().execute(name, 1, plan_id=plan_id)
            self.outcomes.append(result.outcome or result.reasons[0].code)
        except PlugindError as error:
            self.outcomes.append(error.code)

    def join(self) -> list[str]:
        for thread in self._threads:
            thread.join(stretched(20))
            assert not thread.is_alive()
        return self.outcomes


def until(condition, seconds: float = 20) -> None:
    deadline = time.monotonic() + stretched(seconds)
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.005)


def kill(daemon: Daemon, target: str, reason: str = "test") -> governance_pb2.KillResponse:
    return daemon.governance().Kill(governance_pb2.HoldRequest(target=target, reason=reason), timeout=stretched(20))


@pytest.mark.parametrize("target", ["sleeper", "all"])
def test_a_kill_returns_when_the_last_process_is_gone(tmp_path: Path, target: str) -> None:
    with Daemon() as daemon:
        daemon.install(folder(tmp_path, "sleeper", code=SLEEPER))
        sleepers = Sleepers(daemon, 10)
        killed = kill(daemon, target)
        assert instances(daemon) == []
        assert (killed.ended_runs, killed.unconfirmed_runs) == (10, 0)
        assert set(sleepers.join()) == {"killed"}
        assert [each.code for each in daemon.client().execute("sleeper", 0).reasons] == ["KILLED"]


def test_a_kill_survives_a_restart_and_is_lifted_by_name(tmp_path: Path) -> None:
    with Daemon() as daemon:
        daemon.install(folder(tmp_path, "sleeper", code=SLEEPER))
        kill(daemon, "sleeper", "it misbehaves")
        daemon.restart()
        (reason,) = daemon.client().execute("sleeper", 0).reasons
        assert reason.code == "KILLED"
        assert "it misbehaves" in reason.actual
        daemon.governance().LiftKill(governance_pb2.HoldRequest(target="sleeper", reason="mended"))
        assert daemon.client().execute("sleeper", 0).outcome == "ok"


def test_a_kill_works_while_the_launcher_stands_still(tmp_path: Path) -> None:
    with Daemon() as daemon:
        if "unified" not in daemon.ready and "hybrid" not in daemon.ready:
            pytest.skip("NOT TESTED: this machine mounts no unified hierarchy, so the kernel has no cgroup.kill here")
        daemon.install(folder(tmp_path, "sleeper", code=SLEEPER))
        daemon.install(folder(tmp_path, "other", code=SLEEPER))
        sleepers, others = Sleepers(daemon, 3), Sleepers(daemon, 2, "other")
        assert len(instances(daemon)) == 10
        os.kill(daemon.pids[1], signal.SIGSTOP)
        try:
            killed = kill(daemon, "sleeper")
            assert (killed.ended_runs, killed.unconfirmed_runs) == (3, 0)
            assert len(instances(daemon)) == 4, "others go on"
            assert sleepers.join() == ["killed"] * 3
        finally:
            os.kill(daemon.pids[1], signal.SIGCONT)
        kill(daemon, "all")
        assert instances(daemon) == []
        assert others.join() == ["killed"] * 2


def test_no_start_begins_after_a_kill_has_returned(tmp_path: Path) -> None:
    """Callers race with kills; whatever has begun by the time a kill returns is gone by then, and nothing follows."""
    with Daemon() as daemon:
        daemon.install(folder(tmp_path, "sleeper", code=SLEEPER))
        stop = threading.Event()

        def keep_asking() -> None:
            client = daemon.client()
            while not stop.is_set():
                client.execute("sleeper", 1, timeout_ms=2000)

        callers = [threading.Thread(target=keep_asking, daemon=True) for _ in range(8)]
        for caller in callers:
            caller.start()
        for _ in range(15):
            until(lambda: instances(daemon))
            kill(daemon, "sleeper")
            for _ in range(10):
                assert instances(daemon) == []
                time.sleep(0.002)
            daemon.governance().LiftKill(governance_pb2.HoldRequest(target="sleeper", reason="again"))
        stop.set()
        kill(daemon, "sleeper")
        for caller in callers:
            caller.join(stretched(20))
            assert not caller.is_alive()


@pytest.mark.parametrize("whole", [True, False])
def test_an_offline_kill_works_while_the_front_stands_still(tmp_path: Path, whole: bool) -> None:
    with Daemon() as daemon:
        daemon.install(folder(tmp_path, "sleeper", code=SLEEPER))
        digest = daemon.client().get("sleeper").versions[0].digest
        sleepers = Sleepers(daemon, 3)
        path = latch.path_of(daemon.state)
        os.kill(daemon.pids[0], signal.SIGSTOP)
        try:
            latch.write(path, (latch.Kill(latch.ALL if whole else digest, "the front hangs", 1),))
            until(lambda: not instances(daemon), 1)
        finally:
            os.kill(daemon.pids[0], signal.SIGCONT)
        assert sleepers.join() == ["killed"] * 3
        (reason,) = daemon.client().execute("sleeper", 0).reasons
        assert (reason.code, reason.rule) == ("KILLED", "launcher.latch")
        assert "the front hangs" in reason.actual
        latch.write(path, ())
        assert daemon.client().execute("sleeper", 0).outcome == "ok"
