"""The kill switch when other things have failed: a full disk, a broken policy, a front that hangs, a crowd."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import signal
import sqlite3
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from plugind.sandbox import latch
from tests.bench.stopping import wide_config
from tests.support.daemon import BIN, Daemon
from tests.support.pace import stretched
from tests.support.plugins import folder
from tests.system.test_kill import SLEEPER, Sleepers, instances, kill, until

pytestmark = [pytest.mark.root, pytest.mark.alone]

MIB = 1024 * 1024
CROWD = 200


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small disk of this test's own."""
    place = tmp_path / "disk"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m,mode=0755", "plugind-test", place], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", place], check=True)


def fill(disk: Path) -> Path:
    """Write until there is no room for one more byte."""
    path = disk / "filler"
    with path.open("wb", buffering=0) as file:
        for size in (MIB, 4096, 1):
            with contextlib.suppress(OSError):
                while file.write(b"x" * size):
                    pass
    with pytest.raises(OSError) as full:
        (disk / "more").write_bytes(b"x" * 5000)
    assert full.value.errno == errno.ENOSPC
    (disk / "more").unlink(missing_ok=True)
    return path


@pytest.mark.parametrize("target", ["sleeper", "plan:p"])
def test_a_kill_works_while_the_disk_is_full_and_is_in_the_history(disk: Path, tmp_path: Path, target: str) -> None:
    with Daemon(state=disk / "state") as daemon:
        daemon.install(folder(tmp_path, "sleeper", code=SLEEPER))
        sleepers = Sleepers(daemon, 3, plan_id="p")
        filler = fill(disk)
        killed = kill(daemon, target, "the disk is full")
        assert (killed.ended_runs, killed.unconfirmed_runs) == (3, 0)
        assert instances(daemon) == []
        assert set(sleepers.join()) <= {"killed", "fault", "UNCONFIRMED"}, "their outcomes cannot be recorded"
        with sqlite3.connect(f"file:{daemon.state / 'registry.db'}?mode=ro", uri=True) as registry:
            query = "SELECT action, why, detail FROM history ORDER BY revision DESC LIMIT 1"
            action, why, detail = registry.execute(query).fetchone()
        registry.close()
        assert (action, why, json.loads(detail)) == ("kill", "the disk is full", {"target": target})
        filler.unlink()
        daemon.restart()
        result = daemon.client().execute("sleeper", 0, plan_id="p")
        assert [(each.code, each.rule) for each in result.reasons] == [("KILLED", "hold.killed")]


@contextlib.contextmanager
def with_policy(parent: Path) -> Iterator[tuple[Path, Daemon]]:
    """A daemon with a policy file of its own."""
    parent.chmod(0o755)
    policy = parent / "policy.toml"
    policy.write_text((Path(__file__).parents[2] / "profiles/policy.toml").read_text())
    config = parent / "plugind.toml"
    config.write_text(f'policy = "{policy}"\n')
    with Daemon("--config", str(config)) as daemon:
        yield policy, daemon


def test_a_kill_works_while_the_policy_is_broken(tmp_path: Path) -> None:
    with with_policy(tmp_path) as (policy, daemon):
        daemon.install(folder(tmp_path, "sleeper", code=SLEEPER))
        sleepers = Sleepers(daemon, 3)
        policy.write_text("[tier.2\nthis is no policy")
        os.kill(daemon.pids[0], signal.SIGHUP)
        until(lambda: "the policy stays as it was" in daemon.log.read_text())
        assert daemon.command("policy", "reload").returncode != 0
        killed = kill(daemon, "tier:2")
        assert (killed.ended_runs, killed.unconfirmed_runs) == (3, 0)
        assert instances(daemon) == []
        assert set(sleepers.join()) == {"killed"}
        assert [each.code for each in daemon.client().execute("sleeper", 0).reasons] == ["KILLED"]


