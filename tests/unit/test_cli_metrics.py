"""plugindctl metrics: what a person reads, and what a program gets."""

import pytest

from plugind.api.metrics import MetricsCalls
from plugind.api.roles import Role
from plugind.metrics.counts import Metrics
from plugind.model import Caller
from plugind_client.cli.metrics import amount
from plugind_proto.v1 import monitor_pb2
from tests.support.fake_daemon import FakeDaemon, plugindctl
from tests.unit.test_metrics_counts import denied, ended


@pytest.fixture
def daemon(tmp_path, monkeypatch):
    with FakeDaemon(str(tmp_path / "d.sock")) as daemon:
        monkeypatch.setenv("PLUGIND_SOCKET", daemon.socket)
        yield daemon


class Callers:
    def behind(self, _):
        return Caller(0, 0, 1, frozenset({Role.OPERATOR}))


class Context:
    def peer(self):
        return "unix:x"

    def time_remaining(self):
        return None


class Service(MetricsCalls):
    callers, refusals = Callers(), None

    def __init__(self, metrics):
        self.metrics = metrics


async def answered(metrics):
    """What the real call answers."""
    return await Service(metrics).Metrics(monitor_pb2.MetricsRequest(), Context())


@pytest.fixture
async def report():
    metrics = Metrics()
    for record in (ended(wall_ms=12), ended(wall_ms=2_400), ended("failed", tier=0), denied("BUSY", "NOT_APPROVED")):
        metrics.committed(record)
    metrics.contained(0.0042)
    return await answered(metrics)


async def test_the_call_gives_the_same_twice(report):
    lines = [line for line in report.text.splitlines() if not line.startswith("#")]
    assert len(lines) == sum(len(metric.samples) for metric in report.metrics)
    by_name = {metric.name: metric for metric in report.metrics}
    assert by_name["plugind_runs_total"].kind == "counter"
    assert by_name["plugind_run_seconds"].kind == "histogram"
    assert {sample.name for sample in by_name["plugind_run_seconds"].samples} == {
        f"plugind_run_seconds_{part}" for part in ("bucket", "sum", "count")
    }
    for name in by_name:
        assert f"# TYPE {name} " in report.text


def test_a_table_for_people(daemon, report):
    daemon.metrics = report
    done = plugindctl("metrics")
    assert (done.code, done.err) == (0, "")
    lines = [" ".join(line.split()) for line in done.out.splitlines()]
    assert lines[0] == "group what value"
    assert "runs runs, failed, tier 0 1" in lines
    assert "runs, ok, tier 2 2" in lines
    assert "run, tier 2 2 times, mean 1.2 s, 99% within 2.5 s" in lines
    assert "denials denials, NOT_APPROVED 1" in lines
    assert "queue nothing yet" in lines
    assert "unsafe load block 100.0%" in lines
    assert "containment 1 times, mean 4.2 ms, 99% within 5 ms" in lines
    assert "provenance complete 33.3%" in lines
    assert "incidents nothing yet" in lines
    assert not any("out_of_memory" in line for line in lines)


def test_the_text_of_prometheus(daemon, report):
    daemon.metrics = report
    assert plugindctl("metrics", "--text").out == report.text


def test_json(daemon, report):
    daemon.metrics = report
    found = {metric["name"]: metric for metric in plugindctl("metrics", "--json").json["metrics"]}
    assert found["plugind_denials_total"]["kind"] == "counter"
    assert {"name": "plugind_denials_total", "labels": {"code": "BUSY"}, "value": 1.0} in found[
        "plugind_denials_total"
    ]["samples"]


def test_json_and_text_at_once_are_refused(daemon):
    done = plugindctl("metrics", "--json", "--text")
    assert (done.code, done.json["error"]["message"]) == (2, "expected --text or --json, got both")


def test_a_metric_that_this_version_does_not_know_is_shown(daemon):
    sample = monitor_pb2.Sample(name="plugind_new_bytes", labels={"part": "x\x1b[31m"}, value=1024 * 1024)
    daemon.metrics = monitor_pb2.MetricsResponse(
        metrics=[monitor_pb2.Metric(name="plugind_new_bytes", kind="gauge", samples=[sample])]
    )
    assert "new, x\\u001b[31m" in plugindctl("metrics").out
    assert "1.0 MiB" in plugindctl("metrics").out


@pytest.mark.parametrize(
    "name,value,told",
    [
        ("plugind_runs_total", 12345, "12,345"),
        ("plugind_x_seconds", 0.0042, "4.2 ms"),
        ("plugind_x_seconds", 90, "90.0 s"),
        ("plugind_process_cpu_seconds_total", 3.25, "3.2 s"),
        ("plugind_x_bytes", 5 * 1024 * 1024, "5.0 MiB"),
        ("plugind_x_ratio", 0.987, "98.7%"),
        ("plugind_launcher_up", 1, "yes"),
        ("plugind_ledger_writable", 0, "no"),
        ("plugind_start_time_seconds", 0, "1970-01-01 00:00 UTC"),
        ("plugind_oldest_hold_timestamp_seconds", 60, "1970-01-01 00:01 UTC"),
    ],
)
def test_an_amount_has_its_unit(name, value, told):
    assert amount(name, value) == told
