"""`audit verify`: whatever was changed is found, and named as exactly as it can be."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plugind.audit import payloads, segments
from plugind.audit.ledger import Ledger
from plugind.audit.merkle import leaf_hash, root_of
from plugind.audit.records import (
    Denied,
    Ended,
    Intent,
    PlanChange,
    PlanCommitted,
    PlanRestore,
    PlanUndone,
    Stored,
    Subject,
    line,
)
from plugind.audit.verify import Finding, Report, verify
from plugind.model import Limits


def subject(run, stored):
    return Subject(run, 1000, "plug_1", "demo", "1.0.0", "ab" * 32, 2, "durations", "plan", "internal", stored)


async def write(directory, runs=6, segment_bytes=1500):
    ledger, _ = Ledger.open(directory, "dev", segment_bytes=segment_bytes)
    for number in range(runs):
        about = subject(f"r{number}", ledger.keep(f"input {number}".encode()))
        intent = await ledger.append(Intent(about, ("network",), Limits()))
        await ledger.append(Ended(intent, about, "ok", output=ledger.keep(b"output")))
    await ledger.close()
    return ledger


@pytest.fixture
async def ledger(tmp_path):
    return await write(tmp_path)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """For tests that put back what they change."""
    directory = tmp_path_factory.mktemp("written")
    asyncio.run(write(directory))
    return directory


def append(directory, *records):
    """Records as an attacker would write them: each line right in itself, the checkpoint not theirs."""
    path = segments.segments(directory)[-1]
    index = int(path.stem) + path.read_bytes().count(b"\n")
    with path.open("ab") as stream:
        for number, record in enumerate(records, index):
            stream.write(line(number, 1, record))
    return path.name, index


def leaves(directory):
    texts = [text for path in segments.segments(directory) for _, text in segments.lines(path)]
    return [(index, leaf_hash(text).hex()) for index, text in enumerate(texts)]


FILE = PlanChange("a.json", Stored("ef" * 32, 3), Stored())
ABOUT = ("r1", "plug_1", "demo", "1.0.0", "plan", "/plans/a")


def committed(intent):
    return PlanCommitted(intent, *ABOUT, files=1)


def undone(intent):
    return PlanUndone(intent, *ABOUT, why="somebody has changed it")


async def changing(directory, *records):
    """A run with files of a plan (INTENT is log_1), and what comes after it."""
    ledger, _ = Ledger.open(directory, "dev")
    about = subject("r1", Stored())
    await ledger.append(Intent(about, ("file_write",), Limits(), plan_dir="/plans/a"))
    await ledger.append(Ended(1, about, "ok", plan_dir="/plans/a", files=(FILE,)))
    for record in records:
        await ledger.append(record)
    await ledger.close()
    return verify(directory)


async def test_what_became_of_files_is_told_once(tmp_path):
    restored = PlanRestore(1, 0, "wrong", "plug_1", "demo", "1.0.0", "ab" * 32, "plan", 1000, "/plans/a", (FILE,))
    for number, fine in enumerate([(committed(1),), (undone(1),), (committed(1), restored, undone(4)), ()]):
        (folder := tmp_path / f"fine{number}").mkdir()
        report = await changing(folder, *fine)
        assert report.holds, report.findings
        assert report.notes == ()
    wrong = {
        (committed(1), undone(1)): "one record of what became of the files of log_1, got a second one after log_3",
        (committed(2),): "an OUTCOME of log_2 with files of a plan, or a RESTORE that is it, got neither",
        (committed(1), restored, committed(4), committed(4)): "of the files of log_4, got a second one after log_5",
    }
    for number, (records, said) in enumerate(wrong.items()):
        (folder := tmp_path / f"wrong{number}").mkdir()
        (found,) = (await changing(folder, *records)).findings
        assert said in str(found)


async def test_files_that_nobody_tells_of_since_are_noted(tmp_path):
    await changing(tmp_path)
    ledger, _ = Ledger.open(tmp_path, "dev")
    assert any("nothing says which: log_1" in note for note in verify(tmp_path).notes)
    await ledger.append(committed(1))
    await ledger.close()
    report = verify(tmp_path)
    assert report.holds
    assert report.notes == ()


async def test_an_untouched_ledger_holds(tmp_path, ledger):
    report = verify(tmp_path)
    assert report == Report(
        origin=ledger.origin,
        segments=len(segments.segments(tmp_path)),
        records=13,
        root=ledger.root(),
        checkpoint_size=13,
        payloads=7,
        payload_bytes=6 * len(b"input 0") + len(b"output"),
        open_intents=(),
        journal_records=0,
        findings=(),
        notes=(),
    )
    assert report.holds
    assert report.segments > 3
    assert report.root == root_of(bytes.fromhex(digest) for _, digest in leaves(tmp_path))


def test_an_empty_folder_has_no_checkpoint(tmp_path):
    assert verify(tmp_path).findings == (Finding("checkpoint", 0, "", "a checkpoint", "no such file"),)


@pytest.mark.slow
@given(data=st.data())
def test_a_flipped_byte_in_any_segment_is_found_and_its_record_named(written, data):
    path = data.draw(st.sampled_from(segments.segments(written)))
    good = path.read_bytes()
    place = data.draw(st.integers(0, len(good) - 1))
    flipped = bytes([good[place] ^ data.draw(st.integers(1, 255))])
    path.write_bytes(good[:place] + flipped + good[place + 1 :])
    try:
        report = verify(written)
    finally:
        path.write_bytes(good)
    number = good[:place].count(b"\n") + 1
    record = f"log_{int(path.stem) + number - 1}"
    assert not report.holds
    assert any(
        (each.segment, each.line, each.log_id) == (path.name, number, record)  # the line that it was in
        or (place == len(good) - 1 and each.segment == path.name)  # the newline that ends a segment
        or (place == len(good) - 1 and "as the last one" in each.got)  # and that ends the ledger
        for each in report.findings
    ), report.findings
    assert verify(written).holds


@pytest.mark.slow
@given(data=st.data())
def test_a_flipped_byte_in_the_payloads_is_found(written, data):
    (pack,) = payloads.packs(written)
    good = pack.read_bytes()
    place = data.draw(st.integers(0, len(good) - 1))
    pack.write_bytes(good[:place] + bytes([good[place] ^ 1]) + good[place + 1 :])
    try:
        report = verify(written)
    finally:
        pack.write_bytes(good)
    assert report.findings
    assert all(pack.name in each.got and each.log_id and each.line for each in report.findings)


@pytest.mark.slow
@given(data=st.data())
def test_a_flipped_byte_in_the_checkpoint_is_found_or_leaves_the_one_before(written, data):
    path = written / "checkpoint"
    good = path.read_bytes()
    place = data.draw(st.integers(0, len(good) - 1))
    path.write_bytes(good[:place] + bytes([good[place] ^ 1]) + good[place + 1 :])
    try:
        report = verify(written)
    finally:
        path.write_bytes(good)
    assert report.findings == ()
    assert report.checkpoint_size in {12, 13}


async def test_a_record_that_was_rewritten_with_its_check_is_found_by_the_root_and_named_by_the_journal(
    tmp_path, ledger
):
    seen = leaves(tmp_path)
    path = segments.segments(tmp_path)[1]
    lines = path.read_bytes().splitlines(keepends=True)
    index = int(path.stem)
    lines[0] = line(index, 1, Denied(subject("forged", ledger.keep(b"")), ()))
    path.write_bytes(b"".join(lines))
    report = verify(tmp_path, seen)
    told = {(each.segment, each.log_id) for each in report.findings}
    assert {("checkpoint", ""), ("journal", f"log_{index}")} <= told
    (by_root,) = [each for each in report.findings if each.segment == "checkpoint"]
    assert by_root.expected == f"root {ledger.root().hex()} over 13 records"


async def test_removed_records_are_found(tmp_path, ledger):
    newest = segments.segments(tmp_path)[-1]
    lines = newest.read_bytes().splitlines(keepends=True)
    newest.write_bytes(b"".join(lines[:-1]))
    (finding,) = [each for each in verify(tmp_path).findings if each.segment == "checkpoint"]
    assert (finding.log_id, finding.expected) == ("log_12", "13 records")
    newest.write_bytes(b"".join(lines))
    middle = segments.segments(tmp_path)[2]
    first, after = int(middle.stem), int(segments.segments(tmp_path)[3].stem)
    middle.unlink()
    named = [each for each in verify(tmp_path).findings if each.segment == f"{after:012}.jsonl"]
    assert named[0].expected == f"a segment that begins with log_{first}"
    assert named[0].got == f"no record from log_{first} to log_{after - 1}"


@pytest.mark.parametrize("change", ["swapped", "doubled", "dropped"])
async def test_lines_that_changed_places_are_found(tmp_path, ledger, change):
    path = segments.segments(tmp_path)[0]
    first, second, *rest = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(
        b"".join({"swapped": [second, first], "doubled": [first, first, second], "dropped": [second]}[change] + rest)
    )
    findings = verify(tmp_path).findings
    assert (findings[0].segment, findings[0].expected) == (path.name, f"the record with index {change == 'doubled':d}")
    assert findings[-1].segment == "checkpoint"


async def test_runs_have_exactly_one_end(tmp_path, ledger):
    none = ledger.keep(b"")
    open_run = Intent(subject("open", none), (), Limits())
    name, first = append(
        tmp_path,
        open_run,
        Ended(1, subject("r0", none), "ok"),
        Ended(2, subject("r0", none), "ok"),
        Ended(-1, subject("r0", none), "ok"),
        Denied(subject("r", none), (), intent=first_of(tmp_path)),
        open_run,
    )
    report = verify(tmp_path)
    line_of = {each.log_id: (each.segment, each.line, each.expected, each.got) for each in report.findings}
    at = first - int(name[:12]) + 1
    assert line_of == {
        f"log_{first + 1}": (name, at + 1, "one outcome of log_1", "a second one after log_2"),
        f"log_{first + 2}": (name, at + 2, "log_2 to be its INTENT", "no such INTENT"),
        f"log_{first + 3}": (name, at + 3, "the index of its INTENT", "-1"),
    }
    assert report.open_intents == (first + 5,)
    assert f"open, without an outcome so far: log_{first + 5}" in report.notes
    assert "the newest 6 records are not in the checkpoint yet" in report.notes


def first_of(directory):
    """The index that the next record will have."""
    path = segments.segments(directory)[-1]
    return int(path.stem) + path.read_bytes().count(b"\n")


async def test_a_torn_end_is_a_note_and_a_torn_middle_is_damage(tmp_path, ledger):
    paths = segments.segments(tmp_path)
    paths[-1].write_bytes(paths[-1].read_bytes() + b'{"index":')
    report = verify(tmp_path)
    assert report.holds
    assert "9 bytes at the end are no whole line" in report.notes[0]
    paths[0].write_bytes(paths[0].read_bytes() + b'{"index":')
    assert verify(tmp_path).findings[0].segment == paths[0].name


async def test_the_journal_agrees_or_is_named(tmp_path, ledger):
    seen = leaves(tmp_path)
    assert verify(tmp_path, seen).holds
    assert verify(tmp_path, seen).journal_records == 13
    partly = verify(tmp_path, [seen[0], seen[1], *seen[4:9]])
    assert partly.holds
    assert partly.notes == ("in the ledger, not in the journal: log_2–log_3, log_9–log_12",)
    differs = verify(tmp_path, [*seen, (5, "00" * 32)])
    assert [(each.segment, each.log_id, each.got) for each in differs.findings] == [("journal", "log_5", seen[5][1])]


async def test_a_ledger_rolled_back_as_a_whole_is_found_by_the_journal(tmp_path):
    ledger = await write(tmp_path, runs=2)
    old = {path: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    await write(tmp_path, runs=1)
    seen = leaves(tmp_path)
    for path in tmp_path.iterdir():
        if path.is_file():
            path.unlink()
    for path, data in old.items():
        path.write_bytes(data)
    assert verify(tmp_path).holds  # from the inside nothing can be seen
    report = verify(tmp_path, seen)
    assert {each.log_id for each in report.findings} == {f"log_{index}" for index in range(ledger.size, len(seen))}


async def test_a_ledger_in_use_holds_at_every_moment(tmp_path):
    ledger, _ = Ledger.open(tmp_path, "dev", segment_bytes=5000)
    stop = asyncio.Event()

    async def use(number):
        while not stop.is_set():
            about = subject(f"r{number}", ledger.keep(f"{number} {ledger.size}".encode()))
            intent = await ledger.append(Intent(about, (), Limits()))
            await ledger.append(Ended(intent, about, "ok"))

    users = [asyncio.create_task(use(number)) for number in range(8)]
    reports = []
    while ledger.size < 300 or len(reports) < 10:
        reports.append(await asyncio.to_thread(verify, tmp_path))
    stop.set()
    await asyncio.gather(*users)
    await ledger.close()
    assert {report.findings for report in reports} == {()}
    assert reports[-1].records > reports[0].records
    assert verify(tmp_path).open_intents == ()
