"""Restore and Impact over a real socket, and `plugindctl audit restore` and `impact`."""

import contextlib
import os
from pathlib import Path

import pytest

from plugind.api.roles import DevAdmission
from plugind.plans.impact import impact
from plugind_client.client import Client
from plugind_client.errors import InvalidRequest, NotFound
from plugind_client.testing import FakeClient
from plugind_proto.v1 import audit_pb2
from tests.support.audit_daemon import AuditDaemon
from tests.support.fake_daemon import plugindctl, plugindctl_terminal
from tests.support.plan_runs import PLAN

HOSTILE = "\x1b[2Jplugindctl: ok\u202e"


async def fill(daemon):
    plans = daemon.plans
    plans.write("a.txt", b"old\n")
    first = await plans.run({"a.txt": b"one\ntwo\n", "more/b.txt": b"b"}, reads=["a.txt"])
    second = await plans.run({"c.txt": b"c"}, version="2.0.0")
    plans.folders.plans["/plans/b"] = {}
    third = await plans.run({"a.txt": b"a"}, plan_dir="/plans/b")
    daemon.runs = [f"log_{index}" for index in (first, second, third)]


def lines(text):
    return [line.rstrip() for line in text.splitlines()]


@pytest.fixture
def daemon(tmp_path, monkeypatch):
    with contextlib.ExitStack() as stack:
        daemon = AuditDaemon(tmp_path, DevAdmission(os.getuid()), fill)
        stack.callback(daemon.close)
        monkeypatch.setenv("PLUGIND_SOCKET", daemon.socket)
        monkeypatch.setenv("PLUGIND_ADMIN_SOCKET", daemon.socket)
        yield daemon


@pytest.fixture
def audit(daemon):
    with Client(daemon.socket) as client:
        yield client.audit


# --- the calls --------------------------------------------------------------------------------------------------------


def test_restore_of_a_run_says_everything_of_it(audit, daemon):
    run = daemon.runs[0]
    (would,) = audit.restore(run, dry_run=True)
    assert (would.state, would.audit_log) == ("would_restore", "")
    (done,) = audit.restore(run, "the totals are wrong")
    assert (done.log_id, done.label, done.plan_id, done.plan_dir) == (run, "demo@1.0.0", "a", PLAN)
    assert (done.state, done.detail, [file.path for file in done.files]) == ("restored", "", ["a.txt", "more/b.txt"])
    record = audit.get(done.audit_log).record
    assert (record.event, record.fields["by_uid"], record.fields["why"]) == (
        "RESTORE",
        os.getuid(),
        "the totals are wrong",
    )
    assert daemon.plans.contents() == {"a.txt": b"old\n", "c.txt": b"c"}
    (again,) = audit.restore(done.audit_log, "it was right")
    assert (again.log_id, again.state) == (done.audit_log, "restored")
    assert daemon.plans.contents()["a.txt"] == b"one\ntwo\n"


def test_restore_of_a_version_leaves_other_versions_alone(audit, daemon):
    done = audit.restore_all("demo", "1.0.0", since_unix_ms=1, reason="broken")
    assert [(each.log_id, each.state) for each in done] == [
        (run, "restored") for run in (daemon.runs[2], daemon.runs[0])
    ]
    assert [each.log_id for each in audit.restore_all("plug_demo", since_unix_ms=1, reason="all")] == [daemon.runs[1]]
    assert audit.restore_all("demo", since_unix_ms=1, reason="all") == ()


@pytest.mark.parametrize(
    "fields,detail",
    [
        ({"reason": "x"}, "log_id: expected one of log_id and plugin"),
        ({"reason": "x", "log_id": "log_1", "plugin": "demo"}, "log_id: expected one of log_id and plugin"),
        ({"log_id": "log_1"}, "reason: expected why, in 1 to 500"),
        ({"log_id": "log_1", "reason": "a\nb"}, "reason: expected why"),
        ({"log_id": "1", "reason": "x"}, "log_id: expected an id like log_4001"),
        ({"log_id": "log_1", "reason": "x", "version": "1.0.0"}, "version, since: expected them with plugin only"),
        ({"plugin": "demo", "reason": "x"}, "since: expected a time"),
        ({"plugin": "No Such", "reason": "x", "since_unix_ms": 1}, "plugin: expected"),
        ({"log_id": "log_0", "reason": "x"}, "log_0: expected a record of a run"),
    ],
)
def test_what_is_not_clear_is_refused(daemon, audit, fields, detail):
    with pytest.raises(InvalidRequest) as raised:
        _raw(audit, fields)
    assert raised.value.detail.startswith(detail)


