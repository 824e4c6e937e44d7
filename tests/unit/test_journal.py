"""Records for the systemd journal: their fields, in order, off the hot path, and never lost silently."""

import re
import threading
import time
import uuid
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plugind.audit.journal import MESSAGE_IDS, NO_JOURNALD, Committed, Journal, entry, message
from plugind.audit.ledger import Ledger
from plugind.audit.records import (
    EVENTS,
    Changed,
    Denied,
    Ended,
    Intent,
    Refused,
    Started,
    Stopped,
    Subject,
)
from plugind.model import Code, Limits, Reason

CATALOG = Path(__file__).parents[2] / "packaging" / "plugind.catalog"
FAILURE = CATALOG.with_name("plugind-failure")
HEAD = {
    "MESSAGE", "MESSAGE_ID", "PRIORITY", "SYSLOG_IDENTIFIER",
    "PLUGIND_LOG", "PLUGIND_AUDIT_ID", "PLUGIND_EVENT", "PLUGIND_LEAF_HASH", "PLUGIND_LEAF_INDEX",
}  # fmt: skip
OF_RUN = {"PLUGIND_PLUGIN", "PLUGIND_VERSION", "PLUGIND_TIER", "PLUGIND_STAGE", "PLUGIND_PLAN", "PLUGIND_DECISION"}


def subject(**fields):
    given = {
        "run": "r1", "caller_uid": 1000, "plugin_id": "plug_1", "plugin": "demo", "version": "1.0.0", "digest": "ab" * 32,
        "tier": 2, "stage": "durations", "plan_id": "plan-1", "sensitivity": "internal",
    }  # fmt: skip
    return Subject(**given | fields)


def reason(code):
    return Reason(code, "rule")


INTENT = Intent(subject(), ("network",), Limits())
DENIED = Denied(subject(), (reason(Code.BUSY), reason(Code.INPUT_INVALID), reason(Code.BUSY)))
OK, TIMEOUT = Ended(4, subject(), "ok"), Ended(4, subject(), "timeout", "it took too long")
KILL = Changed("kill", "plug_1", "demo", "1.0.0", "", 0, "it misbehaves")
REFUSED = Refused("Approve", 1000, "approver")


def committed(record, index=7):
    return Committed("plugind/" + "0" * 32, index, 1234, record, b"\xab" * 32)


class Journald:
    """The receiving end as systemd.journal.sendv calls it. A file stands for its socket."""

    def __init__(self, tmp_path):
        self.socket = tmp_path / "socket"
        self.socket.touch()
        self.got = []
        self.open = threading.Event()
        self.open.set()
        self.asked = threading.Event()

    def __call__(self, *fields):
        self.asked.set()
        assert self.open.wait(20)
        self.got.append(dict(field.split("=", 1) for field in fields))

    @property
    def indexes(self):
        return [int(fields["PLUGIND_LEAF_INDEX"]) for fields in self.got]


@pytest.fixture
def journald(tmp_path):
    return Journald(tmp_path)


def until(condition):
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.002)


