"""submit, approve, reject, activate, rollback, history: what is sent, what a person reads, and what is asked first."""

import json
import time

import grpc
import pytest

from plugind_proto.v1 import common_pb2, registry_pb2
from tests.support.fake_daemon import FakeDaemon, plugindctl, plugindctl_terminal

BUNDLE = "demo-0.1.0.plugin.tar"
READ = '{"path": "wbs_*.json"}'
NET = '{"host": "example.org", "port": 443, "protocol": "tcp"}'


@pytest.fixture
def daemon(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with FakeDaemon(str(tmp_path / "d.sock")) as daemon:
        monkeypatch.setenv("PLUGIND_SOCKET", daemon.socket)
        yield daemon


@pytest.fixture
def demo(daemon):
    """A registered version that asks for something."""
    plugin = registry_pb2.Plugin(plugin_id="plug_1", name="demo")
    version = plugin.versions.add(version="1.0.0", state="submitted", tier=2, stages=["durations", "wbs"])
    version.digest = "a" * 64
    version.limits.CopyFrom(common_pb2.Limits(wall_ms=2000))
    version.permissions.add(kind="file_read", entry_json=READ)
    version.permissions.add(kind="network", entry_json=NET)
    daemon.plugins["demo"] = plugin
    return version


@pytest.fixture
def folder(tmp_path):
    assert plugindctl("new", "demo").code == 0
    return tmp_path / "demo"


def sent(daemon, kind):
    return [request for request in daemon.requests if type(request).__name__ == kind]


# --- submit --------------------------------------------------------------------------------------------------------


def test_submit_hands_in_a_bundle_and_names_the_next_command(daemon, folder, tmp_path):
    plugindctl("build", "demo")
    done = plugindctl("submit", BUNDLE)
    assert (done.code, done.out) == (0, "plug_1\n")
    assert daemon.last("SubmitRequest").bundle == (tmp_path / BUNDLE).read_bytes()
    assert daemon.last("SubmitRequest").attestations == b""
    first, why, following = done.err.splitlines()
    assert first.startswith("demo 0.1.0 is plug_1, submitted, Tier 2; sha256 ")
    assert why.startswith(f"it is not Tier 1: nobody has signed these bytes in {BUNDLE}.intoto.jsonl")
    assert following == "next: `plugindctl approve demo@0.1.0 --as-declared --reason TEXT`"


@pytest.mark.parametrize("state,following", [("approved", "activate"), ("active", "run")])
def test_same_bytes_again_are_further_on_their_way(daemon, folder, state, following):
    plugindctl("submit", "demo")
    daemon.plugins["demo"].versions[0].state = state
    assert plugindctl("submit", "demo").err.splitlines()[-1] == f"next: `plugindctl {following} demo@0.1.0`"


@pytest.mark.parametrize("beside", [".", "parent"])
def test_folder_is_built_and_its_signatures_are_found_here_or_beside_it(daemon, folder, tmp_path, monkeypatch, beside):
    plugindctl("build", "demo")
    plugindctl("keys", "new", "k.pem", "--no-passphrase")
    plugindctl("sign", BUNDLE, "--key", "k.pem")
    if beside == "parent":
        elsewhere = tmp_path / "elsewhere"
        elsewhere.mkdir()
        monkeypatch.chdir(elsewhere)
    done = plugindctl("submit", folder)
    assert daemon.last("SubmitRequest").attestations == (tmp_path / f"{BUNDLE}.intoto.jsonl").read_bytes()
    assert daemon.last("SubmitRequest").bundle == (tmp_path / BUNDLE).read_bytes()
    assert "it is not Tier 1: no vetter has signed these bytes" in done.err


def test_tier_1_needs_no_explanation(daemon, folder):
    plugindctl("build", "demo")
    plugindctl("keys", "new", "k.pem", "--no-passphrase")
    plugindctl("sign", BUNDLE, "--key", "k.pem")
    plugindctl("sign", BUNDLE, "--key", "k.pem", "--as", "vetter")
    done = plugindctl("submit", BUNDLE, "--json").json
    assert (done["tier"], done["not_tier_1"], done["plugin_id"]) == (1, "", "plug_1")
    daemon.trusting = False
    daemon.plugins.clear()
    assert "it is not Tier 1: the daemon does not trust the keys" in plugindctl("submit", BUNDLE).err


def test_signatures_of_other_bytes_are_not_signatures_of_these(daemon, folder):
    plugindctl("build", "demo")
    plugindctl("keys", "new", "k.pem", "--no-passphrase")
    plugindctl("sign", BUNDLE, "--key", "k.pem")
    (folder / "demo.py").write_text((folder / "demo.py").read_text() + "\n")
    assert "nobody has signed these bytes" in plugindctl("submit", "demo").err


def test_what_an_update_widens_is_told(daemon, folder):
    plugindctl("submit", "demo")
    daemon.plugins["demo"].versions[0].widens.append("permissions: network is new")
    done = plugindctl("submit", "demo")
    assert "wider than what was approved last: permissions: network is new" in done.err.splitlines()
    assert plugindctl("submit", "demo", "--json").json["widens"] == ["permissions: network is new"]


@pytest.mark.parametrize("content", [b"", b"no tar"])
def test_what_is_no_bundle_is_not_sent(daemon, tmp_path, content):
    (tmp_path / BUNDLE).write_bytes(content)
    done = plugindctl("submit", BUNDLE)
    assert (done.code, daemon.requests) == (2, [])
    assert f"{BUNDLE}: this is no valid bundle" in done.err


def test_signatures_that_cannot_be_read_are_not_sent(daemon, folder, tmp_path):
    (tmp_path / f"{BUNDLE}.intoto.jsonl").write_text("\n[]\n")
    done = plugindctl("submit", "demo")
    assert (done.code, daemon.requests) == (2, [])
    assert "line 2" in done.err


# --- approve -------------------------------------------------------------------------------------------------------


def test_approve_as_declared(daemon, demo):
    done = plugindctl("approve", "demo@1.0.0", "--as-declared", "--reason", "read the code")
    request = daemon.last("ApproveRequest")
    assert (done.code, request.as_declared, request.tier, request.reason) == (0, True, 2, "read the code")
    assert (list(request.stages), list(request.permissions), request.HasField("limits")) == ([], [], False)
    assert request.not_after_unix_ms == 0
    assert "demo@1.0.0: approved; next: `plugindctl activate demo@1.0.0`" in done.err


def test_approve_sends_what_is_named_and_the_limits_that_were_shown(daemon, demo):
    before_ms = time.time() * 1000
    done = plugindctl(
        *("approve", "plug_1@1.0.0", "--stage", "durations", "--permission", "file_read", "--tier", "2"),
        *("--permission", f"network:{NET}", "--permission", "network", "--expires", "3", "--reason", "pilot"),
    )
    request = daemon.last("ApproveRequest")
    assert (done.code, request.as_declared, list(request.stages)) == (0, False, ["durations"])
    assert [(each.kind, each.entry_json) for each in request.permissions] == [("file_read", READ), ("network", NET)]
    assert request.limits == common_pb2.Limits(wall_ms=2000)
    days = (request.not_after_unix_ms - before_ms) / (24 * 60 * 60 * 1000)
    assert 3 <= days < 3.01
    assert "not approved, so that" not in done.err


def test_json_of_a_permission_may_be_written_in_any_order(daemon, demo):
    entry = json.dumps(dict(reversed(json.loads(NET).items())), indent=1)
    plugindctl("approve", "demo@1.0.0", "--stage", "wbs", "--permission", f"network:{entry}", "--reason", "r")
    assert [each.entry_json for each in daemon.last("ApproveRequest").permissions] == [NET]


def test_what_is_left_out_is_told(daemon, demo):
    done = plugindctl("approve", "demo@1.0.0", "--stage", "wbs", "--permission", "file_read", "--reason", "r")
    assert f"declared and not approved, so that its runs are denied: network {NET}" in done.err.splitlines()


def test_without_naming_anything_it_shows_what_there_is_and_approves_nothing(daemon, demo):
    demo.widens.append("permissions: network is new")
    done = plugindctl("approve", "demo@1.0.0")
    text = " ".join(done.err.split())
    assert (done.code, sent(daemon, "ApproveRequest")) == (2, [])
    for part in (
        "a" * 64,
        "stages durations, wbs",
        f"file_read wbs_*.json; network {NET}",
        "wall_ms 2000",
        "evidence Tier 2",
        "widens permissions: network is new",
        "all of it: `plugindctl approve demo@1.0.0 --as-declared --reason TEXT`",
    ):
        assert part in text


@pytest.mark.parametrize(
    "arguments,said",
    [
        (("--as-declared", "--stage", "wbs"), "--as-declared is everything"),
        (("--as-declared", "--permission", "network"), "--as-declared is everything"),
        (("--permission", "network"), "--stage"),
        (("--stage", "wbs", "--permission", "file_write"), "expected one that it declares"),
        (("--stage", "wbs", "--permission", 'file_read:{"path": "*"}'), "expected one that it declares"),
        (("--stage", "wbs", "--permission", "file_read:{"), "expected KIND:JSON"),
        (("--as-declared", "--tier", "3"), "--tier"),
        (("--as-declared", "--expires", "0"), "--expires"),
    ],
)
def test_what_cannot_be_approved_is_a_wrong_usage(daemon, demo, arguments, said):
    done = plugindctl("approve", "demo@1.0.0", "--reason", "r", *arguments)
    assert (done.code, sent(daemon, "ApproveRequest")) == (2, [])
    assert said in done.err


def test_first_of_two_approvers_learns_that_another_is_needed(daemon, demo):
    daemon.approvers = 2
    arguments = ("approve", "demo@1.0.0", "--as-declared", "--reason", "r")
    assert "your approval is recorded; it is submitted until another approver" in plugindctl(*arguments).err
    assert "approved; next:" in plugindctl(*arguments).err


def test_version_that_is_active_stays_so_with_its_new_approval(daemon, demo):
    demo.state = "active"
    done = plugindctl("approve", "demo@1.0.0", "--as-declared", "--reason", "r")
    assert done.err.splitlines()[-1] == "demo@1.0.0: approved"


def test_refusal_of_the_daemon_is_told(daemon, demo):
    demo.tier = 1
    done = plugindctl("approve", "demo@1.0.0", "--as-declared", "--tier", "0", "--reason", "r")
    assert (done.code, done.err.splitlines()[-1]) == (3, "  the evidence gives tier 1")


def test_version_that_is_not_there(daemon, demo):
    done = plugindctl("approve", "demo@9.9.9", "--as-declared", "--reason", "r", "--json")
    assert (done.code, done.json["error"]["code"]) == (3, "NOT_FOUND")
    assert "(1.0.0), got 9.9.9" in done.json["error"]["message"]


@pytest.mark.parametrize("answer,code,requests", [("", 2, 0), ("y", 0, 1)])
def test_on_a_terminal_it_asks_first(daemon, demo, answer, code, requests):
    question = "Approve demo@1.0.0 as declared? [y/N] "
    ended, screen = plugindctl_terminal(
        "approve", "demo@1.0.0", "--as-declared", "--reason", "r", typed=[(question, answer)]
    )
    assert (ended, len(sent(daemon, "ApproveRequest"))) == (code, requests)
    assert "network" in screen.partition(question)[0]


def test_yes_is_an_answer_in_advance(daemon, demo):
    code, screen = plugindctl_terminal("approve", "demo@1.0.0", "--as-declared", "--reason", "r", "--yes", "--json")
    assert (code, "[y/N]" in screen, len(sent(daemon, "ApproveRequest"))) == (0, False, 1)


# --- reject, activate, rollback ------------------------------------------------------------------------------------


def test_version_is_activated_rolled_back_and_rejected(daemon, demo):
    plugindctl("approve", "demo@1.0.0", "--stage", "wbs", "--reason", "r")
    done = plugindctl("activate", "demo@1.0.0", "--reason", "release")
    assert (done.code, done.err) == (0, "demo@1.0.0: active; run it with `plugindctl run demo --stage wbs`\n")
    assert daemon.last("ActivateRequest").reason == "release"
    demo.state = "retired"
    assert plugindctl("rollback", "demo", "--reason", "slow").err == "demo: 1.0.0 is active again\n"
    assert (daemon.last("RollbackRequest").version, daemon.last("RollbackRequest").reason) == ("", "slow")
    done = plugindctl("reject", "demo@1.0.0", "--reason", "wrong")
    assert (done.code, done.err) == (0, "demo@1.0.0: rejected; it is submitted\n")


def test_rollback_to_a_version(daemon, demo):
    demo.state = "retired"
    assert plugindctl("rollback", "demo@1.0.0", "--reason", "r", "--json").json["state"] == "active"
    assert daemon.last("RollbackRequest").version == "1.0.0"


def test_version_that_is_held_is_told_not_to_run(daemon, demo):
    demo.approval.reason = "r"
    demo.holds.add(kind="killed", target="demo", reason="wrong sums")
    done = plugindctl("activate", "demo@1.0.0")
    assert done.err.splitlines()[-1] == "it does not run: killed (demo): wrong sums"


@pytest.mark.parametrize("command", ["approve", "reject", "activate", "rollback", "suspend", "resume", "kill"])
@pytest.mark.parametrize("plugin", ["demo@", "@1.0.0"])
def test_half_a_version_is_a_wrong_usage_and_changes_nothing(daemon, demo, command, plugin):
    daemon.refusal = (grpc.StatusCode.INVALID_ARGUMENT, "target", [])  # of a hold, that is for the daemon
    reason = () if command == "activate" else ("--reason", "r")
    assert plugindctl(command, plugin, *reason).code == 2


@pytest.mark.parametrize("command", ["approve", "reject", "rollback", "suspend", "resume", "kill"])
@pytest.mark.parametrize("reason", [(), ("--reason", ""), ("--reason", " ")])
def test_reason_is_required(daemon, demo, command, reason):
    arguments = ("--as-declared",) if command == "approve" else ()
    done = plugindctl(command, "demo@1.0.0", *arguments, *reason)
    assert (done.code, daemon.requests, done.err) == (2, [], "plugindctl: expected why: --reason TEXT\n")


def test_on_a_terminal_the_reason_is_asked_for(daemon, demo):
    code, _ = plugindctl_terminal("reject", "demo@1.0.0", typed=[("Why? ", "sums wrongly")])
    assert (code, daemon.last("RejectRequest").reason) == (0, "sums wrongly")


# --- history -------------------------------------------------------------------------------------------------------


@pytest.fixture
def changes(daemon, demo):
    daemon.changes += [
        registry_pb2.Change(
            revision=1, plugin="demo", version="1.0.0", action="submit", state="submitted", by_uid=0, at_unix_ms=60_000
        ),
        registry_pb2.Change(
            revision=2,
            action="kill",
            by_uid=4_000_001,
            at_unix_ms=120_000,
            why="inci\x1bdent",
            detail_json='{"target": "all"}',
        ),
        registry_pb2.Change(revision=3, action="kill", digest="f" * 64, by_uid=0, detail_json="{"),
    ]


def test_history_says_when_who_what_and_why(daemon, changes):
    done = plugindctl("history")
    rows = [[cell.strip() for cell in line.split("  ") if cell.strip()] for line in done.out.splitlines()]
    assert rows == [
        ["when", "who", "what", "version", "why"],
        ["1970-01-01 00:01 UTC", "0 (root)", "submit", "demo 1.0.0", "-"],
        ["1970-01-01 00:02 UTC", "4000001", "kill", "all", r"inci\u001bdent"],
        ["1970-01-01 00:00 UTC", "0 (root)", "kill", "f" * 64, "-"],
    ]


def test_history_of_one_plugin_and_as_json(daemon, changes):
    (change,) = plugindctl("history", "plug_1", "--json").json
    assert (change["action"], change["plugin"], change["detail"]) == ("submit", "demo", None)
    assert [each["detail"] for each in plugindctl("history", "--json").json] == [None, {"target": "all"}, None]
    assert plugindctl("history", "nothing").code == 3


def test_history_of_nothing_says_so(daemon):
    assert plugindctl("history").err == "nothing was decided yet\n"