def _raw(audit, fields):
    from plugind_client.channel import call

    return call(audit._connection().audit.Restore, audit_pb2.RestoreRequest(**fields), 10)


def test_a_record_that_is_not_there(audit):
    with pytest.raises(NotFound):
        audit.restore("log_999", "x")


# --- impact -----------------------------------------------------------------------------------------------------------


def test_impact_tells_plans_versions_and_what_became_of_each_file(audit, daemon):
    plans = daemon.plans
    daemon.do(plans.run({}, plan_dir="", sent=True))
    daemon.do(plans.run({"x.txt": b"sent"}, sent=True, plan_dir=""))
    daemon.do(plans.run({"u.txt": b"u"}, outcome="canceled"))
    daemon.do(plans.run({}, reads=["c.txt"], version="3.0.0"))
    daemon.do(plans.run({"z.txt": b"z"}, plugin="another"))
    audit.restore(daemon.runs[0], "why")
    found = audit.impact("demo")
    assert (found.runs, found.plans_left_out) == (7, 0)
    assert [(plan.plan_id, plan.plan_dir, plan.runs) for plan in found.plans] == [
        ("a", PLAN, 4), ("none", "", 2), ("b", "/plans/b", 1),
    ]  # fmt: skip
    files = {(plan.plan_dir, file.path): (file.state, file.log_id) for plan in found.plans for file in plan.files}
    first, second, third = daemon.runs
    undone = files.pop((PLAN, "u.txt"))
    assert undone[0] == "undone"
    assert files.pop(("", "x.txt"))[0] == "sent"
    assert files == {
        (PLAN, "a.txt"): ("restored", first),
        (PLAN, "more/b.txt"): ("restored", first),
        (PLAN, "c.txt"): ("written", second),
        ("/plans/b", "a.txt"): ("written", third),
    }
    assert found.plans[0].versions == ("1.0.0", "2.0.0", "3.0.0")
    of_one = audit.impact("demo", "2.0.0")
    assert [(file.path, file.state) for plan in of_one.plans for file in plan.files] == [("c.txt", "written")]
    assert audit.impact("demo", since_unix_ms=2**50).plans == ()


def test_what_was_only_read_is_read(audit, daemon):
    daemon.plans.write("r.txt", b"r")
    daemon.do(daemon.plans.run({}, reads=["r.txt"], plugin="reader"))
    (plan,) = audit.impact("reader").plans
    assert [(file.path, file.state, file.log_id, file.bytes) for file in plan.files] == [("r.txt", "read", "", 1)]


def test_a_file_that_another_run_has_written_before_is_written_when_the_newer_is_undone(audit, daemon):
    newer = daemon.do(daemon.plans.run({"c.txt": b"newer"}))
    audit.restore(f"log_{newer}", "why")
    files = {file.path: file for plan in audit.impact("demo").plans if plan.plan_dir == PLAN for file in plan.files}
    assert (files["c.txt"].state, files["c.txt"].log_id, files["c.txt"].bytes) == ("written", daemon.runs[1], 1)


def test_impact_is_bounded_and_says_so(audit, daemon, monkeypatch):
    monkeypatch.setattr("plugind.plans.impact.MOST_PLANS", 1)
    monkeypatch.setattr("plugind.plans.impact.MOST_FILES", 2)
    daemon.plans.write("x", b"x")
    daemon.do(daemon.plans.run({}, reads=["x"]))
    found = impact(daemon.directory, "demo", "", 0)
    assert (len(found.plans), found.plans_left_out, found.runs) == (1, 1, 4)
    assert (len(found.plans[0].files), found.plans[0].files_left_out) == (2, 2)
    shown = plugindctl("audit", "impact", "demo").err
    assert shown == "a: 2 more files are not shown\n1 older plans are not shown; ask for those --since a later time\n"


