"""suspend, resume, kill, status and why: what a person in a hurry reads."""

import shlex

import pytest

from plugind_proto.v1 import common_pb2, runtime_pb2
from tests.support.fake_daemon import FakeDaemon, plugindctl


@pytest.fixture
def daemon(tmp_path, monkeypatch):
    with FakeDaemon(str(tmp_path / "d.sock")) as daemon:
        monkeypatch.setenv("PLUGIND_SOCKET", daemon.socket)
        yield daemon


# --- holds ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "runs,took_us,said",
    [
        (0, 0, "demo: killed; nothing of it ran"),
        (1, 1500, "demo: killed; 1 run ended in 1.5 ms"),
        (200, 87_654, "demo: killed; 200 runs ended in 87.7 ms"),
    ],
)
def test_kill_says_how_many_runs_ended_and_how_long_it_took(daemon, runs, took_us, said):
    daemon.killed = {"ended_runs": runs, "took_us": took_us}
    done = plugindctl("kill", "demo", "--reason", "wrong sums")
    assert (done.code, done.out) == (0, "")
    assert done.err.splitlines() == [said, "it stays killed until `plugindctl kill --lift demo --reason TEXT`"]
    assert (daemon.last("HoldRequest").target, daemon.last("HoldRequest").reason) == ("demo", "wrong sums")


OTHERS = (f"key:{'a' * 64}", "key:aaaaaaaa", "pkg:pypi/numpy@1.26.4", "plan:roof garden", "caller:1000", "tier:2")


@pytest.mark.parametrize("target", ["all", "demo", "demo@1.0.0", "plug_1", "plug_1@1.0.0", "a" * 64, *OTHERS])
def test_every_kind_of_target_is_sent_as_it_is(daemon, target):
    assert plugindctl("kill", target, "--reason", "r").code == 0
    assert daemon.last("HoldRequest").target == target


def test_runs_that_may_still_be_there_are_a_fault(daemon):
    daemon.killed = {"ended_runs": 3, "took_us": 5_000_000, "unconfirmed_runs": 2}
    done = plugindctl("kill", "all", "--reason", "r")
    assert (done.code, done.err.splitlines()[0]) == (6, "all: killed; 3 runs ended in 5000.0 ms")
    assert done.err.splitlines()[-1] == "plugindctl: 2 runs may still have processes: look at the machine"
    done = plugindctl("kill", "all", "--reason", "r", "--json")
    assert (done.code, done.json["unconfirmed_runs"], done.json["hold"]["target"]) == (6, 2, "all")


def test_kill_is_lifted_once(daemon):
    plugindctl("kill", "demo", "--reason", "r")
    done = plugindctl("kill", "--lift", "demo", "--reason", "mended")
    assert (done.code, done.err) == (0, "demo: not killed any more\n")
    assert daemon.last("HoldRequest").reason == "mended"
    done = plugindctl("kill", "--lift", "demo", "--reason", "mended")
    assert (done.code, done.err.splitlines()[-1]) == (3, "  demo: expected one that is killed")


@pytest.mark.parametrize("target", ["plan:roof garden", "plan:it's", "pkg:pypi/torch@2.1%2Bcpu", "caller:0"])
@pytest.mark.parametrize("command,lifting", [("kill", "kill --lift"), ("suspend", "resume")])
def test_what_is_told_to_lift_it_can_be_typed_as_it_stands(daemon, target, command, lifting):
    said = plugindctl(command, target, "--reason", "r").err
    typed = next(part for part in said.split("`") if part.startswith("plugindctl"))
    words = shlex.split(typed)
    assert words == ["plugindctl", *lifting.split(), target, "--reason", "TEXT"]
    assert plugindctl(*words[1:]).code == 0


def test_help_of_kill_shows_each_kind_of_target():
    told = " ".join(plugindctl("kill", "--help").out.split())
    for example in ("key:0f3a9c21", "pkg:pypi/urllib3@2.0.0", "'plan:rooftop garden'", "tier:2", "--offline"):
        assert f"plugindctl kill {example}" in told or f"kill all {example}" in told


def test_suspension_is_put_in_force_and_lifted(daemon):
    done = plugindctl("suspend", "demo@1.0.0", "--reason", "maintenance")
    assert (done.code, done.err) == (
        0,
        "demo@1.0.0: suspended, until `plugindctl resume demo@1.0.0 --reason TEXT`\n",
    )
    assert plugindctl("resume", "demo@1.0.0", "--reason", "done").err == "demo@1.0.0: not suspended any more\n"
    assert plugindctl("resume", "demo@1.0.0", "--reason", "done").code == 3


