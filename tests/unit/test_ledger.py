"""The ledger: durable when it says so, repaired after a crash, closed for good after an error."""

from __future__ import annotations

import asyncio
import json
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plugind.audit import segments
from plugind.audit.ledger import Ledger
from plugind.audit.records import Denied, Ended, Intent, Started, Subject, line
from plugind.audit.segments import SegmentWriter, repair
from plugind.errors import AuditUnavailableError, StateError
from plugind.model import Code, Limits, Reason, Usage


def subject(run="r1"):
    return Subject(run, 1000, "plug_1", "demo", "1.0.0", "ab" * 32, 2, "durations", "plan", "internal", "cd" * 32, 4)


def intent(run="r1"):
    return Intent(subject(run), ("network",), Limits(wall_ms=5000))


def denied(run="r1"):
    return Denied(subject(run), (Reason(Code.BUSY, "tier.2.instances", "8", "9", "wait"),))


def ended(index, run="r1"):
    return Ended(index, run, "ok", usage=Usage(1, 2, 3))


def stored(directory):
    return [record for path in segments.segments(directory) for _, record in segments.records(path)]


async def test_a_record_is_on_disk_when_append_returns(tmp_path):
    ledger, _ = Ledger.open(tmp_path, "dev")
    index = await ledger.append(intent())
    last = stored(tmp_path)[-1]
    assert (last["index"], last["event"], last["run"], last["plugin_id"]) == (index, "INTENT", "r1", "plug_1")
    assert last["limits"]["wall_ms"] == 5000
    await ledger.close()


async def test_start_is_the_first_record_and_indexes_go_on_after_a_restart(tmp_path):
    ledger, _ = Ledger.open(tmp_path, "dev")
    assert await ledger.append(denied()) == 1
    await ledger.close()
    ledger, tail = Ledger.open(tmp_path, "dev")
    assert tail.next_index == 2
    await ledger.close()
    assert [(each["index"], each["event"]) for each in stored(tmp_path)] == [(0, "START"), (1, "DENIED"), (2, "START")]


async def test_open_intents_are_closed_as_unknown(tmp_path):
    ledger, _ = Ledger.open(tmp_path, "dev")
    first = await ledger.append(intent("first"))
    second = await ledger.append(intent("second"))
    third = await ledger.append(intent("third"))
    await ledger.append(ended(first, "first"))
    await ledger.append(Denied(subject("third"), (), intent=third))
    await ledger.close()
    ledger, tail = Ledger.open(tmp_path, "dev")
    await ledger.close()
    assert tail.open_intents == ((second, "second"),)
    closing, start = stored(tmp_path)[-2:]
    assert (closing["event"], closing["intent"], closing["outcome"]) == ("OUTCOME", second, "unknown")
    assert (start["event"], start["closed_as_unknown"]) == ("START", 1)
    _, again = Ledger.open(tmp_path, "dev")
    assert again.open_intents == ()


async def test_concurrent_appends_share_commits_and_keep_their_order(tmp_path, monkeypatch):
    syncs = []
    real = os.fdatasync
    ledger, _ = Ledger.open(tmp_path, "dev")
    monkeypatch.setattr(os, "fdatasync", lambda descriptor: (syncs.append(1), real(descriptor)))
    indexes = await asyncio.gather(*(ledger.append(intent(f"run{number}")) for number in range(500)))
    await ledger.close()
    assert indexes == list(range(1, 501))
    assert [each["run"] for each in stored(tmp_path)[1:]] == [f"run{number}" for number in range(500)]
    assert len(syncs) <= 3


async def test_durability_follows_the_order_of_calls(tmp_path):
    ledger, _ = Ledger.open(tmp_path, "dev")
    done = []

    async def one(number):
        done.append(await ledger.append(intent(f"run{number}")))

    async with asyncio.TaskGroup() as group:
        for number in range(100):
            group.create_task(one(number))
            if number % 7 == 0:
                await asyncio.sleep(0)
    await ledger.close()
    assert done == sorted(done)


async def test_a_cancelled_caller_leaves_its_record_and_disturbs_nobody(tmp_path):
    ledger, _ = Ledger.open(tmp_path, "dev")
    first = asyncio.create_task(ledger.append(intent("first")))
    second = asyncio.create_task(ledger.append(intent("second")))
    await asyncio.sleep(0)
    first.cancel()
    assert await second == 2
    await ledger.close()
    assert [each["run"] for each in stored(tmp_path)[1:]] == ["first", "second"]


async def test_after_a_failed_write_everything_is_refused(tmp_path, monkeypatch):
    ledger, _ = Ledger.open(tmp_path, "dev")

    def full(descriptor):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fdatasync", full)
        results = await asyncio.gather(*(ledger.append(intent()) for _ in range(3)), return_exceptions=True)
    assert all(isinstance(each, AuditUnavailableError) for each in results)
    with pytest.raises(AuditUnavailableError, match="No space left"):
        await ledger.append(intent())
    assert "No space left" in ledger.failure
    await ledger.close()