def test_a_daemon_with_a_broken_policy_does_not_start_and_says_so(tmp_path: Path) -> None:
    policy = tmp_path / "policy.toml"
    policy.write_text("[tier.2\nthis is no policy")
    config = tmp_path / "plugind.toml"
    config.write_text(f'policy = "{policy}"\n')
    arguments = ("--state", tmp_path / "state", "--socket", tmp_path / "s.sock", "--config", config)
    done = subprocess.run(
        [BIN / "plugind", "serve", "--standalone", "--dev", *arguments],
        capture_output=True,
        text=True,
        timeout=stretched(30),
        check=False,
    )
    assert done.returncode not in (0, -signal.SIGKILL)
    assert str(policy) in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("target", ["all", "tier:2"])
def test_a_kill_without_the_daemon_ends_everything_while_the_front_hangs(tmp_path: Path, target: str) -> None:
    with Daemon() as daemon:
        daemon.install(folder(tmp_path, "sleeper", code=SLEEPER))
        sleepers = Sleepers(daemon, 5)
        offline = (target, "--offline", "--reason", "the front hangs", "--state", str(daemon.state))
        os.kill(daemon.pids[0], signal.SIGSTOP)
        try:
            assert daemon.command("kill", *offline).returncode == 0
            until(lambda: not instances(daemon), 1)
        finally:
            os.kill(daemon.pids[0], signal.SIGCONT)
        assert set(sleepers.join()) == {"killed"}
        client = daemon.client()
        assert client.runs() == []
        assert [each.rule for each in client.execute("sleeper", 0).reasons] == ["launcher.latch"]
        events = [
            json.loads(line) for file in daemon.state.glob("ledger/*.jsonl") for line in file.read_text().splitlines()
        ]
        intents = {each["index"] for each in events if each["event"] == "INTENT"}
        assert {each["intent"] for each in events if each["event"] in ("OUTCOME", "DENIED")} >= intents
        assert client.audit.verify().holds
        assert daemon.command("kill", "--lift", *offline).returncode == 0
        assert client.execute("sleeper", 0).outcome == "ok"


def test_a_latch_that_cannot_be_read_ends_everything(tmp_path: Path) -> None:
    with Daemon() as daemon:
        daemon.install(folder(tmp_path, "sleeper", code=SLEEPER))
        sleepers = Sleepers(daemon, 2)
        latch.path_of(daemon.state).write_text('[{"target": "tier:7", "reason": "", "at_unix_ms": 1}]')
        try:
            until(lambda: not instances(daemon), 1)
            assert set(sleepers.join()) == {"killed"}
        finally:
            latch.path_of(daemon.state).unlink()


@pytest.mark.slow
def test_two_hundred_instances_of_a_plan_are_gone_when_the_kill_returns_and_others_go_on(tmp_path: Path) -> None:
    config = wide_config(tmp_path, instances=CROWD + 8, connections=1024)
    with Daemon("--config", str(config)) as daemon:
        daemon.install(
            folder(
                tmp_path,
                "sleeper",
                code="import time\ndef run(p, c):\n    time.sleep(p)\n",
                extra="[limits]\nwall_ms = 60000\n",
            )
        )
        client = daemon.client()
        outcomes: list[str] = []

        def run(plan_id: str) -> None:
            outcomes.append(client.execute("sleeper", 50, plan_id=plan_id).outcome)

        plans = ["big"] * CROWD + ["small"] * 2
        callers = [threading.Thread(target=run, args=(plan,), daemon=True) for plan in plans]
        for caller in callers:
            caller.start()
        until(lambda: sum(each.state == "running" for each in client.runs()) == len(plans), 40)
        killed = kill(daemon, "plan:big")
        assert (killed.ended_runs, killed.unconfirmed_runs) == (CROWD, 0)
        assert len(instances(daemon)) == 2
        until(lambda: len(outcomes) == CROWD)
        assert kill(daemon, f"caller:{os.getuid()}").ended_runs == 2
        assert instances(daemon) == []
        for caller in callers:
            caller.join(stretched(20))
        assert outcomes == ["killed"] * len(plans)
        assert client.audit.verify().holds