@pytest.mark.parametrize("command", ["suspend", "kill"])
def test_hold_as_json(daemon, command):
    shown = plugindctl(command, "demo", "--reason", "r", "--json").json
    hold = shown.get("hold", shown)
    assert (hold["target"], hold["reason"], hold["by_uid"], hold["at_unix_ms"]) == ("demo", "r", 1000, 5)


# --- status --------------------------------------------------------------------------------------------------------


def test_status_of_a_daemon_with_nothing_wrong(daemon):
    done = plugindctl("status")
    rows = dict(line.strip().split(maxsplit=1) for line in done.out.splitlines())
    assert (done.code, done.err) == (0, "")
    assert rows == {
        "plugind": "1.0",
        "mode": "production",
        "since": "2023-11-14 22:13 UTC",
        "plugins": "3, runs in flight 2",
        "launcher": "there, cgroups unified",
        "ledger": f"writable, 41 records, root {'ab' * 32}",
        "monitor": "sees what runs",
        "journal": "41 records sent",
        "policy": f"/etc/plugind/policy.toml, sha256 {'cd' * 32}",
    }


@pytest.mark.parametrize(
    "wrong,said",
    [
        ({"launcher_problem": "away"}, "launcher: away"),
        ({"ledger_problem": "No space left on device"}, "ledger: No space left on device"),
        ({"unavailable_tiers": {1: "no cgroups"}}, "Tier 1: no cgroups"),
    ],
)
def test_something_wrong_is_a_check_that_did_not_hold(daemon, wrong, said):
    for name, value in wrong.items():
        if isinstance(value, dict):
            getattr(daemon.condition, name).update(value)
        else:
            setattr(daemon.condition, name, value)
    done = plugindctl("status")
    assert (done.code, done.err) == (7, f"wrong: {said}\n")
    assert said.partition(": ")[2] in done.out
    done = plugindctl("status", "--json")
    assert (done.code, done.json["ok"]) == (7, False)


def test_status_shows_holds_which_are_nothing_wrong(daemon):
    daemon.condition.holds.add(kind="killed", target="all", reason="inci\x1bdent", by_uid=4_000_001, at_unix_ms=60_000)
    done = plugindctl("status")
    assert done.code == 0
    assert r"all, 1970-01-01 00:01 UTC by uid 4000001: inci\u001bdent" in done.out
    shown = plugindctl("status", "--json").json
    assert (shown["ok"], shown["ledger_size"], shown["holds"][0]["target"]) == (True, 41, "all")


# --- why -----------------------------------------------------------------------------------------------------------


def test_why_tells_every_reason_and_the_remedies_on_lines_of_their_own(daemon):
    remedy = "plugindctl approve demo@1.0.0"
    daemon.denial = runtime_pb2.WhyResponse(
        plugin="demo",
        version="1.0.0",
        stage="wbs",
        reasons=[
            common_pb2.Reason(code="NOT_APPROVED", rule="gate.a", expected="yes", actual="no", remedy=remedy),
            common_pb2.Reason(code="PERMISSION_NOT_APPROVED", rule="gate.p", expected="network", remedy=remedy),
            common_pb2.Reason(code="BUSY", rule="admission", actual="all \x1btaken"),
            common_pb2.Reason(code="KILLED", rule="hold", remedy="plugindctl kill --lift demo"),
        ],
        audit_log="log_9",
        at_unix_ms=60_000,
    )
    done = plugindctl("why")
    assert (done.code, done.err) == (0, "")
    assert done.out.splitlines() == [
        "demo 1.0.0 for stage wbs was denied 1970-01-01 00:01 UTC (audit record log_9)",
        "  NOT_APPROVED (gate.a): expected yes, got no",
        "  PERMISSION_NOT_APPROVED (gate.p): expected network",
        r"  BUSY (admission): all \u001btaken",
        "  KILLED (hold)",
        "what to do:",
        "plugindctl approve demo@1.0.0",
        "plugindctl kill --lift demo",
    ]
    shown = plugindctl("why", "--json").json
    assert [reason["code"] for reason in shown["reasons"]] == [
        "NOT_APPROVED",
        "PERMISSION_NOT_APPROVED",
        "BUSY",
        "KILLED",
    ]


def test_denial_that_could_not_be_recorded_and_that_nothing_mends(daemon):
    daemon.denial = runtime_pb2.WhyResponse(plugin="x", reasons=[common_pb2.Reason(code="AUDIT_UNAVAILABLE", rule="r")])
    assert plugindctl("why").out.splitlines() == [
        "x was denied 1970-01-01 00:00 UTC (no audit record)",
        "  AUDIT_UNAVAILABLE (r)",
    ]


def test_without_a_denial_there_is_nothing_to_explain(daemon):
    done = plugindctl("why")
    assert (done.code, done.out, done.err) == (0, "", "no run of yours was denied since plugind was started\n")
    assert plugindctl("why", "--json").json is None
