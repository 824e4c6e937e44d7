"""incident list, show, open, close and drill: what a person reads, what a program gets, and what reaches no terminal."""

import json
import stat
import unicodedata

import grpc
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from plugind_client import AsyncClient, Client, Conflict
from plugind_client.testing import AsyncFakeClient, FakeClient
from plugind_proto.v1 import monitor_pb2
from tests.support.fake_daemon import FakeDaemon, plugindctl, plugindctl_terminal

STEPS = ("submitted", "started", "detected", "contained", "quarantined", "denied", "cleaned")
HOSTILE = "<script>\x1b[2J\u202egnp.exe\r\nplugindctl: ok"


@pytest.fixture
def daemon(tmp_path, monkeypatch):
    with FakeDaemon(str(tmp_path / "d.sock")) as daemon:
        monkeypatch.setenv("PLUGIND_SOCKET", daemon.socket)
        yield daemon


def case(number=1, **fields):
    given = {
        "id": f"incident_{number}", "state": "open", "severity": "high", "title": "demo@1.0.0: dangerous_syscall",
        "cause": "dangerous_syscall", "plugin_id": "plug_1", "plugin": "demo", "version": "1.0.0", "digest": "ab" * 32,
        "opened_by_uid": 2**32 - 1, "opened_unix_ms": 1_700_000_000_123, "plans": ["plan-1"],
    }  # fmt: skip
    made = monitor_pb2.IncidentCase(incident=monitor_pb2.Incident(**given | fields))
    made.timeline.add(
        at_unix_ms=1_700_000_000_000, kind="refused", text="r1: unshare × 1", audit_log="log_12", by_uid=7
    )
    made.anomalies.add(
        trigger="dangerous_syscall", hard=True, severity="high", at_unix_ms=1_700_000_000_000, expected="none",
        actual="unshare", numbers={"count": 1.0}, audit_log="log_12",
    )  # fmt: skip
    return made


# --- list, open, close -----------------------------------------------------------------------------------------------


def test_list_shows_the_open_ones_and_with_all_the_closed_ones_too(daemon):
    assert plugindctl("incident", "list").err == "no incident is open\n"
    assert plugindctl("incident", "list", "--all").err == "there are no incidents\n"
    daemon.cases = [case(1, state="closed"), case(2)]
    done = plugindctl("incident", "list")
    assert done.code == 0
    assert [line.split()[0] for line in done.out.splitlines()] == ["id", "incident_2"]
    assert [each["id"] for each in plugindctl("incident", "list", "--all", "--json").json] == [
        "incident_2",
        "incident_1",
    ]


def test_open_needs_a_title_and_a_severity_and_says_how_to_close_it(daemon):
    done = plugindctl("incident", "open", "sums are wrong")
    assert (done.code, "--severity" in done.err) == (2, True)
    done = plugindctl("incident", "open", "sums are wrong", "--severity", "high", "--about", "demo@1.0.0")
    assert (done.code, done.out) == (0, "")
    assert done.err == "incident_1 is open; `plugindctl incident close incident_1 --reason TEXT` closes it\n"
    sent = daemon.last("OpenIncidentRequest")
    assert (sent.title, sent.severity, sent.target) == ("sums are wrong", "high", "demo@1.0.0")
    assert plugindctl("incident", "open", "x", "--severity", "low", "--json").json["id"] == "incident_2"


def test_close_needs_a_reason_and_happens_once(daemon):
    daemon.cases = [case()]
    assert plugindctl("incident", "close", "incident_1").code == 2
    done = plugindctl("incident", "close", "incident_1", "--reason", "mended")
    assert (done.code, done.err) == (0, "incident_1 is closed: mended\n")
    assert plugindctl("incident", "close", "incident_1", "--reason", "again").code == 3
    assert plugindctl("incident", "close", "incident_9", "--reason", "x").code == 3
    assert daemon.last("CloseIncidentRequest").reason == "x"


# --- show ------------------------------------------------------------------------------------------------------------


