"""The Audit service and `plugindctl audit`, over a real socket and a real ledger."""

import contextlib
import json
import os
import signal
import subprocess
import threading

import pytest

from plugind.api.roles import DevAdmission, RunAdmission
from plugind.audit import payloads, segments
from plugind.audit.records import Changed, Denied, Ended, Intent, Refused, Stopped, Subject
from plugind.model import Code, Limits, Reason
from plugind_client.cli.words import moment_ms
from plugind_client.client import Client
from plugind_client.errors import Fault, InvalidRequest, NotAllowed, NotFound
from tests.support.audit_daemon import AuditDaemon
from tests.support.fake_daemon import COMMAND, plugindctl

INPUT, OUTPUT = b'{"tasks": []}', b"\x1b[31m\xff"
EVENTS = ["START", "INTENT", "OUTCOME", "DENIED", "CHANGE", "REFUSED"]


def subject(stored, **fields):
    given = {
        "run": "r1", "caller_uid": 1000, "plugin_id": "plug_1", "plugin": "demo", "version": "1.2.0", "digest": "ab" * 32,
        "tier": 2, "stage": "durations", "plan_id": "plan-1", "sensitivity": "internal", "input": stored,
    }  # fmt: skip
    return Subject(**given | fields)


async def fill(daemon):
    ledger = daemon.ledger
    kept = subject(ledger.keep(INPUT))
    intent = await ledger.append(Intent(kept, ("network",), Limits(wall_ms=5000)))
    output = ledger.keep(OUTPUT)
    await ledger.append(Ended(intent, kept, "timeout", "too\nlate\x1b[2J", stdout=output))
    reason = Reason(Code.BUSY, "tier.2.instances", "8", "9", "wait")
    await ledger.append(Denied(subject(kept.input, plugin="other", plugin_id="plug_2"), (reason,)))
    await ledger.append(Changed("kill", "plug_1", "demo", "", "", 0, "it misbehaves"))
    await ledger.append(Refused("Approve", 1000, "approver"))


@pytest.fixture
def start(tmp_path, monkeypatch):
    with contextlib.ExitStack() as stack:

        def begin(admission):
            daemon = AuditDaemon(tmp_path, admission, fill)
            stack.callback(daemon.close)
            monkeypatch.setenv("PLUGIND_SOCKET", daemon.socket)
            monkeypatch.setenv("PLUGIND_ADMIN_SOCKET", daemon.socket)
            return daemon

        yield begin


@pytest.fixture
def daemon(start):
    return start(DevAdmission(os.getuid()))


@pytest.fixture
def audit(daemon):
    with Client(daemon.socket) as client:
        yield client.audit


def damage(daemon, old, new):
    for path in segments.segments(daemon.directory):
        path.write_bytes(path.read_bytes().replace(old, new, 1))


@pytest.mark.parametrize(
    "wanted,expected",
    [
        ({}, [5, 4, 3, 2, 1, 0]),
        ({"limit": 2}, [5, 4]),
        ({"plugin": "demo"}, [4, 2, 1]),
        ({"plugin": "plug_2"}, [3]),
        ({"events": ["INTENT", "DENIED"]}, [3, 1]),
        ({"outcome": "timeout"}, [2]),
        ({"outcome": "ok"}, []),
        ({"plan_id": "plan-1"}, [3, 2, 1]),
        ({"since_unix_ms": 2**50}, []),
    ],
)
def test_query_gives_the_newest_that_match(audit, daemon, wanted, expected):
    page = audit.query(**wanted)
    assert [record.index for record in page.records] == expected
    assert [record.event for record in page.records] == [EVENTS[index] for index in expected]
    assert (page.origin, page.size, page.root) == (daemon.ledger.origin, 6, daemon.ledger.root().hex())


@pytest.mark.parametrize(
    "wanted,detail",
    [
        ({"events": ["intent"]}, "events: expected START"),
        ({"outcome": "fine"}, "outcome: expected ok"),
        ({"limit": 1001}, "limit: expected at most 1000"),
        ({"plugin": "No Such"}, "plugin: expected"),
        ({"plan_id": "a\nb"}, "plan_id: expected"),
    ],
)
def test_query_refuses_what_could_find_nothing(audit, wanted, detail):
    with pytest.raises(InvalidRequest) as raised:
        audit.query(**wanted)
    assert raised.value.detail.startswith(detail)


