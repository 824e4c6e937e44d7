"""run and try with a plan: --plan-dir, --send, --learn, and what comes back into the folder."""

import json

import pytest

from plugind_client.cli import learned
from plugind_client.planfiles import digest
from plugind_client.planrecords import Opening
from plugind_proto.v1 import common_pb2, registry_pb2, runtime_pb2
from tests.support.fake_daemon import FakeDaemon, allowed, denied, ended, plugindctl
from tests.support.fake_files import written
from tests.unit.test_cli_run import KEYS

OF_A_FILE = ["path", "sha256", "bytes", "replaced_sha256", "replaced_bytes"]


@pytest.fixture
def plan(tmp_path):
    folder = tmp_path / "plan"
    folder.mkdir()
    for name in ("wbs_1.json", "wbs_2.json", "notes.txt", "cost.json"):
        (folder / name).write_text(name)
    return folder


def version(plugin, number, reads, writes, *, approved=True):
    made = plugin.versions.add(version=number, state="active", tier=2)
    for kind, paths in (("file_read", reads), ("file_write", writes)):
        for path in paths:
            made.permissions.add(kind=kind, entry_json=json.dumps({"path": path}))
    if approved:
        made.approval.permissions.extend(made.permissions)


@pytest.fixture
def daemon(tmp_path, monkeypatch, plan):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.chdir(tmp_path)
    with FakeDaemon(str(tmp_path / "d.sock")) as daemon:
        monkeypatch.setenv("PLUGIND_SOCKET", daemon.socket)
        plugin = registry_pb2.Plugin(plugin_id="plug_1", name="costs", active_version="1.0.0")
        version(plugin, "1.0.0", ["wbs_*.json"], ["cost.json", "sub/*"])
        version(plugin, "2.0.0", ["*.txt"], [], approved=False)
        daemon.plugins["costs"] = plugin
        daemon.answers["costs"] = allowed(b"5")
        yield daemon


def sends(daemon, contents):
    daemon.answers["costs"], daemon.sends["costs"] = allowed(b"5", files=written(contents)), contents