def test_show_tells_head_timeline_and_anomalies(daemon):
    daemon.cases = [case(state="closed", closing="mended", closed_by_uid=0, closed_unix_ms=1_700_000_900_000)]
    done = plugindctl("incident", "show", "incident_1")
    assert done.code == 0
    for expected in (
        *("dangerous_syscall", "demo@1.0.0", "ab" * 32, "2023-11-14 22:28 UTC by uid 0 (root): mended", "plan-1"),
        *("2023-11-14 22:13:20.000", "r1: unshare × 1", "log_12", "count 1"),
    ):
        assert expected in done.out
    assert "plugindctl audit verify" in done.err


def test_show_as_json_is_one_object(daemon):
    daemon.cases = [case()]
    shown = plugindctl("incident", "show", "incident_1", "--json").json
    assert shown["incident"]["plans"] == ["plan-1"]
    assert shown["timeline"][0]["audit_log"] == "log_12"
    assert shown["anomalies"][0]["numbers"] == {"count": 1.0}


def test_the_page_is_written_whole_for_its_owner_alone_and_replaces_an_older_one(daemon, tmp_path):
    daemon.cases = [case()]
    path = tmp_path / "page.html"
    path.write_text("older")
    done = plugindctl("incident", "show", "incident_1", "--html", path)
    assert (done.code, done.out, done.err) == (0, "", f"incident_1 is in {path}\n")
    assert path.read_text().startswith("<!DOCTYPE html>")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [each.name for each in tmp_path.iterdir() if each.suffix == ".html"] == ["page.html"]
    both = plugindctl("incident", "show", "incident_1", "--html", path, "--json")
    assert both.json["incident"]["id"] == "incident_1"


def test_a_page_goes_through_a_link_and_not_into_a_folder(daemon, tmp_path):
    daemon.cases = [case()]
    target, link = tmp_path / "there", tmp_path / "link.html"
    target.write_text("")
    link.symlink_to(target)
    assert plugindctl("incident", "show", "incident_1", "--html", link).code == 0
    assert link.is_symlink()
    assert target.read_text().startswith("<!DOCTYPE html>")
    for path in (tmp_path, tmp_path / "no" / "page.html"):
        done = plugindctl("incident", "show", "incident_1", "--html", path)
        assert done.code == 2, done


def steering(text):
    return [c for c in text if c not in "\n\t" and unicodedata.category(c) in {"Cc", "Cf", "Cs", "Zl", "Zp"}]


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.one_of(st.text(st.characters(exclude_categories=["Cs"])), st.just(HOSTILE)))
def test_no_text_steers_a_terminal_or_breaks_a_line(daemon, text):
    hostile = case(title=text, closing=text, cause=text, plugin=text, plans=[text])
    hostile.timeline[0].text = hostile.timeline[0].kind = text
    hostile.anomalies[0].actual = hostile.anomalies[0].trigger = text
    daemon.cases = [hostile]
    for arguments in (("show", "incident_1"), ("list",), ("show", "incident_1", "--json")):
        done = plugindctl("incident", *arguments)
        assert done.code == 0
        assert steering(done.out + done.err) == []
    assert len(plugindctl("incident", "list").out.splitlines()) == 2
    assert plugindctl("incident", "show", "incident_1", "--json").json["incident"]["title"] == text


def test_on_a_terminal_escapes_are_shown_as_text(daemon):
    daemon.cases = [case(title=HOSTILE)]
    code, screen = plugindctl_terminal("incident", "list", columns=300)
    assert code == 0
    assert "script" in screen
    assert steering(screen) == []


# --- drill -----------------------------------------------------------------------------------------------------------


def steps(*failed, upto="cleaned"):
    names = STEPS[: STEPS.index(upto) + 1]
    return [
        monitor_pb2.DrillStep(step=name, ok=name not in failed, text=f"told {name}", after_us=1500) for name in names
    ]


