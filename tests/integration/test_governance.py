"""Governed from end to end, as an operator types it: a real daemon, real plugindctl, real files."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from plugind.policyfile import shipped_policy
from tests.support.daemon import Daemon
from tests.support.plugins import folder

pytestmark = pytest.mark.root

NETWORK = '[[permissions.network]]\nhost = "example.org"\nport = 443\nprotocol = "tcp"\n'


def answer(done: subprocess.CompletedProcess[str], code: int = 0):
    assert done.returncode == code, (done.args, done.returncode, done.stdout, done.stderr)
    return json.loads(done.stdout)


def codes(result) -> list[str]:
    return [reason["code"] for reason in result["reasons"]]


def run(daemon: Daemon, name: str, *arguments: str, code: int = 0):
    return answer(daemon.command("run", name, "--input", "-", "--json", *arguments, text="1"), code)


def test_from_submitted_to_active_and_back(daemon: Daemon, tmp_path: Path) -> None:
    for version in ("1.0.0", "1.1.0"):
        source = folder(tmp_path, "governed", version, f"def run(p, c): return '{version}'")
        submitted = answer(daemon.command("submit", source, "--json"))
        assert (submitted["tier"], submitted["state"]) == (2, "submitted")
    denied = run(daemon, "governed", code=3)
    assert codes(denied) == ["NOT_APPROVED"]
    why = daemon.command("why")
    assert why.returncode == 0
    assert "NOT_APPROVED" in why.stdout
    assert "plugindctl approve governed@1.1.0" in why.stdout
    for version in ("1.0.0", "1.1.0"):
        label = f"governed@{version}"
        answer(daemon.command("approve", label, "--as-declared", "--yes", "--reason", "read it", "--json"))
        answer(daemon.command("activate", label, "--json"))
        assert run(daemon, "governed")["output"] == version
    answer(daemon.command("rollback", "governed", "--reason", "1.1.0 is wrong", "--json"))
    assert run(daemon, "governed")["output"] == "1.0.0"
    refused = daemon.command("activate", "governed@9.9.9")
    assert refused.returncode == 3
    actions = [change["action"] for change in answer(daemon.command("history", "governed", "--json"))]
    assert actions == [
        *("submit", "submit", "approve", "activate", "approve", "retire", "activate", "retire", "rollback"),
    ]
    told = daemon.command("history", "governed").stdout
    assert "1.1.0 is wrong" in told
    assert "root" in told


def test_a_permission_that_nobody_approved_is_refused_and_the_mend_is_named(daemon: Daemon, tmp_path: Path) -> None:
    source = folder(tmp_path, "asks_much", extra='[[permissions.file_read]]\npath = "wbs_*.json"\n')
    answer(daemon.command("submit", source, "--json"))
    label = "asks_much@1.0.0"
    answer(daemon.command("approve", label, "--stage", "*", "--yes", "--reason", "without files", "--json"))
    answer(daemon.command("activate", label, "--json"))
    denied = run(daemon, "asks_much", code=3)
    assert codes(denied) == ["PERMISSION_NOT_APPROVED"]
    assert "wbs_*.json" in denied["reasons"][0]["expected"]
    assert f"plugindctl approve {label}" in daemon.command("why").stdout
    answer(daemon.command("approve", label, "--as-declared", "--yes", "--reason", "with files", "--json"))
    (plan := tmp_path / "plan").mkdir()
    allowed = run(daemon, "asks_much", "--plan-dir", str(plan))
    assert allowed["governance"]["permissions"] == ["file_read"]


def test_a_wider_update_waits_and_shows_the_difference(daemon: Daemon, tmp_path: Path) -> None:
    answer(daemon.command("submit", folder(tmp_path, "widens", "1.0.0"), "--json"))
    answer(daemon.command("approve", "widens@1.0.0", "--as-declared", "--yes", "--reason", "ok", "--json"))
    answer(daemon.command("activate", "widens@1.0.0", "--json"))
    wider = daemon.command("submit", folder(tmp_path, "widens", "1.1.0", extra=NETWORK))
    assert wider.returncode == 0
    assert "network" in wider.stdout + wider.stderr
    assert daemon.command("activate", "widens@1.1.0").returncode == 3
    assert "network" in daemon.command("show", "widens@1.1.0").stdout
    assert run(daemon, "widens")["governance"]["permissions"] == []


def test_suspend_kill_and_lift(daemon: Daemon, tmp_path: Path) -> None:
    daemon.install(folder(tmp_path, "held"))
    answer(daemon.command("suspend", "held", "--reason", "looking", "--json"))
    assert codes(run(daemon, "held", code=3)) == ["SUSPENDED"]
    answer(daemon.command("kill", "held@1.0.0", "--reason", "bad", "--json"))
    assert sorted(codes(run(daemon, "held", code=3))) == ["KILLED", "SUSPENDED"]
    answer(daemon.command("resume", "held", "--reason", "looked", "--json"))
    answer(daemon.command("kill", "--lift", "held@1.0.0", "--reason", "fine", "--json"))
    assert run(daemon, "held")["outcome"] == "ok"
    assert daemon.command("kill", "--lift", "held@1.0.0", "--reason", "again").returncode == 3
    assert daemon.command("kill", "no_such_plugin", "--reason", "x").returncode == 3


def test_an_offline_kill_by_name_and_its_lifting(daemon: Daemon, tmp_path: Path) -> None:
    daemon.install(folder(tmp_path, "offline"))
    state = ("--state", str(daemon.state))
    killed = answer(daemon.command("kill", "offline", "--offline", "--reason", "hangs", "--json", *state))
    assert killed["in_force"] == [daemon.client().get("offline").versions[0].digest]
    assert codes(run(daemon, "offline", code=3)) == ["KILLED"]
    answer(daemon.command("kill", "--lift", "offline", "--offline", "--reason", "back", "--json", *state))
    assert run(daemon, "offline")["outcome"] == "ok"
    for wrong in (("nothing",), ("offline@9",), ("--lift", "offline")):
        assert daemon.command("kill", *wrong, "--offline", "--reason", "x", *state).returncode == 3
    assert daemon.command("kill", "all", "--offline", "--reason", "x", "--state", "/nowhere").returncode == 2


def test_the_audit_holds_and_a_flipped_byte_is_found(tmp_path: Path) -> None:
    with Daemon() as daemon:
        daemon.install(folder(tmp_path, "audited"))
        log = run(daemon, "audited")["governance"]["audit_log"]
        assert daemon.command("audit", "verify").returncode == 0
        shown = answer(daemon.command("audit", "show", log, "--json"))
        assert log in json.dumps(shown)
        assert "audited" in daemon.command("audit", "list").stdout
        segment = next((daemon.state / "ledger").glob("*.jsonl"))
        data = bytearray(segment.read_bytes())
        data[len(data) // 2] ^= 1
        segment.write_bytes(data)
        found = daemon.command("audit", "verify")
        assert found.returncode == 7
        assert segment.name in found.stdout + found.stderr
        refused = daemon.command("run", "audited", "--input", "-", "--json", text="1")
        assert refused.returncode in (0, 3)  # the writer compares length and file, not what lies before its end


def test_the_policy_is_reloaded_as_a_whole_or_not_at_all(tmp_path: Path) -> None:
    policy, config = tmp_path / "policy.toml", tmp_path / "plugind.toml"
    good = shipped_policy().read_text()
    policy.write_text(good)
    config.write_text(f'policy = "{policy}"\n')
    tmp_path.chmod(0o755)
    with Daemon("--config", str(config)) as daemon:
        daemon.install(folder(tmp_path, "governed"))
        assert run(daemon, "governed", "--stage", "durations")["outcome"] == "ok"
        before = answer(daemon.command("status", "--json"))["policy_sha256"]

        policy.write_text(good + "\n[tier.3]\n")
        broken = daemon.command("policy", "reload")
        assert broken.returncode == 3
        assert f"{policy}:" in broken.stderr
        assert answer(daemon.command("status", "--json"))["policy_sha256"] == before
        assert run(daemon, "governed", "--stage", "durations")["outcome"] == "ok"

        policy.write_text(re.sub(r"(?m)(?<=^\[tier\.2\]\n)enabled = true", "enabled = false", good))
        assert answer(daemon.command("policy", "reload", "--json"))["changed"] is True
        assert "TIER_NOT_ALLOWED" in codes(run(daemon, "governed", "--stage", "durations", code=3))
        explained = answer(daemon.command("policy", "explain", "governed", "--stage", "durations", "--json"), 7)
        assert any(not check["ok"] for check in explained if "tier" in check["name"])

        policy.write_text(good)
        os.kill(daemon.process.pid, 1)  # SIGHUP, as `systemctl reload` does
        for _ in range(100):
            if answer(daemon.command("status", "--json"))["policy_sha256"] == before:
                break
        assert run(daemon, "governed", "--stage", "durations")["outcome"] == "ok"


AS_SOMEBODY = """
import json, os, sys
from plugind_client import Client, PlugindError
os.setgroups([]); os.setresgid(65534, 65534, 65534); os.setresuid(65534, 65534, 65534)
told = {}
with Client(sys.argv[1]) as client:
    told["run"] = client.execute("governed", 1).outcome
    for name, call in {
        "kill": lambda: client.kill("all", "x"), "approve": lambda: client.approve("governed", "1.0.0", tier=2, reason="x", as_declared=True),
        "submit": lambda: client.submit(b"x"), "reload": client.reload_policy,
    }.items():
        try:
            call(); told[name] = "allowed"
        except PlugindError as error:
            told[name] = error.code
