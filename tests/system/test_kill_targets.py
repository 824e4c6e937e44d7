"""Kills by key, package, plan, caller and tier, on real instances: with the daemon, and without it."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from pathlib import Path

import pytest

from plugind.environments.shelf import Shelf, path_of
from plugind.provenance.keys import PrivateKey
from plugind.sandbox import latch
from plugind_client import PlugindError
from tests.support.daemon import Daemon, profiles_with
from tests.support.environments import shelve
from tests.support.jail import descendants, living_instances
from tests.support.pace import stretched
from tests.support.plugins import attested, built, folder
from tests.system.test_kill import SLEEPER, until

pytestmark = [pytest.mark.root, pytest.mark.alone]

USES = f"import greeting\n{SLEEPER}"


class Laboratory:
    """A daemon with one plugin that is signed and has an environment, and one that has neither."""

    def __init__(self, daemon: Daemon, parent: Path, code: str = USES) -> None:
        self.daemon, self.key = daemon, PrivateKey.generate()
        self.shelf = Shelf(path_of(daemon.state))
        shelve(self.shelf, {"greeting.py": "x = 1"}, name="words")
        data, client = built(parent, "signed", code=code, environment="words"), daemon.client()
        pem = self.key.public.to_pem().decode()
        client.submit(data, attested(data, self.key), development_public_keys=[pem])
        client.approve("signed", "1.0.0", tier=2, as_declared=True, reason="a test")
        client.activate("signed", "1.0.0")
        daemon.install(folder(parent, "other", code=SLEEPER))
        self.digests = {name: client.get(name).versions[0].digest for name in ("signed", "other")}
        self.outcomes: dict[str, list[str]] = {"signed": [], "other": []}
        self._threads: list[threading.Thread] = []

    def instances(self) -> list[int]:
        return living_instances(descendants(self.daemon.pids[0]))

    def parked(self) -> int:
        return list(descendants(self.daemon.pids[0]).values()).count("plugind-parked")

    def sleep(self, plugin: str, count: int, plan_id: str = "") -> None:
        before = len(self.instances())
        for _ in range(count):
            thread = threading.Thread(target=self._run, args=(plugin, plan_id), daemon=True)
            thread.start()
            self._threads.append(thread)
        until(lambda: len(self.instances()) >= before + 2 * count)

    def _run(self, plugin: str, plan_id: str) -> None:
        try:
            result = self.daemon.client().execute(plugin, 1, plan_id=plan_id)
            self.outcomes[plugin].append(result.outcome or result.reasons[0].code)
        except PlugindError as error:
            self.outcomes[plugin].append(error.code)

    def join(self) -> dict[str, list[str]]:
        for thread in self._threads:
            thread.join(stretched(20))
            assert not thread.is_alive()
        return self.outcomes

    def command(self, *arguments: str) -> dict:
        done = self.daemon.command(*arguments, "--reason", "a test", "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)


@pytest.mark.parametrize("target", ["key:{key}", "key:{start}", "pkg:pypi/Words", "pkg:pypi/words@1.0", "plan:roof: 1"])
def test_a_kill_ends_what_it_means_and_nothing_else_and_is_lifted_by_the_command_it_tells(tmp_path, target):
    with Daemon() as daemon:
        lab = Laboratory(daemon, tmp_path)
        target = target.format(key=lab.key.public.keyid, start=lab.key.public.keyid[:10])
        lab.sleep("signed", 3, plan_id="roof: 1")
        lab.sleep("other", 2, plan_id="roof")
        killed = lab.command("kill", target)
        assert (killed["ended_runs"], killed["unconfirmed_runs"]) == (3, 0)
        assert len(lab.instances()) == 4, "others go on"
        (reason,) = daemon.client().execute("signed", 0, plan_id="roof: 1").reasons
        assert (reason.code, reason.rule) == ("KILLED", "hold.killed")
        assert killed["hold"]["target"] in reason.expected
        assert any(killed["hold"]["target"] in line for line in daemon.command("status").stdout.splitlines())
        lab.command("kill", "all")
        assert lab.join() == {"signed": ["killed"] * 3, "other": ["killed"] * 2}
        lab.command("kill", "--lift", "all")
        # The remedy, typed as it stands.
        environment = os.environ | {"PLUGIND_SOCKET": str(daemon.socket)}
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        assert os.spawnvpe(os.P_WAIT, "sh", ["sh", "-c", reason.remedy], environment | {"PATH": path}) == 0
        assert daemon.client().execute("signed", 0, plan_id="roof: 1").outcome == "ok"
        assert daemon.client().audit.verify().holds


@pytest.mark.parametrize("target", [f"caller:{os.getuid()}", "tier:2"])
def test_a_kill_of_caller_or_tier_ends_all_that_is_theirs(tmp_path, target):
    with Daemon() as daemon:
        lab = Laboratory(daemon, tmp_path)
        lab.sleep("signed", 2)
        lab.sleep("other", 2)
        assert lab.command("kill", target)["ended_runs"] == 4
        assert lab.instances() == []
        assert lab.join() == {"signed": ["killed"] * 2, "other": ["killed"] * 2}
        daemon.restart()
        assert [each.rule for each in daemon.client().execute("other", 0).reasons] == ["hold.killed"]


@pytest.mark.parametrize("target", ["pkg:pypi/words", "key:{key}", "tier:2"])
def test_a_kill_ends_what_waits_with_it(tmp_path, target):
    with Daemon("--config", str(_config(tmp_path))) as daemon:
        lab = Laboratory(daemon, tmp_path)
        assert daemon.client().execute("signed", 0).outcome == "ok"
        until(lambda: lab.parked() == 1)
        killed = lab.command("kill", target.format(key=lab.key.public.keyid))
        assert (killed["ended_runs"], killed["unconfirmed_runs"]) == (0, 0)
        until(lambda: lab.parked() == 0, 1)


def _config(parent: Path) -> Path:
    config = parent / "plugind.toml"
    config.write_text(f'profiles = "{profiles_with(parent, 1)}"\n')
    return config


@pytest.mark.parametrize("target", ["tier:2", "key:{key}", "key:{start}", "pkg:pypi/words@1"])
def test_a_kill_without_the_daemon_means_the_same_and_names_what_it_found(tmp_path, target):
    with Daemon() as daemon:
        lab = Laboratory(daemon, tmp_path)
        target = target.format(key=lab.key.public.keyid, start=lab.key.public.keyid[:10])
        of_tier = target == "tier:2"
        lab.sleep("signed", 2)
        lab.sleep("other", 2)
        offline = ("--offline", "--state", str(daemon.state))
        os.kill(daemon.pids[0], signal.SIGSTOP)
        try:
            killed = lab.command("kill", target, *offline)
            assert killed["found"] == (["tier:2"] if of_tier else [lab.digests["signed"]])
            until(lambda: len(lab.instances()) == (0 if of_tier else 4), 1)
        finally:
            os.kill(daemon.pids[0], signal.SIGCONT)
        until(lambda: lab.outcomes["signed"] == ["killed"] * 2)
        (reason,) = daemon.client().execute("signed", 0).reasons
        assert (reason.code, reason.rule) == ("KILLED", "launcher.latch")
        assert lab.command("kill", "--lift", killed["target"], *offline)["in_force"] == []
        assert daemon.client().execute("signed", 0).outcome == "ok"
        lab.command("kill", "all")
        lab.join()


def test_what_only_the_daemon_knows_cannot_be_killed_without_it_and_the_refusal_says_what_can(tmp_path):
    with Daemon() as daemon:
        offline = ("--offline", "--state", str(daemon.state), "--reason", "a test")
        for target in ("plan:p", "caller:0"):
            done = daemon.command("kill", target, *offline)
            assert done.returncode == 2
            assert "sudo plugindctl kill all --offline --reason TEXT" in done.stderr
        for unknown in ("pkg:pypi/nothing", f"key:{'0' * 64}", "nothing"):
            assert daemon.command("kill", unknown, *offline).returncode == 3
        assert daemon.command("kill", "tier:3", *offline).returncode == 2
        assert not latch.path_of(daemon.state).exists()
