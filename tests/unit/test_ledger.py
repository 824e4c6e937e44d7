"""The ledger: durable when it says so, repaired after a crash, closed for good after an error."""

from __future__ import annotations

import asyncio
import base64
import dataclasses
import errno
import json
import os
import resource
import signal
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plugind.audit import checkpoint, payloads, segments
from plugind.audit.checkpoint import CheckpointFile
from plugind.audit.ledger import Ledger
from plugind.audit.merkle import leaf_hash, root_of
from plugind.audit.records import Changed, Denied, Ended, Intent, Started, Stopped, Stored, Subject, line
from plugind.audit.segments import SegmentWriter, repair
from plugind.audit.verify import verify
from plugind.errors import AuditUnavailableError, StateError
from plugind.model import Code, Limits, Reason, Usage


def subject(run="r1"):
    return Subject(
        run, 1000, "plug_1", "demo", "1.0.0", "ab" * 32, 2, "durations", "plan", "internal", Stored("cd" * 32, 4)
    )


def intent(run="r1"):
    return Intent(subject(run), ("network",), Limits(wall_ms=5000))


def denied(run="r1"):
    return Denied(subject(run), (Reason(Code.BUSY, "tier.2.instances", "8", "9", "wait"),))


def ended(index, run="r1"):
    return Ended(index, subject(run), "ok", usage=Usage(1, 2, 3))


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
    assert tail.open_intents == ((second, subject("second")),)
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
    CheckpointFile.create(tmp_path)
    text = b"".join(whole)
    ends = [len(b"".join(whole[:count])) for count in range(4)]
    # Every byte around the ends of lines, and every fifth within them: each costs an fsync.
    near = {end + offset for end in ends for offset in range(-12, 13)}
    for size in sorted({*range(1, len(text) + 1, 5), *near} & {*range(1, len(text) + 1)}):
        path.write_bytes(text[:size])
        tail = repair(tmp_path)
        kept = max(end for end in ends if end <= size)
        assert tail.cut_bytes == size - kept
        assert tail.next_index == ends.index(kept)
        assert tail.open_intents == (((1, subject()),) if kept == ends[2] else ())
        assert (path.read_bytes() if kept else b"") == text[:kept]
        assert path.exists() == bool(kept)


def test_what_a_file_system_left_as_nuls_is_cut_off(tmp_path):
    path = tmp_path / "000000000000.jsonl"
    first = line(0, 1, Started("dev"))
    CheckpointFile.create(tmp_path)
    path.write_bytes(first + b"\0" * 100 + b"\n" + line(2, 3, ended(1)))
    assert repair(tmp_path).next_index == 1
    assert path.read_bytes() == first


@given(st.data())
def test_a_flipped_byte_before_the_end_is_damage_and_never_cut(tmp_path_factory, data):
    directory = tmp_path_factory.mktemp("ledger")
    path = directory / "000000000000.jsonl"
    CheckpointFile.create(directory)
    text = b"".join([line(0, 1, Started("dev")), line(1, 2, intent()), line(2, 3, ended(1))])
    place = data.draw(st.integers(0, len(text) - 2))
    flipped = bytes([text[place] ^ data.draw(st.integers(1, 255))])
    damaged = text[:place] + flipped + text[place + 1 :]
    path.write_bytes(damaged)
    if flipped == b"\0":  # as a file system leaves what was never confirmed
        return
    with pytest.raises(StateError) as raised:
        repair(directory)
    assert str(path) in str(raised.value)
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
    CheckpointFile.create(tmp_path)
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
    assert repair(tmp_path) == segments.Tail(42, ((open_index, subject("left open")),), 0)
    paths[2].unlink()
    with pytest.raises(StateError, match="expected records up to index"):
        repair(tmp_path)


async def test_reading_back_ends_where_the_checkpoint_begins(tmp_path):
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


# --- the tree and its checkpoint --------------------------------------------------------------------------------------


def leaves(directory):
    return [leaf_hash(text) for path in segments.segments(directory) for _, text in segments.lines(path)]


async def test_size_and_root_are_those_of_the_records_on_disk(tmp_path):
    ledger, _ = Ledger.open(tmp_path, "dev", segment_bytes=2000)
    for count in range(1, 12):
        assert (ledger.size, ledger.root()) == (count, root_of(leaves(tmp_path)))
        known = checkpoint.read(tmp_path)
        assert (known.size, known.root, known.origin) == (count, ledger.root(), ledger.origin)
        await ledger.append(denied())
    await ledger.close()
    again, _ = Ledger.open(tmp_path, "dev", segment_bytes=2000)
    assert again.origin == ledger.origin
    assert again.root() == root_of(leaves(tmp_path))
    await again.close()