with Client(sys.argv[2]) as client:
    try:
        client.list(); told["admin socket"] = "allowed"
    except PlugindError as error:
        told["admin socket"] = error.code
print(json.dumps(told))
"""


def test_production_has_two_sockets_and_the_run_socket_gives_nothing_more(tmp_path: Path) -> None:
    with Daemon(production=True) as daemon:
        admin = ("--admin-socket", str(daemon.admin_socket))
        answer(daemon.command("submit", folder(tmp_path, "governed"), "--json", *admin))
        label = "governed@1.0.0"
        answer(daemon.command("approve", label, "--as-declared", "--yes", "--reason", "ok", "--json", *admin))
        answer(daemon.command("activate", label, "--json", *admin))
        assert daemon.command("kill", "all", "--reason", "x", "--socket", str(daemon.socket)).returncode == 3
        done = subprocess.run(
            [sys.executable, "-c", AS_SOMEBODY, daemon.socket, daemon.admin_socket],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        told = json.loads(done.stdout)
        assert told == {
            "run": "ok",
            "kill": "NOT_ALLOWED",
            "approve": "NOT_ALLOWED",
            "submit": "NOT_ALLOWED",
            "reload": "NOT_ALLOWED",
            "admin socket": "UNAVAILABLE",
        }
        listed = answer(daemon.command("audit", "list", "--json", *admin))
        refused = [record for record in listed if record["event"] == "REFUSED"]
        assert {record["call"] for record in refused} >= {"Kill", "Approve", "Submit", "ReloadPolicy"}
        assert {record["by_uid"] for record in refused} == {0, 65534}
