"""A real daemon that enforces: what misbehaves ends in quarantine, comes out by people's word, and is watched then."""

from __future__ import annotations

import signal
import sqlite3
import tarfile
import time
from pathlib import Path

import pytest

from plugind.profiles import profiles_dir
from plugind_client import Client
from tests.support.daemon import Daemon
from tests.support.pace import stretched
from tests.support.plugins import folder

pytestmark = pytest.mark.root

HOSTILE = "import ctypes\ndef run(p, c): ctypes.CDLL(None).unshare(0x10000000) if p else None; return p"
FAILS = "def run(p, c):\n    if p: raise ValueError(p)\n    return 0"


def waited(condition):
    """What it gives once it gives something."""
    deadline = time.monotonic() + stretched(5)
    while not (found := condition()):
        assert time.monotonic() < deadline, "it did not come to it in time"
        time.sleep(0.002)
    return found


def reasons(client: Client, name: str, payload: object = 0, **fields) -> list[tuple[str, str]]:
    return [(each.code, each.rule) for each in client.execute(name, payload, **fields).reasons]


def recorded(client: Client, event: str) -> list[dict[str, object]]:
    return [each.fields for each in client.audit.query(events=[event]).records]


def policy(tmp_path: Path, approvers: int) -> Path:
    text = (profiles_dir() / "policy.toml").read_text().replace("approvers = 2  ", f"approvers = {approvers}  ")
    path = tmp_path / "policy.toml"
    path.write_text(text)
    config = tmp_path / "plugind.toml"
    config.write_text(f'policy = "{path}"\n')
    tmp_path.chmod(0o755)
    return config


def test_one_dangerous_call_is_enough_and_two_people_let_it_out(tmp_path):
    with Daemon("--config", str(policy(tmp_path, 1)), enforce=True) as daemon:
        client = daemon.client()
        daemon.install(folder(tmp_path, "hostile", code=HOSTILE))
        assert client.execute("hostile", 0).ok
        assert client.execute("hostile", 1).outcome == "violation"
        waited(client.incidents)
        (held,) = client.quarantined()
        assert (held.label, held.state, held.incident) == ("hostile@1.0.0", "quarantined", "incident_1")
        assert reasons(client, "hostile") == [("QUARANTINED", "hold.quarantined")]
        case = client.quarantine_case("hostile@1.0.0")
        assert [each.trigger for each in case.anomalies] == ["dangerous_syscall"]
        assert any('"outcome":"violation"' in each for each in case.records_json)

        evidence = tmp_path / "evidence.tar.gz"
        assert daemon.command("quarantine", "show", "hostile@1.0.0", "--export", str(evidence)).returncode == 0
        with tarfile.open(evidence) as archive:
            names = archive.getnames()
        assert "evidence/records.jsonl" in names
        assert daemon.command("quarantine", "show", "hostile@1.0.0", "--export", str(evidence)).returncode == 2

        daemon.restart()
        client = daemon.client()
        assert reasons(client, "hostile") == [("QUARANTINED", "hold.quarantined")], "it survives a restart"
        assert daemon.command("quarantine", "release", "hostile", "--reason", "x").returncode == 2
        done = daemon.command(
            *("quarantine", "release", "hostile@1.0.0", "--stage", "durations", "--reason", "it was a test")
        )
        assert done.returncode == 0, done.stderr
        assert reasons(client, "hostile") == [("STAGE_NOT_ALLOWED", "probation.stages")]
        assert client.execute("hostile", 0, stage="durations").ok
        assert client.execute("hostile", 1, stage="durations").outcome == "violation"
        (again,) = waited(lambda: [each for each in client.quarantined() if each.state == "quarantined"])
        assert again.probation_stages == ()
        actions = [change.action for change in client.history("hostile")]
        assert "release" in actions
        assert client.audit.verify().findings == ()


def test_one_voice_is_not_enough_by_default(tmp_path):
    with Daemon(enforce=True) as daemon:
        client = daemon.client()
        daemon.install(folder(tmp_path, "good", code="def run(p, c): return p"))
        put = client.quarantine("good@1.0.0", "it looks odd")
        assert put.approvers_needed == 2
        first = client.release("good@1.0.0", "it is fine", ["*"])
        assert not first.released
        assert not client.release("good@1.0.0", "it is fine", ["*"]).released
        assert reasons(client, "good") == [("QUARANTINED", "hold.quarantined")]