async def test_the_checkpoint_is_a_text_in_the_form_of_c2sp(tmp_path):
    ledger, _ = Ledger.open(tmp_path, "dev")
    await ledger.append(denied())
    await ledger.close()
    slots = [(tmp_path / "checkpoint").read_bytes()[start : start + 4096] for start in (0, 4096)]
    texts = [slot.partition(b"\n\n")[0].decode().split("\n") for slot in slots]
    newest = max(texts, key=lambda text: int(text[1]))
    assert newest[0] == ledger.origin
    assert newest[1] == "2"
    assert base64.b64decode(newest[2]) == ledger.root()
    assert all(newest)  # no empty line before the end


async def test_a_torn_checkpoint_leaves_the_one_before_it(tmp_path):
    ledger, _ = Ledger.open(tmp_path, "dev")
    for _ in range(5):
        await ledger.append(denied())
    await ledger.close()
    path = tmp_path / "checkpoint"
    whole = path.read_bytes()
    for slot in (0, 4096):
        for torn_at in (0, 20, 60, 150):
            path.write_bytes(whole[: slot + torn_at] + b"\0" * (4096 - torn_at) + whole[slot + 4096 :])
            assert checkpoint.read(tmp_path).size in {5, 6}
            assert repair(tmp_path).next_index == 6
    path.write_bytes(b"\0" * 8192)
    with pytest.raises(StateError, match="expected a whole checkpoint"):
        repair(tmp_path)


async def test_records_behind_the_checkpoint_are_accepted(tmp_path):
    # As after power failed: records are durable at once, the checkpoint within a second.
    ledger, _ = Ledger.open(tmp_path, "dev", segment_bytes=1500)
    first = await ledger.append(intent("first"))
    stale = (tmp_path / "checkpoint").read_bytes()
    second = await ledger.append(intent("second"))
    for number in range(6):
        await ledger.append(denied(f"more{number}"))
    await ledger.append(ended(first, "first"))
    await ledger.close()
    (tmp_path / "checkpoint").write_bytes(stale)
    tail = repair(tmp_path)
    assert tail.next_index == 10
    assert tail.open_intents == ((second, subject("second")),)
    assert tail.frontier.root() == ledger.root()


@pytest.mark.parametrize(
    "harm,expected",
    [
        ("last record", "expected 9 records in the ledger, got 8: some are missing"),
        ("last segment", "expected 9 records in the ledger, got"),
        ("every segment", "expected 9 records in the ledger, got 0"),
        ("rewritten record", "expected root"),
        ("checkpoint", "expected the checkpoint of the ledger"),
        ("another's checkpoint", "expected root|begins with index"),
    ],
)
@pytest.mark.parametrize("segment_bytes", [10**6, 1200])
async def test_a_ledger_that_lost_something_is_refused_and_left_as_it_is(tmp_path, harm, expected, segment_bytes):
    directory, other = tmp_path / "one", tmp_path / "other"
    for each in (directory, other):
        each.mkdir()
        ledger, _ = Ledger.open(each, "dev", segment_bytes=segment_bytes)
        for number in range(8):
            await ledger.append(denied(f"{each.name}{number}"))
        await ledger.close()
    paths = segments.segments(directory)
    last = paths[-1].read_bytes().splitlines(keepends=True)
    if harm == "last record":
        paths[-1].write_bytes(b"".join(last[:-1]))
    elif harm == "last segment":
        paths[-1].unlink()
    elif harm == "every segment":
        for path in paths:
            path.unlink()
    elif harm == "rewritten record":
        index = json.loads(last[-1])["index"]
        paths[-1].write_bytes(b"".join([*last[:-1], line(index, 1, denied("forged"))]))
    elif harm == "checkpoint":
        (directory / "checkpoint").unlink()
    else:
        (directory / "checkpoint").write_bytes((other / "checkpoint").read_bytes())
    before = {path: path.read_bytes() for path in directory.iterdir()}
    with pytest.raises(StateError, match=expected):
        Ledger.open(directory, "dev", segment_bytes=segment_bytes)
    assert before == {path: path.read_bytes() for path in directory.iterdir()}


