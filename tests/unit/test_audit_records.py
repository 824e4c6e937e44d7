"""Records as lines, and reading them back while the ledger grows."""

import asyncio
import json
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plugind.audit import reading
from plugind.audit.ledger import Ledger
from plugind.audit.merkle import leaf_hash, root_of
from plugind.audit.reading import Filter, Follower
from plugind.audit.records import (
    EVENTS,
    Changed,
    Denied,
    Ended,
    Intent,
    Noticed,
    PlanChange,
    PlanCommitted,
    PlanFile,
    PlanRestore,
    PlanUndone,
    Refused,
    Started,
    Stopped,
    Stored,
    Subject,
    line,
    read_line,
    stored_in,
    stored_of,
    subject_of,
)
from plugind.errors import NotFoundError, StateError
from plugind.model import Code, Limits, Reason, Usage, Violation

INPUT = Stored("ab" * 32, 12, 0, 40)
SUBJECT = Subject("r1", 1000, "plug_1", "demo", "1.0.0", "cd" * 32, 2, "durations", "plan", "internal", INPUT)
REASON = Reason(Code.BUSY, "tier.2.instances", "8", "9", "wait")
CHANGE = PlanChange("a.json", Stored("ef" * 32, 3, 0, 100), Stored())
RECORDS = [
    Started("dev", 1, 2),
    Stopped("SIGTERM"),
    Intent(SUBJECT, ("network",), Limits(wall_ms=5000)),
    Ended(4, SUBJECT, "ok", "", INPUT, usage=Usage(1, 2, 3), violations=(Violation("syscall", "ptrace", 1, "x"),)),
    Denied(SUBJECT, (REASON,), 4),
    PlanRestore(*(4, 0, "wrong", "plug_1", "demo", "1.0.0", "cd" * 32, "plan", 1000, "/plans/a"), (CHANGE,)),
    PlanCommitted(4, "r1", "plug_1", "demo", "1.0.0", "plan", "/plans/a", 1),
    PlanUndone(4, "r1", "plug_1", "demo", "1.0.0", "plan", "/plans/a", "somebody has changed it"),
    Changed("kill", "plug_1", "demo", "", "", 0, "it misbehaves"),
    Refused("Approve", 1000, "approver"),
    Noticed(
        *("failures", False, "medium", "plug_1", "demo", "1.0.0", "cd" * 32, "r1", "plan", 4, 5),
        *("fewer than 10", "12 of the last 20", {"failures": 12.0}),
    ),
]


def about(**fields):
    values = {name: getattr(SUBJECT, name) for name in SUBJECT.__match_args__} | fields
    return Subject(**values)


def test_there_is_an_event_for_each_kind_of_record():
    assert [record.event for record in RECORDS] == list(EVENTS)


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: record.event)
def test_a_line_is_one_object_with_a_check(record):
    text = line(7, 1234, record)
    fields = json.loads(text)
    assert text.count(b"\n") == 1
    assert (fields["index"], fields["time_unix_ms"], fields["event"]) == (7, 1234, record.event)
    body = text[: text.rindex(b',"check":')]
    assert fields.pop("check") == f"{zlib.crc32(body):08x}"
    assert read_line(text) == fields == read_line(text[:-1])


def test_fields_are_flat():
    fields = read_line(line(5, 0, RECORDS[3]))
    assert (fields["plugin"], fields["run"], fields["intent"], fields["outcome"]) == ("demo", "r1", 4, "ok")
    assert fields["input_sha256"] == fields["output_sha256"] == "ab" * 32
    assert (fields["output_bytes"], fields["output_pack"], fields["output_offset"]) == (12, 0, 40)
    assert (fields["stdout_sha256"], fields["stdout_bytes"], fields["stdout_pack"]) == ("", 0, -1)
    assert fields["usage"] == {"wall_ms": 1, "cpu_ms": 2, "memory_peak_bytes": 3}
    assert fields["violations"] == [{"kind": "syscall", "name": "ptrace", "count": 1, "detail": "x"}]
    assert stored_of(fields, "output") == INPUT
    assert stored_of(fields, "nothing") == Stored()
    assert read_line(line(5, 0, RECORDS[4]))["reasons"][0] == {
        "code": "BUSY", "rule": "tier.2.instances", "expected": "8", "actual": "9", "remedy": "wait",
    }  # fmt: skip


def test_files_of_a_plan_are_payloads_too():
    read = Stored("01" * 32, 5, 0, 7)
    intent = read_line(line(5, 0, Intent(SUBJECT, (), Limits(), plan_dir="/plans/a", files=(PlanFile("b", read),))))
    assert (intent["plan_dir"], intent["files"][0]["path"]) == ("/plans/a", "b")
    assert stored_in(intent) == [INPUT, read]
    replaced = PlanChange("b", CHANGE.content, read)
    ended = read_line(line(6, 0, Ended(5, SUBJECT, "ok", plan_dir="/plans/a", files=(CHANGE, replaced))))
    assert stored_in(ended) == [INPUT, CHANGE.content, CHANGE.content, read]
    assert stored_in(read_line(line(7, 0, RECORDS[6]))) == []


@given(st.text(), st.text(), st.integers(-1, 2), st.binary(max_size=32))
def test_any_text_survives_on_one_ascii_line(plugin, plan, tier, digest):
    subject = about(plugin=plugin, plan_id=plan, tier=tier, input=Stored(digest.hex(), 1, 2, 3))
    text = line(0, 0, Intent(subject, (), Limits()))
    assert text.isascii()
    assert b"\n" not in text[:-1]
    assert b"\0" not in text
    assert subject_of(read_line(text)) == subject