def test_get_gives_a_record_its_other_half_and_its_payloads(audit):
    found = audit.get("log_1", "input")
    assert (found.record.log_id, found.other.log_id, found.payload) == ("log_1", "log_2", INPUT)
    assert found.record.fields["limits"]["wall_ms"] == 5000
    assert audit.get("log_1", "stdout").payload == OUTPUT  # of the other half
    assert audit.get("log_2").other.log_id == "log_1"
    assert audit.get("log_2", "stderr").payload == b""
    assert audit.get("log_3").other is None


@pytest.mark.parametrize(
    "log_id,payload,error,detail",
    [
        ("log_6", "", NotFound, "log_6"),
        ("log_0", "input", NotFound, "log_0: the record has no input"),
        ("4", "", InvalidRequest, "log_id: expected"),
        ("log_01", "", InvalidRequest, "log_id: expected"),
        ("log_1", "secrets", InvalidRequest, "payload: expected one of input, output, stdout, stderr"),
    ],
)
def test_get_of_what_is_not_there(audit, log_id, payload, error, detail):
    with pytest.raises(error) as raised:
        audit.get(log_id, payload)
    assert detail in raised.value.detail


def test_a_damaged_payload_or_record_is_a_fault_and_never_given(audit, daemon):
    (pack,) = payloads.packs(daemon.directory)
    pack.write_bytes(pack.read_bytes().replace(b"tasks", b"tusks"))
    with pytest.raises(Fault) as raised:
        audit.get("log_1", "input")
    assert "expected a payload with sha256" in raised.value.detail
    damage(daemon, b'"wall_ms":5000', b'"wall_ms":9000')
    with pytest.raises(Fault) as raised:
        audit.get("log_1")
    assert "000000000000.jsonl:2" in raised.value.detail


@pytest.mark.slow
@pytest.mark.parametrize(
    "options,first", [({}, 0), ({"from_index": 3}, 3), ({"newest": 2}, 4), ({"newest": 99}, 0), ({"new_only": True}, 6)]
)
def test_tail_gives_what_is_there_and_then_what_comes(audit, daemon, options, first):
    stream = audit.tail(**options)
    got = [next(stream).index for _ in range(6 - first)]
    for text in ("one", "two"):
        if first == 6:  # nothing was read yet, so the call has not begun: whatever comes after it is enough
            threading.Timer(0.5, lambda: daemon.do(daemon.ledger.append(Stopped("x")))).start()
        else:
            daemon.do(daemon.ledger.append(Stopped(text)))
        got.append(next(stream).index)
    stream.close()
    assert got == list(range(first, 8))


def test_verify_over_the_wire_is_the_same_report(audit, daemon):
    report = audit.verify()
    assert report.holds
    assert (report.records, report.checkpoint_size, report.payloads) == (6, 6, 2)
    assert (report.origin, report.root) == (daemon.ledger.origin, daemon.ledger.root().hex())
    damage(daemon, b"it misbehaves", b"it  behaves  ")
    (finding,) = [each for each in audit.verify().findings if each.line]
    assert finding.log_id == "log_4"
    seen = [(0, "00" * 32)]
    assert [each.log_id for each in audit.verify(seen).findings if each.segment == "journal"] == ["log_0"]


def test_every_call_needs_the_operator_and_a_refusal_is_told(start):
    daemon = start(RunAdmission())
    with Client(daemon.socket) as client:
        for make in (
            client.audit.query,
            lambda: client.audit.get("log_0"),
            lambda: next(client.audit.tail()),
            client.audit.verify,
            lambda: client.audit.restore("log_1", "why"),
            lambda: client.audit.impact("demo"),
        ):
            with pytest.raises(NotAllowed):
                make()
    calls = ("Query", "Get", "Tail", "Verify", "Restore", "Impact")
    assert daemon.refusals.told == [(os.getuid(), call, "operator") for call in calls]


# --- plugindctl audit -------------------------------------------------------------------------------------------------


def test_list_is_a_table_with_the_newest_last(daemon):
    done = plugindctl("audit", "list")
    rows = [line.split(None, 4) for line in done.out.splitlines()]
    assert (done.code, done.err) == (0, "")
    assert [row[0] for row in rows] == ["id", *(f"log_{index}" for index in range(6))]
    assert [row[3] for row in rows[1:]] == EVENTS
    assert r"timeout (log_1): too\nlate\u001b[2J" in done.out
    assert "kill by uid 0: it misbehaves" in done.out


