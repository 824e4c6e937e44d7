"""Which versions have instances waiting, and when these go: a real daemon, and what its ledger says of it."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from plugind_client import Denied, LimitExceeded
from plugind_proto.v1 import governance_pb2
from tests.support.daemon import Daemon, profiles_with
from tests.support.jail import descendants
from tests.support.pace import stretched
from tests.support.plugins import folder

pytestmark = pytest.mark.root

PLAIN = "def run(payload, context):\n    return payload\n"
AHEAD = "AHEAD = open('/proc/self/comm').read().strip() == 'plugind-parked'\n"


@pytest.fixture
def daemon() -> Iterator[Daemon]:
    with tempfile.TemporaryDirectory(prefix="plugind-test-") as parent:
        Path(parent).chmod(0o755)  # the front, which is not root, reads it
        config = Path(parent, "plugind.toml")
        config.write_text(f'profiles = "{profiles_with(Path(parent), 16)}"\n')
        with Daemon("--config", str(config)) as running:
            yield running


def records(daemon: Daemon, mode: str) -> list[dict]:
    found = daemon.state.glob("ledger/*.jsonl")
    lines = [json.loads(line) for file in sorted(found) for line in file.read_text().splitlines()]
    return [each for each in lines if each.get("mode") == mode and each["event"] in ("INTENT", "OUTCOME")]


def parked(daemon: Daemon) -> int:
    return sum(name == "plugind-parked" for name in descendants(daemon.process.pid).values())


def reach(condition) -> None:
    deadline = time.monotonic() + stretched(20)
    while not condition():
        assert time.monotonic() < deadline, "it did not come to that"
        time.sleep(0.02)


def ended(daemon: Daemon) -> list[dict]:
    return [each for each in records(daemon, "import") if each["event"] == "OUTCOME"]


def test_the_second_run_finds_one_that_waits_and_the_audit_says_which(daemon, tmp_path):
    daemon.install(folder(tmp_path, "warm", code=PLAIN))
    client = daemon.client()
    assert client.run("warm", 1).output == 1
    reach(lambda: len(ended(daemon)) == 1)
    assert parked(daemon) == 1
    assert client.run("warm", {"a": 2}).output == {"a": 2}
    reach(lambda: len(ended(daemon)) == 2 and parked(daemon) == 1)
    first, second = (each for each in records(daemon, "run") if each["event"] == "OUTCOME")
    importing = records(daemon, "import")[0]
    assert (first["imported"], second["imported"]) == (-1, importing["index"])
    assert importing["event"] == "INTENT"
    assert (importing["stage"], importing["plan_id"], importing["input_sha256"], importing["permissions"]) == (
        "",
        "",
        "",
        [],
    )
    assert client.audit.verify().holds
    assert not client.runs(), "those that wait are nobody's runs"


def test_a_kill_ends_them_and_counts_runs_alone(daemon, tmp_path):
    daemon.install(folder(tmp_path, "warm", code=PLAIN))
    client = daemon.client()
    assert client.run("warm", 1).output == 1
    reach(lambda: parked(daemon) == 1)
    killed = daemon.governance().Kill(governance_pb2.HoldRequest(target="warm", reason="a test"))
    assert (killed.ended_runs, killed.unconfirmed_runs) == (0, 0)
    reach(lambda: parked(daemon) == 0)
    with pytest.raises(Denied) as denied:
        client.run("warm", 1)
    assert denied.value.code == "KILLED"


def test_another_version_takes_the_place_of_what_waited(daemon, tmp_path):
    daemon.install(folder(tmp_path, "warm", "1.0.0", code="def run(p, c):\n    return 'one'\n"))
    client = daemon.client()
    assert client.run("warm", None).output == "one"
    reach(lambda: parked(daemon) == 1)
    daemon.install(folder(tmp_path, "warm", "2.0.0", code="def run(p, c):\n    return 'two'\n"))
    assert [client.run("warm", None).output for _ in range(3)] == ["two"] * 3
    reach(lambda: parked(daemon) == 1)


@pytest.mark.parametrize(
    "code, told",
    [
        ("print('hello')\n" + PLAIN, "not parked: its import writes, and what it writes belongs to a run"),
        (
            "import threading, time\nthreading.Thread(target=time.sleep, args=(9,), daemon=True).start()\n" + PLAIN,
            "its import left 2 processes and threads, and not one",
        ),
        (AHEAD + "if AHEAD:\n    raise ValueError('no')\n" + PLAIN, "it"),
    ],
    ids=["prints", "thread", "raises"],
)
def test_what_cannot_wait_runs_fresh_and_is_tried_once(daemon, tmp_path, code, told):
    daemon.install(folder(tmp_path, "odd", code=code))
    client = daemon.client()
    assert [client.run("odd", n).output for n in range(4)] == [0, 1, 2, 3]
    reach(lambda: ended(daemon))
    assert [client.run("odd", n).output for n in range(2)] == [0, 1]
    (only,) = ended(daemon)
    assert told in only["detail"]
    assert all(each["imported"] == -1 for each in records(daemon, "run") if each["event"] == "OUTCOME")
    reach(lambda: parked(daemon) == 0)


def test_an_import_that_misbehaves_holds_the_version_before_anyone_waits_for_it(daemon, tmp_path):
    code = AHEAD + "while AHEAD:\n    pass\n" + PLAIN
    daemon.install(folder(tmp_path, "sly", code=code, extra="[limits]\ncpu_ms = 300\n"))
    client = daemon.client()
    assert client.run("sly", 1).output == 1
    reach(lambda: daemon.governance().Status(governance_pb2.StatusRequest()).holds)
    with pytest.raises(Denied) as denied:
        client.run("sly", 1)
    assert denied.value.code == "SUSPENDED"
    assert "its import misbehaved" in str(daemon.governance().Status(governance_pb2.StatusRequest()).holds[0].reason)
    assert [each["outcome"] for each in ended(daemon)] == ["cpu_exceeded"]


def test_a_profile_can_ask_for_a_fresh_interpreter_each_time(tmp_path):
    tmp_path.chmod(0o755)
    config = tmp_path / "plugind.toml"
    config.write_text(f'profiles = "{profiles_with(tmp_path, 0)}"\n')
    with Daemon("--config", str(config)) as daemon:
        daemon.install(folder(tmp_path, "fresh", code=PLAIN))
        client = daemon.client()
        assert [client.run("fresh", n).output for n in range(3)] == [0, 1, 2]
        assert not records(daemon, "import")
        assert parked(daemon) == 0


def test_a_stop_leaves_none(daemon, tmp_path):
    daemon.install(folder(tmp_path, "warm", code=PLAIN))
    assert daemon.client().run("warm", 1).output == 1
    reach(lambda: parked(daemon) == 1)
    pids = [pid for pid, name in descendants(daemon.process.pid).items() if name == "plugind-parked"]
    daemon.process.terminate()
    assert daemon.wait_gone(10)
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)
    intents = [each for each in records(daemon, "import") if each["event"] == "INTENT"]
    assert len(intents) == len(ended(daemon))


BURNS = "while True:\n    pass\n"


@pytest.fixture
def production(tmp_path: Path) -> Iterator[Daemon]:
    with Daemon(production=True) as running:
        yield running


def activate(daemon: Daemon, made: Path) -> None:
    """As an operator does."""
    admin = ("--admin-socket", str(daemon.admin_socket))
    label = made.name.replace("-", "@")
    for command in (
        ("submit", str(made)),
        ("approve", label, "--as-declared", "--yes", "--reason", "ok"),
        ("activate", label),
    ):
        done = daemon.command(*command, *admin)
        assert done.returncode == 0, done.stderr


def test_what_is_made_active_waits_before_anyone_has_run_it(production, tmp_path):
    activate(production, folder(tmp_path, "warm", code=PLAIN))
    reach(lambda: len(ended(production)) == 1 and parked(production) == 1)
    assert records(production, "run") == []
    assert production.client().run("warm", 1).output == 1
    (ran,) = (each for each in records(production, "run") if each["event"] == "OUTCOME")
    assert ran["imported"] == records(production, "import")[0]["index"]


def test_a_stage_of_its_own_is_no_obstacle(production, tmp_path):
    activate(production, folder(tmp_path, "staged", code=PLAIN, stages=("durations",)))
    reach(lambda: parked(production) == 1)


def test_an_import_that_misbehaves_is_held_before_anyone_waits_for_it(production, tmp_path):
    activate(production, folder(tmp_path, "burns", code=BURNS + PLAIN, extra="[limits]\ncpu_ms = 50\n"))
    reach(lambda: [each["outcome"] for each in ended(production)] == ["cpu_exceeded"])
    with pytest.raises(Denied) as denied:
        production.client().run("burns", 1)
    assert denied.value.code == "SUSPENDED"
    assert records(production, "run") == []


def test_a_development_daemon_leaves_the_first_import_to_the_first_run(daemon, tmp_path):
    daemon.install(folder(tmp_path, "burns", code=BURNS + PLAIN, extra="[limits]\ncpu_ms = 50\n"))
    with pytest.raises(LimitExceeded):
        daemon.client().run("burns", 1)
    assert records(daemon, "import") == []
