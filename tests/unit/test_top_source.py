"""What `plugindctl top` asks of a daemon over its socket, and what it does where one gives less."""

from __future__ import annotations

import time

import grpc
import pytest

from plugind_client import Client
from plugind_client.cli.top.reading import Lack
from plugind_client.cli.top.source import Source
from plugind_client.errors import NotAllowed
from plugind_proto.v1 import monitor_pb2, registry_pb2, runtime_pb2
from tests.support.fake_daemon import FakeDaemon, plugindctl, plugindctl_process


class Monitored(FakeDaemon):
    """One with a monitor; `poor` has no role for it."""

    poor = False
    asked = 0

    def Metrics(self, request, context):  # noqa: N802
        self.asked += 1
        if self.poor:
            context.abort(grpc.StatusCode.PERMISSION_DENIED, "Metrics: expected role operator")
        values = [
            ("plugind_runs_total", {"outcome": "ok"}, 4),
            ("plugind_runs_total", {"outcome": "odd"}, float("nan")),
        ]
        samples = [monitor_pb2.Sample(name=name, labels=labels, value=value) for name, labels, value in values]
        return monitor_pb2.MetricsResponse(metrics=[monitor_pb2.Metric(name="plugind_runs", samples=samples)])

    def ListAnomalies(self, request, context):  # noqa: N802
        if self.poor:
            context.abort(grpc.StatusCode.PERMISSION_DENIED, "ListAnomalies: expected role operator")
        assert request.limit == 50
        return monitor_pb2.ListAnomaliesResponse(anomalies=[monitor_pb2.Anomaly(trigger="duration", severity="low")])

    def Quarantine(self, request, context):  # noqa: N802
        self._admit(request, context)
        hold = registry_pb2.Hold(kind="quarantined", target=request.target, reason=request.reason)
        return monitor_pb2.QuarantinedVersion(
            hold=hold, plugin="costs", version="1.0.0", incident="incident_3", ended_runs=1
        )


@pytest.fixture
def daemon(tmp_path):
    with Monitored(str(tmp_path / "d.sock")) as made:
        yield made


@pytest.fixture
def source(daemon):
    made = Source(Client(daemon.socket))
    yield made
    made.close()


def test_a_look_has_everything(daemon, source) -> None:
    daemon.running.append(runtime_pb2.RunningRun(run_id="r1", memory_bytes=5))
    found = source.look()
    assert found.error is None
    assert (found.runs[0].run_id, found.runs[0].memory_bytes, found.runs[0].pids) == ("r1", 5, None)
    assert found.metrics.by("plugind_runs_total", "outcome") == {"ok": 4.0}
    assert [each.trigger for each in found.anomalies] == ["duration"]
    assert found.status.mode == daemon.condition.mode


def test_what_the_role_does_not_give_is_asked_for_once(daemon, source) -> None:
    """Every refusal is a record of the audit."""
    daemon.poor = True
    for _ in range(3):
        found = source.look()
        assert found.metrics == Lack("The role of the caller does not allow this: Metrics: expected role operator")
        assert isinstance(found.anomalies, Lack)
        assert found.error is None
    assert daemon.asked == 1


def test_a_daemon_without_a_monitor(tmp_path) -> None:
    with FakeDaemon(str(tmp_path / "old.sock")) as old, Client(old.socket) as client:
        found = Source(client).look()
        assert found.error is None
        assert found.anomalies.why.startswith("This plugind does not offer the call")
        assert isinstance(found.anomalies, Lack)


def test_nobody_there(tmp_path) -> None:
    with Client(tmp_path / "nobody.sock") as client:
        found = Source(client).look()
        assert found.error.code == "UNAVAILABLE"
        assert isinstance(found.status, Lack)
        assert found.runs == ()


def test_what_the_keys_do(daemon, source) -> None:
    daemon.running.append(runtime_pb2.RunningRun(run_id="r1"))
    assert source.cancel("r1") == "r1: canceled"
    assert source.cancel("r2") == "r2: no such run is in flight any more"
    assert source.kill("costs@1.0.0", "why") == "costs@1.0.0: killed; nothing of it ran"
    daemon.killed = {"ended_runs": 2, "took_us": 3400}
    assert source.kill("costs@1.0.0", "why") == "costs@1.0.0: killed; 2 runs ended in 3.4 ms"
    daemon.killed = {"ended_runs": 2, "took_us": 3400, "unconfirmed_runs": 1}
    assert "look at the machine" in source.kill("costs@1.0.0", "why")
    assert source.lift("costs@1.0.0", "mended") == "costs@1.0.0: not killed any more"
    assert source.quarantine("costs@1.0.0", "odd") == "costs@1.0.0: in quarantine; 1 run ended, incident_3"
    assert (daemon.last("HoldRequest").target, daemon.last("HoldRequest").reason) == ("costs@1.0.0", "odd")


def test_a_refusal_is_raised(daemon, source) -> None:
    daemon.refusal = (grpc.StatusCode.PERMISSION_DENIED, "no", ())
    with pytest.raises(NotAllowed):
        source.kill("costs", "why")


def test_one_frame(daemon) -> None:
    began = time.monotonic()
    done = plugindctl("top", "--once", "--interval", "0.2", "--socket", daemon.socket)
    assert (done.code, done.err) == (0, "")
    assert time.monotonic() - began >= 0.2
    assert "a second: runs 0.0" in done.out
    done = plugindctl("top", "--once", "--json", "--interval", "0.2", "--socket", daemon.socket)
    assert done.json["anomalies"][0]["trigger"] == "duration"


def test_one_frame_of_nobody(tmp_path) -> None:
    done = plugindctl("top", "--once", "--socket", tmp_path / "nobody.sock")
    assert (done.code, done.out) == (5, "")
    assert "there is no such socket" in done.err


def test_it_wants_a_terminal(daemon) -> None:
    done = plugindctl("top", "--socket", daemon.socket)
    assert (done.code, done.err) == (
        2,
        "plugindctl: expected a terminal, got none; for scripts: plugindctl top --once\n",
    )
    done = plugindctl("top", "--json", "--socket", daemon.socket)
    assert done.json["error"]["message"] == "--json: expected --once with it"


def test_other_commands_do_not_load_it() -> None:
    import subprocess
    import sys

    script = (
        "import sys, plugind_client.cli.app; sys.exit(any(name.split('.')[0] == 'textual' for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
    assert plugindctl_process("top", "--help").code == 0