@pytest.mark.parametrize(
    "record,priority,text,own",
    [
        (
            INTENT, "6", "demo 1.0.0 (Tier 2) may run in stage durations for plan plan-1 as r1 for uid 1000, with network",
            {"PLUGIND_PLUGIN": "demo", "PLUGIND_VERSION": "1.0.0", "PLUGIND_TIER": "2", "PLUGIND_STAGE": "durations",
             "PLUGIND_PLAN": "plan-1", "PLUGIND_DECISION": "allow"},
        ),
        (
            DENIED, "4",
            "demo 1.0.0 (Tier 2) was denied in stage durations for plan plan-1 as r1 for uid 1000: BUSY, INPUT_INVALID",
            {"PLUGIND_DECISION": "deny", "PLUGIND_REASONS": "BUSY INPUT_INVALID"},
        ),
        (OK, "6", "demo 1.0.0 (Tier 2) ended as ok (log_4)", {"PLUGIND_OUTCOME": "ok", "PLUGIND_DECISION": "allow"}),
        (TIMEOUT, "4", "demo 1.0.0 (Tier 2) ended as timeout (log_4): it took too long", {"PLUGIND_OUTCOME": "timeout"}),
        (KILL, "5", "kill demo 1.0.0 by uid 0: it misbehaves", {"PLUGIND_PLUGIN": "demo", "PLUGIND_VERSION": "1.0.0"}),
        (
            REFUSED, "4", "Approve was refused to uid 1000, it needs the role approver",
            {"PLUGIND_DECISION": "deny", "PLUGIND_REASONS": "NOT_ALLOWED"},
        ),
        (Started("dev", 3), "6", "plugind started (dev); 3 open runs closed as unknown", {}),
        (Stopped("SIGTERM"), "6", "plugind stopped: SIGTERM", {}),
    ],
    ids=lambda value: getattr(value, "event", None),
)  # fmt: skip
def test_a_record_has_its_fields(record, priority, text, own):
    fields = entry(committed(record))
    assert own.items() <= fields.items()
    assert fields.keys() <= HEAD | OF_RUN | {"PLUGIND_REASONS", "PLUGIND_OUTCOME", "PLUGIND_UNIT"}
    assert fields.keys() >= HEAD
    assert fields["MESSAGE"] == f"log_7: {text}"
    assert (fields["PRIORITY"], fields["PLUGIND_EVENT"]) == (priority, record.event)
    assert (fields["PLUGIND_AUDIT_ID"], fields["PLUGIND_LEAF_INDEX"]) == ("log_7", "7")
    assert fields["PLUGIND_LEAF_HASH"] == "ab" * 32
    assert fields["SYSLOG_IDENTIFIER"] == "plugind"


def test_what_a_record_does_not_have_is_left_out():
    unknown = Denied(subject(plugin_id="", version="", tier=-1, stage="", plan_id=""), (reason(Code.PLUGIN_NOT_FOUND),))
    fields = entry(committed(unknown))
    assert fields.keys() == HEAD | {"PLUGIND_PLUGIN", "PLUGIND_DECISION", "PLUGIND_REASONS"}
    assert "" not in fields.values()


@given(st.text(), st.text())
def test_no_text_breaks_or_steers_a_line(plan, detail):
    fields = entry(committed(Ended(4, subject(plan_id=plan), "failed", detail)))
    assert all(value.isprintable() for value in fields.values())


@pytest.mark.parametrize(
    "text,shown",
    [
        ("a\nMESSAGE=forged", r"a\nMESSAGE=forged"),
        ("a\x1b[2Jb", r"a\x1b[2Jb"),
        ("a\x85b\u2028c", r"a\x85b\u2028c"),
        ("a\u202eb", r"a\u202eb"),
        ("a\udc80b", r"a\udc80b"),
        ("Zürich 東京", "Zürich 東京"),
    ],
)
def test_what_could_steer_is_shown_escaped(text, shown):
    assert message(Ended(4, subject(), "failed", text)).endswith(f"(log_4): {shown}")


def test_the_catalog_explains_exactly_these_ids():
    blocks = re.findall(
        r"^-- ([0-9a-f]{32})\nSubject: (.+)\nDefined-By: plugind\n\n(.+)", CATALOG.read_text(), re.MULTILINE
    )
    (failure,) = re.findall(r"^MESSAGE_ID=([0-9a-f]{32})$", FAILURE.read_text(), re.MULTILINE)
    assert [block[0] for block in blocks] == [*MESSAGE_IDS.values(), failure]
    assert uuid.UUID(failure).version == 4
    assert set(MESSAGE_IDS) == set(EVENTS)
    assert len(set(MESSAGE_IDS.values())) == len(EVENTS)
    assert all(uuid.UUID(each).version == 4 for each in MESSAGE_IDS.values())
    used = set(re.findall(r"@(\w+)@", CATALOG.read_text()))
    assert used <= HEAD | OF_RUN | {"PLUGIND_REASONS", "PLUGIND_OUTCOME", "PLUGIND_UNIT"}