def tree(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# --- run -----------------------------------------------------------------------------------------------------------


def test_folder_goes_along_absolute_and_what_was_written_is_told(daemon, plan):
    file = runtime_pb2.WrittenFile(path="cost.json", sha256="ab", bytes=3, replaced_sha256="cd", replaced_bytes=2048)
    daemon.answers["costs"] = allowed(b"5", files=[file, *written({"sub/x": b""})])
    done = plugindctl("run", "costs", "--plan-dir", "plan", "--plan", "p1")
    assert (done.code, done.out) == (0, "5\n")
    sent = daemon.last("RunRequest")
    assert (sent.plan_dir, sent.plan_id, sent.learn) == (str(plan), "p1", False)
    lines = [line.split() for line in done.err.splitlines()]
    assert ["written", "size", "sha256", "replaced"] in lines
    assert ["cost.json", "3", "B", "ab", "2.0", "KiB,", "sha256", "cd"] in lines
    assert ["sub/x", "0", "B", digest(b""), "nothing"] in lines
    told = plugindctl("run", "costs", "--plan-dir", "plan", "--json").json
    assert list(told) == [*KEYS, "files"]
    assert [list(each) for each in told["files"]] == [OF_A_FILE, OF_A_FILE]
    assert list(plugindctl("run", "echo", "--plan-dir", "plan", "--json").json) == KEYS


@pytest.mark.parametrize(
    "arguments,said",
    [
        (("--plan-dir", "none"), "--plan-dir: expected the plan's folder, got no such folder: none"),
        (("--plan-dir", "plan/wbs_1.json"), "expected the plan's folder, got something else: plan/wbs_1.json"),
        (("--send",), "--send: expected --plan-dir DIR, whose files are sent"),
    ],
)
@pytest.mark.parametrize("command", ["run", "try"])
def test_what_is_no_folder_is_told_before_anything_is_sent(daemon, command, arguments, said):
    plugindctl("new", "demo")
    done = plugindctl(command, "demo", *arguments)
    assert (done.code, done.out, said in done.err) == (2, "", True), done.err
    assert daemon.requests == []


def test_send_sends_what_was_approved_and_puts_back_what_comes(daemon, plan):
    sends(daemon, {"cost.json": b"new", "sub/x": b"1"})
    before = tree(plan)
    done = plugindctl("run", "costs", "--plan-dir", plan, "--send", "--json")
    assert done.code == 0, done.err
    assert daemon.received == [{name: name.encode() for name in ("wbs_1.json", "wbs_2.json")}]
    assert daemon.last("RunRequest").plan_dir == ""
    assert tree(plan) == before | {"cost.json": b"new", "sub/x": b"1"}
    assert done.json["files"] == [
        dict(zip(OF_A_FILE, ("cost.json", digest(b"new"), 3, digest(b"cost.json"), 9), strict=True)),
        dict(zip(OF_A_FILE, ("sub/x", digest(b"1"), 1, "", 0), strict=True)),
    ]


def test_send_goes_by_the_version_that_is_named_and_by_what_it_asks_for_without_approval(daemon, plan):
    plugindctl("run", "costs@2.0.0", "--plan-dir", plan, "--send")
    assert daemon.received == [{"notes.txt": b"notes.txt"}]


@pytest.mark.parametrize("plugin", ["none", "costs@9.9.9"])
def test_send_of_what_is_not_known_is_the_daemons_denial(daemon, plan, plugin):
    daemon.answers["costs"] = denied("PLUGIN_NOT_FOUND")
    assert plugindctl("run", plugin, "--plan-dir", plan, "--send").code == 3
    assert daemon.received == [{}]


def test_send_refuses_a_link_by_name(daemon, plan):
    (plan / "wbs_3.json").symlink_to("/etc/passwd")
    done = plugindctl("run", "costs", "--plan-dir", plan, "--send")
    assert (done.code, "wbs_3.json: expected a regular file with one name, got a link" in done.err) == (2, True)
    assert daemon.received == []


@pytest.mark.parametrize("answer,code", [(ended("failed", "raised"), 1), (denied("BUSY"), 3), (ended("timeout"), 4)])
def test_run_that_does_not_end_well_puts_nothing(daemon, plan, answer, code):
    daemon.answers["costs"] = answer
    before = tree(plan)
    assert plugindctl("run", "costs", "--plan-dir", plan, "--send").code == code
    assert tree(plan) == before


def test_file_that_changed_while_it_ran_is_not_replaced_and_the_record_is_named(daemon, plan):
    def answer(request, context):
        (plan / "cost.json").write_text("somebody else's")
        return allowed(b"5", files=written({"sub/x": b"1", "cost.json": b"new"}))

    sends(daemon, {"sub/x": b"1", "cost.json": b"new"})
    daemon.answers["costs"] = answer
    done = plugindctl("run", "costs", "--plan-dir", plan, "--send")
    assert (done.code, done.out) == (3, "")
    assert "cost.json: expected what was there before the run" in done.err
    assert f"the run went well (log_7), and nothing was written into {plan}" in done.err
    assert (plan / "cost.json").read_text() == "somebody else's"
    assert not (plan / "sub").exists()


def test_link_in_the_place_of_an_output_is_refused(daemon, plan, tmp_path):
    sends(daemon, {"cost.json": b"new", "sub/x": b"1"})
    (plan / "sub").symlink_to(tmp_path)
    before = tree(plan)
    assert plugindctl("run", "costs", "--plan-dir", plan, "--send").code == 3
    assert tree(plan) == before
    assert not (tmp_path / "x").exists()


def test_file_that_nobody_permitted_does_not_come_in(daemon, plan):
    sends(daemon, {"wbs_1.json": b"new"})
    done = plugindctl("run", "costs", "--plan-dir", plan, "--send")
    assert (done.code, "wbs_1.json: expected what a pattern of file_write means" in done.err) == (6, True)
    assert (plan / "wbs_1.json").read_text() == "wbs_1.json"


def test_violation_by_files_has_a_remedy_of_its_own(daemon, plan):
    found = common_pb2.Violation(kind="file", name="x", count=1)
    daemon.answers["costs"] = ended("violation", "x", violations=[found])
    done = plugindctl("run", "costs", "--plan-dir", plan)
    assert "  what to do: write only regular files that a [[permissions.file_write]] means" in done.err


# --- try -----------------------------------------------------------------------------------------------------------

OPENED = [
    ("wbs_1.json", "read", "plan", True),
    ("wbs_1.json", "read", "plan", True),
    ("none.json", "read", "plan", False),
    ("wbs_1.json", "write", "plan", True),
    ("odd [1]*?.json", "read", "plan", True),
    ("cost.json", "write", "output", False),
    ("cost.json", "read", "output", True),
    ("/etc/passwd", "read", "elsewhere", True),
    (".plugind-x", "write", "output", False),
]
TOML = """\
[[permissions.file_read]]
path = "odd [[]1][*][?].json"

[[permissions.file_read]]
path = "wbs_1.json"

[[permissions.file_write]]
path = "cost.json"
"""


def test_toml_means_just_what_was_opened():
    import tomllib

    from plugind import planfiles

    text = learned.toml([Opening(*each) for each in OPENED])
    assert text == TOML
    read = [each["path"] for each in tomllib.loads(text)["permissions"]["file_read"]]
    assert planfiles.matches("odd [1]*?.json", read)
    assert not planfiles.matches("odd 1xx.json", read)
    assert learned.toml([]) == ""


@pytest.fixture
def demo(daemon):
    assert plugindctl("new", "demo").code == 0
    fields = ("path", "mode", "place", "found")
    opened = [runtime_pb2.Opening(**dict(zip(fields, each, strict=True))) for each in OPENED]
    output = {"tasks": 2, "total_days": 42.5, "longest_days": 30.5}
    daemon.answers["demo"] = allowed(json.dumps(output).encode(), opened=opened)
    return daemon


def test_try_takes_a_plan_and_sends_it(demo, plan):
    assert plugindctl("try", "demo", "--plan-dir", "plan").code == 0
    assert (demo.last("RunRequest").plan_dir, demo.last("RunRequest").learn) == (str(plan), False)
    assert plugindctl("try", "demo", "--plan-dir", "plan", "--send").code == 0
    assert demo.received == [{}]


def test_learn_prints_what_was_opened_and_what_to_paste(demo, plan):
    done = plugindctl("try", "demo", "--plan-dir", "plan", "--learn")
    assert (done.code, json.loads(done.out)["tasks"]) == (0, 2)
    assert (demo.last("RunRequest").plan_dir, demo.last("RunRequest").learn) == (str(plan), True)
    lines = [" ".join(line.split()) for line in done.err.splitlines()]
    assert "tried to open to in there what allows it" in lines
    for row in (
        "wbs_1.json read plan yes file_read",
        "none.json read plan no nothing: there is no such file",
        "cost.json write output no file_write",
        "cost.json read output yes nothing: it is its own",
        "/etc/passwd read elsewhere yes not possible: no permission gives that; plan files are at context.plan_dir",
        ".plugind-x write output no not possible: no pattern means such a name",
    ):
        assert row in lines
    assert TOML in done.err


def test_learn_as_json_gives_both(demo):
    told = plugindctl("try", "demo", "--plan-dir", "plan", "--learn", "--json").json
    assert list(told) == [*KEYS, "opened", "permissions_toml"]
    assert told["permissions_toml"] == TOML
    assert told["opened"][0] == {"path": "wbs_1.json", "mode": "read", "place": "plan", "found": True}


def test_learn_of_one_that_opened_nothing_says_so(demo):
    demo.answers["demo"] = allowed(demo.answers["demo"].output_json)
    done = plugindctl("try", "demo", "--plan-dir", "plan", "--learn")
    assert "it tried to open no file" in done.err


@pytest.mark.parametrize("arguments", [("--learn",), ("--learn", "--plan-dir", "plan", "--send")])
def test_learn_needs_a_plan_that_the_daemon_opens(demo, arguments):
    done = plugindctl("try", "demo", *arguments)
    assert (done.code, demo.requests) == (2, [])
    assert "--learn: expected --plan-dir DIR without --send" in done.err


def test_learn_is_for_python(demo):
    assert plugindctl("new", "prog", "--runtime", "exec").code == 0
    done = plugindctl("try", "prog", "--plan-dir", "plan", "--learn")
    assert (done.code, demo.requests) == (2, [])
    assert "--learn: expected a plugin whose runtime is python, got exec" in done.err


def test_daemon_that_does_not_learn_says_so_itself(demo):
    def refuse(request, context):
        import grpc

        context.abort(grpc.StatusCode.INVALID_ARGUMENT, "learn: expected a development daemon")

    demo.answers["demo"] = refuse
    done = plugindctl("try", "demo", "--plan-dir", "plan", "--learn")
    assert (done.code, "learn: expected a development daemon" in done.err) == (2, True)