async def test_a_start_reads_no_more_than_the_newest_segment_and_what_was_open(tmp_path):
    ledger, _ = Ledger.open(tmp_path, "dev", segment_bytes=1000)
    for number in range(6):
        await ledger.append(ended(await ledger.append(intent(f"r{number}")), f"r{number}"))
    held = await ledger.append(intent("held"))
    for number in range(6):
        await ledger.append(denied(f"d{number}"))
    await ledger.close()
    before = [path for path in segments.segments(tmp_path) if int(path.stem) < held - 2]
    assert len(before) > 3
    for path in before:
        path.write_bytes(b"not read")
    assert repair(tmp_path).open_intents == ((held, subject("held")),)


# --- crashes ----------------------------------------------------------------------------------------------------------

STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("intent"), st.binary(max_size=30)),
        st.tuples(st.just("end"), st.binary(max_size=30)),
        st.tuples(st.just("denied"), st.binary(max_size=30)),
    ),
    max_size=10,
)


async def live_and_crash(directory, steps, tear):
    """One daemon's life up to a crash with an unconfirmed write of `tear` bytes. What was confirmed: index, payload."""
    ledger, _ = Ledger.open(directory, "dev", segment_bytes=2500)
    confirmed, still_open = [], []
    for number, (what, payload) in enumerate(steps):
        kept = ledger.keep(payload)
        about = dataclasses.replace(subject(f"run{number}"), input=kept)
        if what == "intent":
            record = Intent(about, (), Limits())
        elif what == "end" and still_open:
            record = Ended(still_open.pop(0), about, "ok", output=kept)
        else:
            record = Denied(about, ())
        index = await ledger.append(record)
        confirmed.append((index, kept, payload))
        if what == "intent":
            still_open.append(index)
    await ledger.close()
    (newest,) = segments.segments(directory)[-1:]
    with newest.open("ab") as stream:
        stream.write(line(ledger.size, 1, intent("torn"))[:tear])
    return confirmed, still_open


@pytest.mark.slow
@settings(max_examples=25)
@given(lives=st.lists(st.tuples(STEPS, st.integers(0, 400)), min_size=1, max_size=4))
def test_nothing_confirmed_is_lost_and_every_open_intent_is_closed_once(tmp_path_factory, lives):
    directory = tmp_path_factory.mktemp("ledger")
    confirmed, abandoned = [], []

    async def all_lives():
        for steps, tear in lives:
            kept, still_open = await live_and_crash(directory, steps, tear)
            confirmed.extend(kept)
            abandoned.extend(still_open)
        ledger, _ = Ledger.open(directory, "dev")
        await ledger.close()

    asyncio.run(all_lives())
    found = stored(directory)
    assert [record["index"] for record in found] == list(range(len(found)))
    for index, kept, payload in confirmed:
        assert found[index]["input_sha256"] == kept.sha256
        assert payloads.read(directory, kept) == payload
    unknown = [record["intent"] for record in found if record.get("outcome") == "unknown"]
    assert unknown == abandoned
    closings = [record["intent"] for record in found if record["event"] == "OUTCOME"]
    assert sorted(closings) == [record["index"] for record in found if record["event"] == "INTENT"]
    assert verify(directory).findings == ()


@settings(max_examples=40)
@given(cut=st.integers(0, 4000))
def test_a_ledger_cut_at_any_byte_is_whole_or_refused(tmp_path_factory, cut):
    directory = tmp_path_factory.mktemp("ledger")

    async def live():
        ledger, _ = Ledger.open(directory, "dev")
        for number in range(4):
            await ledger.append(intent(f"r{number}"))
        await ledger.close()

    asyncio.run(live())
    (path,) = segments.segments(directory)
    text = path.read_bytes()
    path.write_bytes(text[:cut])
    if cut >= len(text):
        assert repair(directory).next_index == 5
        return
    with pytest.raises(StateError, match="expected 5 records"):
        repair(directory)
    assert path.read_bytes() == text[:cut]


# --- threads, full disks ----------------------------------------------------------------------------------------------


