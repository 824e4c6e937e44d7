"""What runs did with files of plans, in the audit: a line for each record, all that it says, and the files themselves."""

import os

import pytest

from plugind.api.roles import DevAdmission
from plugind.audit.records import (
    Ended,
    Intent,
    PlanChange,
    PlanCommitted,
    PlanFile,
    PlanRestore,
    PlanUndone,
    Stored,
    stored_as,
)
from plugind.model import Limits
from plugind_client.errors import InvalidRequest, NotFound
from tests.support.fake_daemon import plugindctl
from tests.unit.test_audit_records_api import audit, start, subject  # noqa: F401 - fixtures

GIVEN, NEW, OLD, ADDED = b"[1, 2]", b"new\n", b"old!\n", b"\xff"


@pytest.fixture
def daemon(start):  # noqa: F811
    """Its log_6 and later are a run that wrote into a plan, and its undoing."""
    daemon = start(DevAdmission(os.getuid()))
    daemon.do(filled(daemon.ledger))
    return daemon


async def filled(ledger):
    given, new, old, added = map(ledger.keep, (GIVEN, NEW, OLD, ADDED))
    about = subject(Stored())
    of_run = {"run": "r1", "plugin_id": "plug_1", "plugin": "demo", "version": "1.2.0", "plan_id": "plan-1"}
    of_run["plan_dir"] = "/srv/p"
    intent = await ledger.append(
        Intent(about, ("file_read",), Limits(), plan_dir="/srv/p", files=(PlanFile("cost.json", given),))
    )
    changes = (PlanChange("cost.json", new, old), PlanChange("sub/new", added, Stored()))
    await ledger.append(Ended(intent, about, "ok", plan_dir="/srv/p", files=changes))
    await ledger.append(PlanCommitted(intent, files=2, **of_run))
    back = (PlanChange("cost.json", old, new), PlanChange("sub/new", Stored(), added))
    of_restore = {name: value for name, value in of_run.items() if name != "run"}
    restore = await ledger.append(
        PlanRestore(
            of=intent,
            by_uid=0,
            why="wrong sums",
            digest="ab" * 32,
            caller_uid=1000,
            files=back,
            forced=True,
            **of_restore,
        )
    )
    await ledger.append(PlanUndone(restore, why="cost.json was changed", **of_run))


def test_list_says_each_in_a_line_and_finds_it_by_event(daemon):
    out = plugindctl("audit", "list").out
    for part in (
        "Tier 2, file_read, given 1 file",
        "ok (log_6), wrote 2 files",
        "2 files of log_6 in /srv/p",
        "of log_6 by uid 0, forced, 2 files: wrong sums",
        "nothing of log_9 in /srv/p: cost.json was changed",
    ):
        assert part in out
    for event, log_id in (("committed", "log_8"), ("RESTORE", "log_9"), ("UNDONE", "log_10")):
        found = plugindctl("audit", "list", "--event", event, "--json").json
        assert [each["id"] for each in found] == [log_id]


def test_show_tells_every_file(daemon):
    text = " ".join(plugindctl("audit", "show", "log_7").out.split())
    assert f"given cost.json, {len(GIVEN)} bytes, sha256" in text
    assert f"written cost.json, {len(NEW)} bytes, sha256" in text
    assert f"; replaced {len(OLD)} bytes, sha256" in text
    assert "written sub/new, 1 bytes, sha256" in text
    assert "plan dir /srv/p" in text
    text = " ".join(plugindctl("audit", "show", "log_9").out.split())
    for part in ("of log_6", f"put back cost.json, {len(OLD)} bytes", "removed sub/new, 1 bytes", "why wrong sums"):
        assert part in text
    text = " ".join(plugindctl("audit", "show", "log_8").out.split())
    for part in ("log_8 COMMITTED", "intent log_6", "files 2"):
        assert part in text


@pytest.mark.parametrize(
    "log_id,name,content",
    [
        ("log_6", "file:cost.json", GIVEN),
        ("log_7", "file:cost.json", NEW),
        ("log_7", "replaced:cost.json", OLD),
        ("log_6", "replaced:cost.json", OLD),
        ("log_6", "file:sub/new", ADDED),
        ("log_9", "file:cost.json", OLD),
        ("log_9", "replaced:sub/new", ADDED),
    ],
)
def test_file_is_what_the_record_says_of_it_or_its_other_half(daemon, audit, log_id, name, content):  # noqa: F811
    assert audit.get(log_id, name).payload == content


@pytest.mark.parametrize("name", ["file:none", "replaced:sub/new", "file:", "file:" + "x" * 5000])
@pytest.mark.parametrize("log_id", ["log_7", "log_8"])
def test_file_that_is_not_there(daemon, audit, log_id, name):  # noqa: F811
    with pytest.raises(NotFound) as raised:
        audit.get(log_id, name)
    assert raised.value.detail.startswith(f"{log_id}: the record has no {name[:100]}")


def test_payload_is_one_of_these(daemon, audit):  # noqa: F811
    with pytest.raises(InvalidRequest) as raised:
        audit.get("log_7", "files:x")
    assert "payload: expected one of input, output, stdout, stderr, file:PATH, replaced:PATH" in raised.value.detail
    done = plugindctl("audit", "show", "log_7", "--payload", "files:x")
    assert (done.code, "stderr, file:PATH or replaced:PATH, got 'files:x'" in done.err) == (2, True)
    assert plugindctl("audit", "show", "log_7", "--payload", "file:cost.json").out == NEW.decode()


def test_number_of_files_of_a_committed_is_no_list_of_them():
    assert stored_as({"files": 2}, "file:x") is None


@pytest.mark.parametrize("log_id", ["log_6", "log_7", "log_9", "log_10"])
def test_show_tells_what_became_of_what_was_written(daemon, log_id):
    """From whichever of its records: COMMITTED, and later RESTORE and UNDONE."""
    shown = plugindctl("audit", "show", log_id, "--json").json
    told = {shown["record"]["id"], *((shown["other"] or {}).get("id", ""),), *(each["id"] for each in shown["later"])}
    of_undoing = {"log_9", "log_10"}
    assert told >= (of_undoing if log_id in of_undoing else {"log_6", "log_7", "log_8", *of_undoing})
    out = plugindctl("audit", "show", log_id).out
    assert [event for event in ("RESTORE", "UNDONE") if event in out] == ["RESTORE", "UNDONE"]


def test_show_of_what_wrote_nothing_has_nothing_later(daemon):
    assert plugindctl("audit", "show", "log_1", "--json").json["later"] == []