@pytest.mark.parametrize("harm", ["removed", "replaced", "longer", "shorter"])
async def test_a_segment_that_somebody_touched_is_not_written_to(tmp_path, harm):
    ledger, _ = Ledger.open(tmp_path, "dev")
    (path,) = segments.segments(tmp_path)
    content = path.read_bytes()
    if harm in {"removed", "replaced"}:
        path.unlink()
    if harm == "replaced":
        path.write_bytes(content)
    if harm == "longer":
        path.write_bytes(content + b"x")
    if harm == "shorter":
        path.write_bytes(content[:-1])
    with pytest.raises(AuditUnavailableError):
        await ledger.append(intent())
    await ledger.close()


def test_a_torn_end_is_cut_off_at_every_byte(tmp_path):
    whole = [line(0, 1, Started("dev")), line(1, 2, intent()), line(2, 3, ended(1))]
    path = tmp_path / "000000000000.jsonl"
    text = b"".join(whole)
    ends = [len(b"".join(whole[:count])) for count in range(4)]
    for size in range(1, len(text) + 1):
        path.write_bytes(text[:size])
        tail = repair(tmp_path)
        kept = max(end for end in ends if end <= size)
        assert tail.cut_bytes == size - kept
        assert tail.next_index == ends.index(kept)
        assert tail.open_intents == (((1, "r1"),) if kept == ends[2] else ())
        assert (path.read_bytes() if kept else b"") == text[:kept]
        assert path.exists() == bool(kept)


def test_what_a_file_system_left_as_nuls_is_cut_off(tmp_path):
    path = tmp_path / "000000000000.jsonl"
    first = line(0, 1, Started("dev"))
    path.write_bytes(first + b"\0" * 100 + b"\n" + line(2, 3, ended(1)))
    assert repair(tmp_path).next_index == 1
    assert path.read_bytes() == first


@given(st.data())
def test_a_flipped_byte_before_the_end_is_damage_or_a_valid_record_and_never_cut(tmp_path_factory, data):
    directory = tmp_path_factory.mktemp("ledger")
    path = directory / "000000000000.jsonl"
    text = b"".join([line(0, 1, Started("dev")), line(1, 2, intent()), line(2, 3, ended(1))])
    place = data.draw(st.integers(0, len(text) - 2))
    flipped = bytes([text[place] ^ data.draw(st.integers(1, 255))])
    damaged = text[:place] + flipped + text[place + 1 :]
    path.write_bytes(damaged)
    try:
        repair(directory)
    except StateError as error:
        assert str(path) in str(error)
    if b"\0" not in damaged:
        assert path.read_bytes() == damaged


@pytest.mark.parametrize(
    "lines",
    [
        [line(0, 1, Started("dev")), b"[]\n", line(2, 1, Started("dev"))],
        [line(0, 1, Started("dev")), b"{\n"],
        [line(0, 1, Started("dev")), line(2, 1, intent())],
        [line(1, 1, Started("dev"))],
    ],
)
def test_damage_names_file_and_line(tmp_path, lines):
    path = tmp_path / "000000000000.jsonl"
    path.write_bytes(b"".join(lines))
    with pytest.raises(StateError, match=r"000000000000\.jsonl:\d"):
        repair(tmp_path)


async def test_segments_follow_each_other(tmp_path):
    ledger, _ = Ledger.open(tmp_path, "dev", segment_bytes=1000)
    open_index = await ledger.append(intent("left open"))
    for number in range(20):
        index = await ledger.append(intent(f"run{number}"))
        await ledger.append(ended(index, f"run{number}"))
    await ledger.close()
    paths = segments.segments(tmp_path)
    assert len(paths) > 5
    assert [int(path.stem) for path in paths] == [
        json.loads(path.read_bytes().splitlines()[0])["index"] for path in paths
    ]
    assert repair(tmp_path) == segments.Tail(42, ((open_index, "left open"),), 0)
    paths[2].unlink()
    with pytest.raises(StateError, match="expected records up to index"):
        repair(tmp_path)


async def test_reading_back_ends_at_the_last_start(tmp_path):
    ledger, _ = Ledger.open(tmp_path, "dev", segment_bytes=500)
    for number in range(5):
        await ledger.append(denied(f"run{number}"))
    await ledger.close()
    ledger, _ = Ledger.open(tmp_path, "dev", segment_bytes=500)
    await ledger.close()
    segments.segments(tmp_path)[0].write_bytes(b"garbage that is not read again")
    assert repair(tmp_path).next_index == 7


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(AuditUnavailableError, match="nowhere"):
        Ledger.open(tmp_path / "nowhere", "dev")


def test_a_writer_continues_the_newest_segment(tmp_path):
    writer = SegmentWriter(tmp_path)
    writer.write(0, line(0, 1, Started("dev")))
    writer.close()
    writer = SegmentWriter(tmp_path)
    writer.write(1, line(1, 1, Started("dev")))
    writer.close()
    assert [path.name for path in segments.segments(tmp_path)] == ["000000000000.jsonl"]