def test_a_drill_that_holds_shows_each_step_and_its_time(daemon):
    daemon.steps = steps()
    done = plugindctl("drill", "--reason", "monthly")
    assert done.code == 0
    assert [line.split()[:4] for line in done.out.splitlines()[1:]] == [[name, "ok", "1.5", "ms"] for name in STEPS]
    assert done.err.splitlines()[-1] == "everything held, and nothing of the drill is left but its records"
    assert daemon.last("DrillRequest").reason == "monthly"
    plugindctl("drill")
    assert daemon.last("DrillRequest").reason == "a drill"


@pytest.mark.parametrize(
    "given,problems",
    [
        (steps("quarantined"), ["quarantined: told quarantined"]),
        (steps(upto="detected"), [f"{name}: not reached" for name in STEPS[3:]]),
        ([], [f"{name}: not reached" for name in STEPS]),
    ],
)
def test_a_step_that_does_not_hold_is_told_and_is_exit_code_7(daemon, given, problems):
    daemon.steps = given
    done = plugindctl("drill")
    assert (done.code, [line.strip() for line in done.err.splitlines()[-len(problems) :]]) == (7, problems)
    done = plugindctl("drill", "--json")
    assert (done.code, done.json["ok"], len(done.json["steps"])) == (7, False, len(given))


def test_who_may_not_is_told(daemon):
    daemon.refusal = (grpc.StatusCode.PERMISSION_DENIED, "Drill: expected role admin", [])
    assert plugindctl("drill").code == 3
    daemon.refusal = (grpc.StatusCode.FAILED_PRECONDITION, "drill: expected none under way, got one", [])
    done = plugindctl("drill", "--json")
    assert (done.code, done.json["error"]["code"]) == (3, "CONFLICT")


def test_without_a_daemon_it_is_exit_code_5(tmp_path, monkeypatch):
    monkeypatch.setenv("PLUGIND_SOCKET", str(tmp_path / "nobody.sock"))
    for arguments in (("drill",), ("incident", "list"), ("incident", "show", "incident_1")):
        assert plugindctl(*arguments).code == 5


# --- the clients -----------------------------------------------------------------------------------------------------


def test_both_clients_and_their_fakes_tell_the_same(daemon):
    daemon.steps = steps()
    with Client(daemon.socket) as client:
        assert [step.step for step in client.drill("x")] == list(STEPS)
        assert client.open_incident("t", "low", target="demo@1.0.0").label == "demo@1.0.0"
        assert client.close_incident("incident_1", "done").is_open is False
        with pytest.raises(Conflict):
            client.close_incident("incident_1", "done")
        assert (client.incidents(), len(client.incidents(closed=True))) == ([], 1)
    fake = FakeClient({"demo": 1})
    assert [step.step for step in fake.drill("x")] == list(STEPS)
    made = fake.open_incident("t", "low", target="demo")
    assert (made.label, made.plugin_id) == ("demo", "plug_1")
    assert fake.close_incident(made.id, "done").closing == "done"
    with pytest.raises(Conflict):
        fake.close_incident(made.id, "done")
    assert [each.kind for each in fake.incident(made.id).timeline] == ["opened", "closed"]
    assert [record.fields["action"] for record in fake.audit.query().records] == ["incident_close", "incident_open"]
    assert [call.method for call in fake.calls[:2]] == ["drill", "open_incident"]


async def test_the_asynchronous_ones_too(daemon):
    daemon.steps = steps()
    async with AsyncClient(daemon.socket) as client:
        assert [step.step async for step in client.drill("x")] == list(STEPS)
        assert (await client.open_incident("t", "low")).id == "incident_1"
        daemon.refusal = (grpc.StatusCode.FAILED_PRECONDITION, "one is under way", [])
        with pytest.raises(Conflict):
            _ = [step async for step in client.drill("x")]
    async with AsyncFakeClient() as fake:
        assert [step.step async for step in fake.drill("x")] == list(STEPS)
        assert json.dumps((await fake.incident((await fake.open_incident("t", "low")).id)).incident.title) == '"t"'