def test_a_breaker_opens_lets_probes_through_and_quarantines_what_fails_them(tmp_path):
    config = policy(tmp_path, 1)
    profiles = tmp_path / "profiles"
    profiles.mkdir()
    for path in profiles_dir().iterdir():
        text = path.read_text()
        (profiles / path.name).write_text(_quick(text) if path.name.startswith("tier") else text)
    config.write_text(config.read_text() + f'profiles = "{profiles}"\n')
    with Daemon("--config", str(config), enforce=True) as daemon:
        client = daemon.client()
        daemon.install(folder(tmp_path, "fails", code=FAILS))
        for _ in range(10):
            assert client.execute("fails", 0).ok
        tries = 0
        while client.execute("fails", 1).outcome == "failed":
            tries += 1
            assert tries <= 10, "a version that always fails is found within ten runs"
        assert reasons(client, "fails") == [("QUARANTINED", "monitor.breaker")]
        assert client.quarantined() == []
        waited(lambda: client.execute("fails", 0).ok)  # a probe
        # It fails its other probes, and that is for quarantine.
        (held,) = waited(lambda: client.execute("fails", 1) and client.quarantined())
        assert held.label == "fails@1.0.0"
        (incident,) = waited(client.incidents)
        assert (incident.cause, incident.label) == ("breaker", "fails@1.0.0")


def _quick(text: str) -> str:
    lines = [line for line in text.splitlines() if not line.startswith("open_ms")]
    at = lines.index("[monitor]")
    return "\n".join([*lines[: at + 1], "open_ms = 200", *lines[at + 1 :]]) + "\n"


def test_what_a_dead_daemon_has_not_judged_the_next_one_does(tmp_path):
    with Daemon() as daemon:  # it only observes
        daemon.install(folder(tmp_path, "hostile", code=HOSTILE))
        client = daemon.client()
        assert client.execute("hostile", 1).outcome == "violation"
        waited(client.anomalies)
        assert client.quarantined() == []
        daemon.process.send_signal(signal.SIGKILL)
        daemon.process.wait()
        (daemon.state / "monitor.db").unlink()
        with Daemon(state=daemon.state, enforce=True) as second:
            (held,) = waited(second.client().quarantined)
            assert held.label == "hostile@1.0.0"
            assert len(recorded(second.client(), "ANOMALY")) == 1, "it was recorded by the first one"


def test_what_was_released_does_not_go_back_when_the_monitor_begins_anew(tmp_path):
    """Its statistics are lost, the ledger is read from the beginning, and has what it was released for."""
    with Daemon("--config", str(policy(tmp_path, 1)), enforce=True) as daemon:
        daemon.install(folder(tmp_path, "hostile", code=HOSTILE))
        client = daemon.client()
        assert client.execute("hostile", 1).outcome == "violation"
        waited(lambda: recorded(client, "ANOMALY"))
        for _ in range(3):
            assert client.execute("hostile", 1).decision == "deny"
        assert client.release("hostile@1.0.0", "it was a test", ["*"]).released
        daemon._stop()
        (daemon.state / "monitor.db").unlink()
        daemon._start()
        client = daemon.client()
        assert client.execute("hostile", 0).ok
        assert [each.state for each in client.quarantined()] == ["probation"]
        assert len(recorded(client, "ANOMALY")) == 1


def test_a_lost_monitor_is_an_event_and_comes_back(tmp_path):
    with Daemon(enforce=True) as daemon:
        client = daemon.client()
        daemon.install(folder(tmp_path, "good", code="def run(p, c): return p"))
        assert client.execute("good", 0).ok
        with Locked(daemon.state / "monitor.db"):
            assert client.execute("good", 0).ok, "it is not known yet"
            waited(lambda: "the monitor is lost" in daemon.log.read_text())
            assert reasons(client, "good") == [("ISOLATION_UNAVAILABLE", "tier.2.monitor.required")]
            assert daemon.command("status").returncode == 7
        waited(lambda: "the monitor is back" in daemon.log.read_text())
        both = {"monitor_lost", "monitor_back"}
        waited(lambda: both <= {each["action"] for each in recorded(client, "CHANGE")})


class Locked:
    """Nobody else can write the database meanwhile."""

    def __init__(self, path: Path) -> None:
        self._connection = sqlite3.connect(path, isolation_level=None)

    def __enter__(self) -> None:
        self._connection.execute("BEGIN IMMEDIATE")

    def __exit__(self, *_: object) -> None:
        self._connection.execute("ROLLBACK")
        self._connection.close()


def test_what_happens_is_in_the_metrics(tmp_path):
    with Daemon("--config", str(policy(tmp_path, 1)), enforce=True) as daemon:
        client = daemon.client()
        daemon.install(folder(tmp_path, "hostile", code=HOSTILE))
        assert client.execute("hostile", 1).outcome == "violation"
        waited(client.incidents)
        client.release("hostile@1.0.0", "it was a test", ["*"])
        expected = {
            'plugind_anomalies_total{kind="hard",severity="high"}': 1,
            'plugind_incidents_total{severity="high"}': 1,
            'plugind_incidents_open{severity="high"}': 1,
            "plugind_time_to_quarantine_seconds_count": 1,
            "plugind_false_positives_released_total": 1,
            "plugind_monitor_up": 1,
            'plugind_runs_total{outcome="violation",tier="2"}': 1,
        }
        waited(lambda: expected.items() <= shown(client).items())


def shown(client: Client) -> dict[str, float]:
    lines = [line for line in client.metrics().text.splitlines() if not line.startswith("#")]
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}