async def test_every_record_of_a_ledger_is_sent_in_order_after_it_is_durable(tmp_path, journald):
    journal = Journal(journald, journald.socket)
    directory = tmp_path / "ledger"
    directory.mkdir()
    ledger, _ = Ledger.open(directory, "dev", journal=journal)
    for _ in range(50):
        await ledger.append(INTENT)
    await ledger.close()
    assert journald.indexes == list(range(51))
    assert {fields["PLUGIND_LOG"] for fields in journald.got} == {ledger.origin}
    assert (journal.sent, journal.lost, journal.state) == (51, 0, "")


async def test_runs_closed_at_a_start_keep_their_plugin(tmp_path, journald):
    directory = tmp_path / "ledger"
    directory.mkdir()
    ledger, _ = Ledger.open(directory, "dev")
    await ledger.append(INTENT)
    await ledger.close()
    ledger, _ = Ledger.open(directory, "dev", journal=Journal(journald, journald.socket))
    await ledger.close()
    closing, start = journald.got
    assert (closing["PLUGIND_PLUGIN"], closing["PLUGIND_OUTCOME"], closing["PRIORITY"]) == ("demo", "unknown", "4")
    assert start["PLUGIND_EVENT"] == "START"


def test_without_journald_records_are_counted_and_told_once(tmp_path, capfd):
    journal = Journal(lambda *_: None, tmp_path / "nowhere")
    assert journal.state == NO_JOURNALD == "no journald here: records are in the ledger only"
    for index in range(5):
        journal.put([committed(INTENT, index)])
    journal.close()
    assert (journal.sent, journal.lost) == (0, 5)
    assert journal.state == f"{NO_JOURNALD} (5 records are in the ledger only)"
    assert capfd.readouterr().err.count(NO_JOURNALD) <= 1


def test_when_journald_comes_back_records_are_sent_again_and_the_loss_stays_told(journald, capfd):
    journald.socket.unlink()
    journal = Journal(journald, journald.socket)
    journal.put([committed(INTENT, 0)])
    until(lambda: journal.lost == 1)
    journald.socket.touch()
    journal.put([committed(INTENT, 1)])
    until(lambda: journal.sent == 1)
    until(lambda: journal.state == "sending again (1 records are in the ledger only)")
    journal.close()
    assert journald.indexes == [1]
    assert "sent again from log_1" in capfd.readouterr().err


def test_a_full_queue_never_blocks_and_is_counted(journald, capfd):
    journald.open.clear()
    journal = Journal(journald, journald.socket, room=10)
    journal.put([committed(INTENT, 0)])
    assert journald.asked.wait(10)
    for index in range(1, 31):
        journal.put([committed(INTENT, index)])
    assert journal.lost == 20
    assert "too slow" in journal.state
    journald.open.set()
    journal.close()
    assert journald.indexes == list(range(11))
    assert capfd.readouterr().err.count("too slow") == 1


def test_what_journald_does_not_take_at_the_end_is_counted(journald):
    journald.open.clear()
    journal = Journal(journald, journald.socket)
    journal.put([committed(INTENT, index) for index in range(5)])
    began = time.monotonic()
    journal.close(patience_s=0.1)
    assert time.monotonic() - began < 5
    assert journal.lost >= 4
    assert "did not take" in journal.state
    journald.open.set()


def test_a_record_that_journald_refuses_is_counted_and_the_next_is_sent(tmp_path, journald):
    def send(*fields):
        if any(field == "PLUGIND_LEAF_INDEX=0" for field in fields):
            raise OSError(90, "Message too long")
        journald(*fields)

    journal = Journal(send, journald.socket)
    journal.put([committed(INTENT, 0), committed(INTENT, 1)])
    journal.close()
    assert (journal.lost, journald.indexes) == (1, [1])