# --- plugindctl audit restore -----------------------------------------------------------------------------------------


def test_restore_tells_a_person_what_was_put_back_and_how_to_undo_it(daemon):
    run = daemon.runs[0]
    dry = plugindctl("audit", "restore", run, "--dry-run")
    assert (dry.code, dry.err, "would restore" in dry.out) == (0, "", True)
    assert "would be put back" in dry.out
    assert "would be removed, as it was not there before" in dry.out
    done = plugindctl("audit", "restore", run, "--reason", "wrong")
    assert done.code == 0
    head, first, _, _, a, b = lines(done.out)
    assert head.split() == ["run", "plugin", "plan", "folder", "what", "record"]
    record = first.split()[-1]
    assert first.split() == [run, "demo@1.0.0", "a", PLAN, "restored", record]
    assert a.split(None, 2) == [run, "a.txt", "put back"]
    assert b.split(None, 2) == [run, "more/b.txt", "removed, as it was not there before"]
    assert done.err == f"`plugindctl audit restore {record} --reason TEXT` undoes this again\n"
    again = plugindctl("audit", "restore", run, "--reason", "wrong")
    assert (again.code, again.err) == (
        0,
        f"{run}: {record} has undone it already; to undo that, restore {record}\n",
    )


def test_a_conflict_is_shown_with_its_difference_and_ends_with_7(daemon):
    run = daemon.runs[0]
    daemon.plans.write("a.txt", b"one\n2" + HOSTILE.encode() + b"\n")
    done = plugindctl("audit", "restore", run, "--reason", "wrong")
    assert done.code == 7
    assert f"{run}  a.txt       was changed since" in lines(done.out)
    assert f"{run}  more/b.txt  is as the run left it" in lines(done.out)
    assert done.out.splitlines()[-6:] == [
        f"--- a.txt ({run})", "+++ a.txt (now)", "@@ -1,2 +1,2 @@", " one", "-two",
        "+2\\u001b[2Jplugindctl: ok\\u202e",
    ]  # fmt: skip
    assert done.err.splitlines() == [
        f"{run}: what the run put there was changed since; with force it is kept beside what comes back",
        "--force puts back all the same, and keeps what is there now beside it",
    ]
    forced = plugindctl("audit", "restore", run, "--force", "--reason", "wrong")
    assert (forced.code, f"put back; what was there is kept as a.txt.plugind-kept-{run}" in forced.out) == (0, True)


def test_what_is_no_file_any_more_is_named_and_not_forced(daemon):
    daemon.plans.write("c.txt", b"", problem="symlink")
    done = plugindctl("audit", "restore", daemon.runs[1], "--force", "--reason", "wrong")
    assert (done.code, f"{daemon.runs[1]}  c.txt  is a symlink now" in lines(done.out)) == (7, True)
    assert done.err == f"{daemon.runs[1]}: c.txt: there is a symlink now\n"


def test_what_failed_ends_with_6(daemon):
    daemon.plans.folders.known.clear()
    done = plugindctl("audit", "restore", daemon.runs[0], "--reason", "wrong")
    assert (done.code, "expected somebody who has written to /plans/a before" in done.err) == (6, True)


def test_restore_as_json(daemon):
    daemon.plans.write("c.txt", b"mine")
    done = plugindctl("audit", "restore", "--plugin", "demo", "--since", "1h", "--reason", "wrong", "--json")
    assert (done.code, done.json["ok"]) == (7, False)
    assert [(run["log_id"], run["state"]) for run in done.json["runs"]] == [
        (daemon.runs[2], "restored"), (daemon.runs[1], "conflict"), (daemon.runs[0], "restored"),
    ]  # fmt: skip
    assert done.json["runs"][1]["files"][0]["difference"].endswith("+mine\n\\ No newline at end of file\n")


