"""Metrics of a real daemon: on their socket and over the API."""

import grp
import json
import stat
import subprocess

import pytest
from prometheus_client.parser import text_string_to_metric_families

from plugind_client import NotAllowed
from tests.support.daemon import Daemon

pytestmark = pytest.mark.root


def scraped(path):
    done = subprocess.run(
        ["curl", "-sS", "--fail", "--unix-socket", path, "http://localhost/metrics"],
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    return samples(done.stdout)


def samples(text):
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_the_socket_of_a_development_daemon_is_its_owners_and_says_what_the_api_says(tmp_path):
    path, config = tmp_path / "m.sock", tmp_path / "plugind.toml"
    config.write_text(f"metrics = {json.dumps(str(path))}")
    with Daemon("--config", str(config)) as daemon:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        found = scraped(path)
        assert (found["plugind_launcher_up",], found["plugind_ledger_writable",]) == (1, 1)
        assert found["plugind_queue_places", "2"] >= 1
        for part in ("front", "launcher"):
            assert found["plugind_process_resident_memory_bytes", part] > 5_000_000
        assert found["plugind_process_open_fds", "front"] > 10
        with daemon.client() as client:
            report = client.metrics()
            assert set(samples(report.text)) == set(found)
            hold = client.kill("all", "to be seen")
            assert samples(client.metrics().text)["plugind_holds", "killed"] == 1
            since = samples(client.metrics().text)["plugind_oldest_hold_timestamp_seconds", "killed"]
            assert since == pytest.approx(hold.hold.at_unix_ms / 1000)
    assert not path.exists()


def test_a_production_daemon_has_it_beside_the_admin_socket(tmp_path):
    with Daemon(production=True) as daemon:
        path = daemon.admin_socket.with_name("metrics.sock")
        assert stat.S_IMODE(path.stat().st_mode) == 0o660
        operators = [entry.gr_gid for entry in grp.getgrall() if entry.gr_name == "plugind-operator"]
        assert path.stat().st_gid in (operators or [daemon.socket.stat().st_gid])
        assert scraped(path)["plugind_start_time_seconds",] > 0
        with daemon.client() as client, pytest.raises(NotAllowed):  # the run socket makes nobody an operator
            client.metrics()
    assert not path.exists()