def test_list_as_json_and_with_filters(daemon):
    found = plugindctl("audit", "list", "--event", "denied", "--plugin", "other", "--since", "1h", "--json").json
    assert [(each["id"], each["reasons"][0]["code"]) for each in found] == [("log_3", "BUSY")]
    assert plugindctl("audit", "list", "--since", "2199-01-01").err == "there are no such records\n"
    done = plugindctl("audit", "list", "--since", "soon")
    assert (done.code, "expected 10m, 2h, 3d" in done.err) == (2, True)


@pytest.mark.parametrize("log_id", ["log_1", "log_2"])
def test_show_has_both_halves_from_either(daemon, log_id):
    done = plugindctl("audit", "show", log_id)
    text = " ".join(done.out.split())
    assert (done.code, done.err) == (0, "")
    assert text.index("log_1 INTENT") < text.index("log_2 OUTCOME")
    for part in (
        "plugin demo",
        "outcome timeout",
        r"too\nlate\u001b[2J",
        f"input {len(INPUT)} bytes, sha256",
        "leaf hash",
    ):
        assert part in text
    shown = plugindctl("audit", "show", log_id, "--json").json
    assert {shown["record"]["id"], shown["other"]["id"]} == {"log_1", "log_2"}


def test_show_tells_every_reason_of_a_denial(daemon):
    text = " ".join(plugindctl("audit", "show", "log_3").out.split())
    assert "reason BUSY (tier.2.instances): expected 8, got 9; what to do: wait" in text


def test_show_prints_a_payload_as_it_is(daemon):
    assert plugindctl("audit", "show", "log_2", "--payload", "input").out == INPUT.decode()
    assert plugindctl("audit", "show", "log_1", "--payload", "everything").code == 2
    assert plugindctl("audit", "show", "log_99").code == 3


@pytest.mark.slow
def test_tail_prints_what_is_there_and_what_comes_until_it_is_interrupted(daemon):
    process = subprocess.Popen([*COMMAND, "audit", "tail", "-n", "2", "--json"], stdout=subprocess.PIPE, text=True)
    try:
        got = [json.loads(process.stdout.readline())["id"] for _ in range(2)]
        daemon.do(daemon.ledger.append(Stopped("now")))
        got.append(json.loads(process.stdout.readline())["id"])
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 4
    finally:
        process.kill()
        process.wait(20)
        process.stdout.close()
    assert got == ["log_4", "log_5", "log_6"]


def test_verify_prints_what_was_checked_and_exits_7_for_damage(daemon):
    done = plugindctl("audit", "verify", "--no-journal")
    assert done.code == 0
    assert done.out.endswith("ok: everything holds\n")
    assert daemon.ledger.root().hex() in done.out
    assert plugindctl("audit", "verify", "--no-journal", "--json").json["ok"] is True
    damage(daemon, b"it misbehaves", b"it  behaves  ")
    done = plugindctl("audit", "verify", "--no-journal")
    assert done.code == 7
    assert "log_4" in done.out
    assert "things do not hold" in done.err
    report = plugindctl("audit", "verify", "--no-journal", "--json")
    assert (report.code, report.json["ok"]) == (7, False)


def test_verify_of_a_state_folder_needs_no_daemon(daemon, monkeypatch):
    monkeypatch.setenv("PLUGIND_SOCKET", "/nowhere")
    monkeypatch.setenv("PLUGIND_ADMIN_SOCKET", "/nowhere")
    done = plugindctl("audit", "verify", "--no-journal", "--state", daemon.state, "--json")
    assert (done.code, done.json["records"], done.json["root"]) == (0, 6, daemon.ledger.root().hex())
    damage(daemon, b"it misbehaves", b"it  behaves  ")
    done = plugindctl("audit", "verify", "--no-journal", "--state", daemon.state, "--json")
    assert done.code == 7
    assert "log_4" in {each["log_id"] for each in done.json["findings"]}
    assert plugindctl("audit", "verify", "--state", daemon.folder).code == 2


@pytest.mark.parametrize(
    "text,moment",
    [
        ("2026-01-31T12:00", 1769860800000),
        ("2026-01-31", 1769817600000),
        ("2026-01-31T13:00+01:00", 1769860800000),
    ],
)
def test_a_moment_is_utc_unless_it_says_so(text, moment):
    assert moment_ms(text) == moment


def test_help_has_examples(daemon):
    for command in ("list", "show", "tail", "verify"):
        assert f"plugindctl audit {command}" in plugindctl("audit", command, "--help").out
