"""`plugind serve` and what it says when it cannot: every mistake has its sentence and its exit code, and changes nothing."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from plugind_client import Conflict, Denied, InvalidRequest, NotFound
from tests.support.daemon import BIN, Daemon

pytestmark = pytest.mark.root
EXAMPLES = Path(__file__).parents[2] / "client/examples/plugins"


def serve(*arguments, environment=None):
    return subprocess.run(
        [BIN / "plugind", "serve", *arguments],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        env=os.environ | (environment or {}),
    )


def test_the_line_that_says_ready_names_socket_state_and_driver(daemon):
    assert daemon.ready == (
        f"plugind: ready on {daemon.socket} (state {daemon.state}, cgroups {daemon.ready.split('cgroups ')[1]}"
    )
    assert daemon.ready.rstrip().endswith(("v1)", "v1/hybrid)", "unified)"))


def test_the_socket_is_its_owners_alone(daemon):
    status = daemon.socket.stat()
    assert (status.st_mode & 0o777, status.st_uid) == (0o600, os.getuid())


def test_health_and_reflection_answer(daemon):
    with grpc.insecure_channel(f"unix:{daemon.socket}") as channel:
        answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(service="plugind.v1.Runtime"))
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
        services = set(ProtoReflectionDescriptorDatabase(channel).get_services())
    assert {"plugind.v1.Runtime", "plugind.v1.Registry", "plugind.v1.Governance", "grpc.health.v1.Health"} <= services


def test_a_second_daemon_on_the_same_state_is_refused_by_the_lock(daemon, tmp_path):
    second = serve("--standalone", "--dev", "--state", daemon.state, "--socket", tmp_path / "s.sock")
    assert second.returncode == 3
    assert str(daemon.state) in second.stderr
    assert str(daemon.pids[0]) in second.stderr, "it says who holds it"
    assert daemon.client().list() is not None


def test_a_second_daemon_on_the_same_socket_is_refused(daemon, tmp_path):
    second = serve("--standalone", "--dev", "--state", tmp_path / "state", "--socket", daemon.socket)
    assert second.returncode == 3
    assert str(daemon.socket) in second.stderr
    assert daemon.client().list() is not None


def test_what_is_no_socket_in_the_way_is_left_alone(tmp_path):
    path = tmp_path / "s.sock"
    path.write_text("mine")
    refused = serve("--standalone", "--dev", "--state", tmp_path / "state", "--socket", path)
    assert refused.returncode == 2
    assert "something that is no socket is in the way" in refused.stderr
    assert path.read_text() == "mine"


def test_a_socket_that_nobody_listens_on_is_replaced(tmp_path):
    with Daemon() as first:
        folder = first.socket.parent
        left = socket.socket(socket.AF_UNIX)
        left.bind(str(folder / "stale.sock"))
        left.close()
        again = serve_until_ready(folder / "stale.sock", tmp_path / "state")
    assert again.startswith("plugind: ready on")


def serve_until_ready(path, state):
    running = subprocess.Popen(
        [BIN / "plugind", "serve", "--standalone", "--dev", "--state", state, "--socket", path],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert running.stdout is not None
        return running.stdout.readline()
    finally:
        running.send_signal(signal.SIGTERM)
        assert running.wait(10) == 0
        running.stdout.close()


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        ([], 2, "--standalone"),
        (["--dev"], 2, "--standalone"),
        (["--standalone", "--dev", "--socket", "/nowhere/at/all.sock"], 2, "/nowhere/at"),
        (["--standalone", "--dev", "--socket", "/tmp/" + "x" * 120], 2, "at most 107 bytes"),
        (["--standalone", "--dev", "--state", "/nowhere/at/all"], 2, "mkdir"),
        (["--standalone", "--dev", "--state", "/usr/lib"], 2, "expected an empty folder or a state of plugind"),
        (["--standalone", "--dev", "--config", "/nowhere.toml"], 2, "/nowhere.toml"),
        (["--standalon"], 2, "unrecognized arguments"),
    ],
)
def test_a_wrong_command_line_is_told(tmp_path, arguments, code, said):
    defaults = {"PLUGIND_STATE": str(tmp_path / "state"), "PLUGIND_SOCKET": str(tmp_path / "s.sock")}
    refused = serve(*arguments, environment=defaults)
    assert (refused.returncode, refused.stdout) == (code, "")
    assert said in refused.stderr
    assert "Traceback" not in refused.stderr
    assert list(tmp_path.iterdir()) == []


def test_without_root_it_says_that_it_needs_it_and_why(tmp_path):
    code = (
        "import os, sys; from plugind import __main__, app; os.setresgid(*[65534] * 3); os.setresuid(*[65534] * 3);"
        f" __main__.main(['serve', '--standalone', '--dev', '--state', {str(tmp_path / 's')!r}])"
    )
    refused = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=False)
    assert refused.returncode == 3
    assert "needs root: only root can make control groups" in refused.stderr
    assert "sudo plugind serve" in refused.stderr


def test_a_state_of_another_kind_is_refused(tmp_path):
    state = tmp_path / "state"
    state.mkdir()
    (state / "state.json").write_text(json.dumps({"format": 1, "mode": "production"}))
    refused = serve("--standalone", "--dev", "--state", state, "--socket", tmp_path / "s.sock")
    assert refused.returncode == 3
    assert "expected the state of a dev daemon, got one of a production daemon" in refused.stderr


# --- bundles over the wire ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    target = tmp_path_factory.mktemp("bundle") / "c.plugin.tar"
    done = subprocess.run(
        [BIN / "plugindctl", "build", EXAMPLES / "cost_breakdown", "-o", target], capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return target.read_bytes()


def damage(bundle, kind):
    if kind == "truncated":
        return bundle[:-1024]
    if kind == "flipped":
        return bundle[:2000] + bytes([bundle[2000] ^ 1]) + bundle[2001:]
    if kind == "longer":
        return bundle + bytes(512)
    return b"no tar at all"


@pytest.mark.parametrize("kind", ["truncated", "flipped", "longer", "nonsense"])
def test_a_damaged_bundle_is_refused_and_nothing_is_kept(daemon, bundle, kind):
    client = daemon.client()
    before = [plugin.name for plugin in client.list()], sorted(daemon.state.rglob("store/**/*"))
    with pytest.raises(InvalidRequest) as caught:
        client.submit(damage(bundle, kind))
    assert caught.value.reasons
    assert ([plugin.name for plugin in client.list()], sorted(daemon.state.rglob("store/**/*"))) == before


def test_submit_twice_is_the_same_and_other_bytes_are_a_conflict(daemon, bundle, tmp_path):
    client = daemon.client()
    first = client.submit(bundle)
    assert client.submit(bundle) == first
    folder = tmp_path / "cost_breakdown"
    subprocess.run(["cp", "-r", EXAMPLES / "cost_breakdown", folder], check=True)
    with (folder / "cost_breakdown.py").open("a") as code:
        code.write("# changed\n")
    subprocess.run([BIN / "plugindctl", "build", folder, "-o", tmp_path / "b"], check=True, capture_output=True)
    with pytest.raises(Conflict):
        client.submit((tmp_path / "b").read_bytes())


def test_nothing_runs_before_it_is_approved_and_active(daemon, bundle):
    client = daemon.client()
    submitted = client.submit(bundle)
    with pytest.raises(Denied) as caught:
        client.run("cost_breakdown", {}, version=submitted.version, stage="durations")
    codes = [reason.code for reason in caught.value.reasons]
    assert codes[0] == "NOT_APPROVED"
    assert all(reason.remedy for reason in caught.value.reasons)
    with pytest.raises(Conflict):
        client.activate("cost_breakdown", submitted.version)
    with pytest.raises(NotFound):
        client.approve("no_such_plugin", "1.0.0", tier=2, as_declared=True, reason="test")


def test_a_byte_flipped_in_the_store_is_held_and_everything_else_runs(tmp_path):
    with Daemon() as daemon:
        client = daemon.client()
        for name in ("napkin_calculations", "cost_breakdown"):
            assert daemon.command("try", EXAMPLES / name, "--json").returncode == 0
        digest = client.get("cost_breakdown").versions[0].digest
        (stored,) = daemon.state.rglob(f"store/**/{digest}")
        stored.chmod(0o600)
        data = bytearray(stored.read_bytes())
        data[5000] ^= 1
        stored.write_bytes(data)
        daemon.restart()
        result = daemon.client().execute("cost_breakdown", {}, stage="durations")
        assert "DIGEST_MISMATCH" in [reason.code for reason in result.reasons]
        case = json.loads((EXAMPLES / "napkin_calculations/cases/one_call.json").read_text())
        assert daemon.client().execute("napkin_calculations", case["input"], stage="premortem").outcome == "ok"