def test_restore_of_a_version_since(daemon):
    done = plugindctl("audit", "restore", "--plugin", "demo@2.0.0", "--since", "1h", "--reason", "wrong")
    assert (done.code, done.out.splitlines()[1].split()[:2]) == (0, [daemon.runs[1], "demo@2.0.0"])
    done = plugindctl("audit", "restore", "--plugin", "demo@2.0.0", "--since", "1h", "--reason", "wrong")
    assert (done.code, done.out, done.err) == (0, "", "there is nothing to undo\n")


@pytest.mark.parametrize(
    "arguments,said",
    [
        (["--reason", "x"], "expected log_N, or --plugin"),
        (["log_1", "--plugin", "demo", "--since", "1h", "--reason", "x"], "expected log_N, or --plugin"),
        (["--plugin", "demo", "--reason", "x"], "expected --since WHEN with --plugin"),
        (["log_1", "--since", "1h", "--reason", "x"], "expected --since WHEN with --plugin"),
        (["--plugin", "demo", "--since", "soon", "--reason", "x"], "--since: expected 10m"),
        (["log_1"], "expected why: --reason TEXT"),
    ],
)
def test_what_is_not_clear_is_asked_for(daemon, arguments, said):
    done = plugindctl("audit", "restore", *arguments)
    assert (done.code, said in done.err) == (2, True)


def test_no_such_record_ends_with_3_and_no_daemon_with_5(daemon, tmp_path):
    assert plugindctl("audit", "restore", "log_999", "--reason", "x").code == 3
    nobody = ("--admin-socket", tmp_path / "nobody.sock")
    assert plugindctl("audit", "restore", "log_1", "--reason", "x", *nobody).code == 5
    assert plugindctl("audit", "impact", "demo", *nobody).code == 5


def test_a_terminal_is_not_steered(daemon):
    daemon.plans.write("a.txt", HOSTILE.encode())
    code, screen = plugindctl_terminal("audit", "restore", daemon.runs[0], "--reason", "wrong")
    assert (code, "\x1b[2J" in screen, "\u202e" in screen) == (7, False, False)


# --- plugindctl audit impact, list and show ---------------------------------------------------------------------------


def test_impact_is_two_tables_or_json(daemon):
    done = plugindctl("audit", "impact", "demo@1.0.0")
    assert (done.code, done.err) == (0, "")
    rows = [line.split() for line in done.out.splitlines()]
    assert rows[0] == ["plan", "folder", "versions", "runs", "last"]
    assert [row[:4] for row in rows[1:3]] == [["b", "/plans/b", "1.0.0", "1"], ["a", PLAN, "1.0.0", "1"]]
    assert [row[:5] for row in rows[5:]] == [
        ["b", "a.txt", "written", daemon.runs[2], "1"],
        ["a", "a.txt", "written", daemon.runs[0], "8"],
        ["a", "more/b.txt", "written", daemon.runs[0], "1"],
    ]
    told = plugindctl("audit", "impact", "demo", "--json").json
    assert (told["runs"], [plan["plan_dir"] for plan in told["plans"]]) == (3, ["/plans/b", PLAN])
    assert plugindctl("audit", "impact", "nobody").err == "there are no such runs\n"


# --- the fake ---------------------------------------------------------------------------------------------------------


def test_the_fake_tells_what_was_touched_and_undoes_nothing(tmp_path):
    (tmp_path / "in.txt").write_text("in")

    def write(payload, context):
        (Path(context.output_dir) / "out.txt").write_text("out")

    fake = FakeClient({"demo": write})
    fake.permits("demo", read=["in.txt"], write=["out.txt"])
    fake.run("demo", {}, plan_dir=tmp_path, plan_id="p1")
    fake.run("demo", {}, files={"in.txt": b"sent"}, plan_id="p1")
    found = fake.audit.impact("demo")
    assert found.runs == 2
    told = {plan.plan_dir: {file.path: (file.state, file.log_id) for file in plan.files} for plan in found.plans}
    assert told == {
        str(tmp_path): {"in.txt": ("read", ""), "out.txt": ("written", "log_0")},
        "": {"in.txt": ("read", ""), "out.txt": ("sent", "log_3")},
    }
    assert fake.audit.impact("demo", "9.9.9").plans == ()
    with pytest.raises(InvalidRequest):
        fake.audit.restore("log_0", "why")