@given(st.integers(0, 10**6), st.integers(1, 255))
def test_no_flipped_byte_passes_the_check(place, mask):
    text = bytearray(line(3, 99, RECORDS[3])[:-1])
    text[place % len(text)] ^= mask
    with pytest.raises(ValueError, match=r"."):
        read_line(bytes(text))


@pytest.mark.parametrize("text", [b"", b"{}", b"[]", b'{"a":1,"check":"00000000"}', b'[1,"check":"ffffffff"}', b"\xff"])
def test_what_was_not_written_so_is_no_record(text):
    with pytest.raises(ValueError, match="expected"):
        read_line(text)


def test_an_intent_of_another_version_is_refused():
    with pytest.raises(ValueError, match="caller_uid"):
        subject_of({"run": "r1"})


# --- reading ----------------------------------------------------------------------------------------------------------


async def filled(directory, runs=30):
    """Small segments, so that everything crosses their borders: INTENT and OUTCOME of each run, and one denial."""
    ledger, _ = Ledger.open(directory, "dev", segment_bytes=3000)
    for number in range(runs):
        name = "even" if number % 2 == 0 else "odd"
        subject = about(run=f"r{number}", plugin=name, plugin_id=f"plug_{number % 2}", plan_id=f"plan{number}")
        intent = await ledger.append(Intent(subject, (), Limits()))
        await ledger.append(Ended(intent, subject, "ok" if number % 3 else "timeout"))
    await ledger.append(Denied(SUBJECT, (REASON,)))
    return ledger


async def test_every_record_is_found_with_its_leaf(tmp_path):
    ledger = await filled(tmp_path)
    entries = [reading.get(tmp_path, index) for index in range(ledger.size)]
    assert [entry.fields["index"] for entry in entries] == list(range(62))
    assert all(entry.leaf_hash == leaf_hash(entry.text) for entry in entries)
    assert root_of(entry.leaf_hash for entry in entries) == ledger.root()
    assert len({entry.segment for entry in entries}) > 5
    assert entries[5].line == 5 - int(entries[5].segment[:12]) + 1
    await ledger.close()


@pytest.mark.parametrize("index,below", [(62, 100), (5, 5), (-1, 100)])
async def test_what_is_not_there_or_not_durable_is_not_found(tmp_path, index, below):
    await (await filled(tmp_path)).close()
    with pytest.raises(NotFoundError, match=f"log_{index}"):
        reading.get(tmp_path, index, below)


async def test_each_half_of_a_run_knows_the_other(tmp_path):
    ledger = await filled(tmp_path)
    late = await ledger.append(Intent(SUBJECT, (), Limits()))
    decoy = about(plan_id=f'"intent":{late},')
    await ledger.append(Denied(decoy, (REASON,)))
    for intent in range(1, 61, 2):
        assert reading.other_half(tmp_path, reading.get(tmp_path, intent)).index == intent + 1
        assert reading.other_half(tmp_path, reading.get(tmp_path, intent + 1)).index == intent
        assert reading.other_half(tmp_path, reading.get(tmp_path, intent), below=intent + 1) is None
    assert [reading.other_half(tmp_path, reading.get(tmp_path, index)) for index in (0, 61, late)] == [None] * 3
    jail = await ledger.append(Denied(SUBJECT, (REASON,), late))
    assert reading.other_half(tmp_path, reading.get(tmp_path, late)).index == jail
    await ledger.close()


@pytest.mark.parametrize(
    "wanted,expected",
    [
        (Filter(), [61, 60, 59, 58, 57]),
        (Filter(plugin="odd"), [60, 59, 56, 55, 52]),
        (Filter(plugin="plug_0", events=frozenset({"OUTCOME"})), [58, 54, 50, 46, 42]),
        (Filter(outcome="timeout"), [56, 50, 44, 38, 32]),
        (Filter(plan_id="plan3"), [8, 7]),
        (Filter(events=frozenset({"START", "DENIED"})), [61, 0]),
        (Filter(since_unix_ms=2**60), []),
        (Filter(plugin="nobody"), []),
    ],
)
async def test_the_newest_come_first_and_only_those_wanted(tmp_path, wanted, expected):
    await (await filled(tmp_path)).close()
    assert [entry.index for entry in reading.newest(tmp_path, wanted, 5)] == expected


async def test_the_newest_below_what_is_durable(tmp_path):
    await (await filled(tmp_path)).close()
    assert [entry.index for entry in reading.newest(tmp_path, Filter(), 3, below=20)] == [19, 18, 17]


@pytest.mark.slow
@settings(max_examples=40)
@given(start=st.integers(0, 30), limit=st.integers(1, 20), step=st.integers(1, 9))
def test_a_follower_gives_every_record_once_whatever_the_steps(tmp_path_factory, start, limit, step):
    directory = tmp_path_factory.mktemp("ledger")

    async def follow():
        ledger = await filled(directory, 8)
        follower, got, found, below = Follower(directory, start), [], [], 0
        while below < ledger.size or found:
            below = min(below + step, ledger.size)
            found = follower.read(below, limit)
            assert len(found) <= limit
            assert all(entry.index < below for entry in found)
            got += found
        for number in range(5):
            await ledger.append(Stopped(str(number)))
            got += follower.read(ledger.size)
        await ledger.close()
        return [entry.index for entry in got]

    assert asyncio.run(follow()) == list(range(start, 23))


async def test_a_damaged_line_is_named(tmp_path):
    await (await filled(tmp_path)).close()
    path = tmp_path / "000000000000.jsonl"
    path.write_bytes(path.read_bytes().replace(b'"r0"', b'"rX"', 1))
    with pytest.raises(StateError, match=r"000000000000\.jsonl:2"):
        reading.get(tmp_path, 1)