async def test_threads_append_too_and_everything_keeps_one_order(tmp_path):
    ledger, _ = Ledger.open(tmp_path, "dev")
    change = Changed("approve", "plug_1", "demo", "1.0.0", "", 0, "looked at it")

    def several():
        return [ledger.append_from_thread(change) for _ in range(20)]

    groups = await asyncio.gather(
        *(asyncio.to_thread(several) for _ in range(4)),
        *(ledger.append(denied()) for _ in range(100)),
    )
    indexes = [index for group in groups for index in (group if isinstance(group, list) else [group])]
    assert sorted(indexes) == list(range(1, 181))
    assert all(group == sorted(group) for group in groups if isinstance(group, list))
    await ledger.close()
    found = stored(tmp_path)
    assert {record["index"] for record in found if record["event"] == "CHANGE"} == {
        index for group in groups if isinstance(group, list) for index in group
    }


async def test_a_thread_may_append_while_the_event_loop_waits_for_it(tmp_path):
    ledger, _ = Ledger.open(tmp_path, "dev")
    assert ledger.append_from_thread(Stopped("blocking the loop")) == 1  # and no deadlock
    await ledger.close()
    with pytest.raises(AuditUnavailableError, match="closed"):
        ledger.append_from_thread(Stopped("too late"))
    with pytest.raises(AuditUnavailableError, match="closed"):
        await ledger.append(Stopped("too late"))


@pytest.mark.parametrize("where", ["write", "fdatasync", "pwrite"])
async def test_a_full_disk_refuses_everything_until_the_next_start(tmp_path, monkeypatch, where):
    ledger, _ = Ledger.open(tmp_path, "dev")
    await ledger.append(denied("before"))

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, where, full)
        with pytest.raises(AuditUnavailableError, match="No space left"):
            await ledger.append(intent("during"))
    for _ in range(3):
        with pytest.raises(AuditUnavailableError, match="No space left"):
            await ledger.append(intent("after"))
        with pytest.raises(AuditUnavailableError, match="No space left"):
            await asyncio.to_thread(ledger.append_from_thread, intent("after"))
    assert "No space left" in ledger.failure
    await ledger.close()
    ledger, _ = Ledger.open(tmp_path, "dev")
    await ledger.append(denied("mended"))
    await ledger.close()
    runs = [record["run"] for record in stored(tmp_path) if "run" in record]
    assert runs[0] == "before"
    assert runs[-1] == "mended"
    assert "after" not in runs
    assert verify(tmp_path).findings == ()


async def test_a_really_full_file_system_leaves_a_ledger_that_can_be_opened(tmp_path):
    ledger, _ = Ledger.open(tmp_path, "dev")
    await ledger.append(denied("before"))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    (path,) = segments.segments(tmp_path)
    try:
        # The kernel's own short write: 100 bytes still fit, then EFBIG.
        resource.setrlimit(resource.RLIMIT_FSIZE, (max(path.stat().st_size + 100, 8192), hard))
        with pytest.raises(AuditUnavailableError, match="File too large"):
            for _ in range(100):
                await ledger.append(intent("during"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)
    await ledger.close()
    assert path.stat().st_size == 8192
    _, tail = Ledger.open(tmp_path, "dev")
    assert tail.cut_bytes > 0
    assert verify(tmp_path).findings == ()


async def test_a_ledger_folder_that_was_moved_away_ends_everything(tmp_path):
    directory = tmp_path / "ledger"
    directory.mkdir()
    ledger, _ = Ledger.open(directory, "dev")
    directory.rename(tmp_path / "elsewhere")
    with pytest.raises(AuditUnavailableError, match="No such file"):
        await ledger.append(intent())
    await ledger.close()
    assert not directory.exists()


async def test_a_checkpoint_that_was_removed_ends_everything_within_its_next_sync(tmp_path):
    ledger, _ = Ledger.open(tmp_path, "dev")
    (tmp_path / "checkpoint").unlink()
    with pytest.raises(AuditUnavailableError, match="checkpoint"):
        for _ in range(checkpoint.SYNC_RECORDS + 1):
            await ledger.append(denied())
    await ledger.close()


@pytest.mark.slow
async def test_the_checkpoint_becomes_durable_within_a_second_of_silence(tmp_path, monkeypatch):
    synced = threading.Event()
    ledger, _ = Ledger.open(tmp_path, "dev")
    await ledger.append(denied())
    real = os.fdatasync
    monkeypatch.setattr(os, "fdatasync", lambda descriptor: (real(descriptor), synced.set()))
    assert await asyncio.to_thread(synced.wait, 5)
    await ledger.close()
