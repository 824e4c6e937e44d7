"""Payloads: kept once, durable before what refers to them, given back only with their digest."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plugind.audit import payloads
from plugind.audit.ledger import Ledger
from plugind.audit.payloads import PackWriter, Places
from plugind.audit.records import Denied, Stored, Subject, sha256
from plugind.errors import AuditUnavailableError, StateError

HEAD = 40


def denied(stored):
    return Denied(Subject("r", 0, "", "p", "", "", -1, "", "", "internal", stored), ())


def take(places, data):
    return places.take(sha256(data), len(data))


async def keep(directory, *datas):
    """A ledger with these payloads; where they are."""
    ledger, _ = Ledger.open(directory, "dev")
    stored = []
    for data in datas:
        stored.append(ledger.keep(data))
        await ledger.append(denied(stored[-1]))
    await ledger.close()
    return stored


async def test_a_payload_is_on_disk_when_its_record_is(tmp_path):
    ledger, _ = Ledger.open(tmp_path, "dev")
    first, second = ledger.keep(b"one"), ledger.keep(b"two" * 1000)
    await ledger.append(denied(second))
    assert payloads.read(tmp_path, first) == b"one"
    assert payloads.read(tmp_path, second) == b"two" * 1000
    await ledger.close()


async def test_nothing_is_written_for_empty_data(tmp_path):
    (stored,) = await keep(tmp_path, b"")
    assert stored == Stored("", 0, -1, -1)
    assert payloads.read(tmp_path, stored) == b""
    assert payloads.packs(tmp_path) == []


async def test_the_same_payload_is_kept_once(tmp_path):
    first, other, again = await keep(tmp_path, b"same", b"other", b"same")
    assert first == again != other
    (pack,) = payloads.packs(tmp_path)
    assert pack.stat().st_size == 2 * HEAD + len(b"sameother")


def test_the_files_of_a_few_plans_that_are_read_in_turn_are_kept_once():
    """As many as the tier with most may read, of eight plans."""
    places = Places((0, 0))
    files = [f"{plan} {file}".encode() for plan in range(8) for file in range(1024)]
    assert {new for file in files for _, new in [take(places, file)]} == {True}
    assert {new for file in files for _, new in [take(places, file)]} == {False}


def test_only_the_last_ones_are_remembered():
    places = Places((0, 0))
    first, _ = take(places, b"first")
    for number in range(payloads.RECENT - 1):
        take(places, str(number).encode())
    assert take(places, b"first") == (first, False)  # and is the newest again
    for number in range(payloads.RECENT):
        take(places, f"more {number}".encode())
    again, new = take(places, b"first")
    assert new
    assert again.offset > first.offset


@given(st.lists(st.binary(min_size=1, max_size=60), min_size=1, max_size=30))
def test_whatever_is_written_is_read_back_over_any_number_of_packs(tmp_path_factory, datas):
    directory = tmp_path_factory.mktemp("ledger")
    places, writer = Places((0, 0), pack_bytes=300), PackWriter(directory)
    taken = [(*take(places, data), data) for data in datas]
    writer.write([(stored, data) for stored, new, data in taken if new])
    writer.close()
    assert [payloads.read(directory, stored) for stored, _, _ in taken] == datas
    assert all(path.stat().st_size < 300 + HEAD + 60 for path in payloads.packs(directory))
    assert payloads.repair(directory, max(stored.end for stored, _, _ in taken)) == 0


async def test_a_payload_is_never_given_back_changed(tmp_path):
    (stored,) = await keep(tmp_path, b"the payload")
    (pack,) = payloads.packs(tmp_path)
    good = pack.read_bytes()
    for place in range(len(good)):
        pack.write_bytes(good[:place] + bytes([good[place] ^ 0xFF]) + good[place + 1 :])
        with pytest.raises(StateError, match=pack.name):
            payloads.read(tmp_path, stored)
    for size in range(len(good)):
        pack.write_bytes(good[:size])
        with pytest.raises(StateError, match="bytes with its head"):
            payloads.read(tmp_path, stored)
    pack.unlink()
    with pytest.raises(StateError, match="no such file"):
        payloads.read(tmp_path, stored)


def test_what_was_not_stored_is_not_there(tmp_path):
    with pytest.raises(StateError, match="was not stored"):
        payloads.read(tmp_path, Stored("ab" * 32, 3))


async def test_a_torn_end_is_cut_only_beyond_what_records_refer_to(tmp_path):
    stored = await keep(tmp_path, b"one", b"two")
    (pack,) = payloads.packs(tmp_path)
    good = pack.read_bytes()
    pack.write_bytes(good + hashlib.sha256(b"x").digest() + b"\0\0")
    (pack.parent / "000000000001.pack").write_bytes(b"never referred to")
    ledger, _ = Ledger.open(tmp_path, "dev")
    new = ledger.keep(b"three")
    await ledger.append(denied(new))
    await ledger.close()
    assert payloads.packs(tmp_path) == [pack]
    assert pack.read_bytes()[: len(good)] == good
    assert [payloads.read(tmp_path, each) for each in (*stored, new)] == [b"one", b"two", b"three"]


@pytest.mark.parametrize("harm", ["shorter", "removed"])
async def test_a_store_that_lost_something_is_refused_as_it_is(tmp_path, harm):
    await keep(tmp_path, b"one", b"two")
    (pack,) = payloads.packs(tmp_path)
    if harm == "shorter":
        pack.write_bytes(pack.read_bytes()[:-1])
    else:
        pack.unlink()
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.*")}
    with pytest.raises(StateError, match=r"000000000000\.pack: expected at least"):
        Ledger.open(tmp_path, "dev")
    assert before == {path: path.read_bytes() for path in tmp_path.rglob("*.*")}


async def test_payloads_without_a_ledger_are_not_thrown_away(tmp_path):
    await keep(tmp_path, b"one")
    for path in (tmp_path / "checkpoint", tmp_path / "000000000000.jsonl"):
        path.unlink()
    with pytest.raises(StateError, match="without records"):
        Ledger.open(tmp_path, "dev")
    assert len(payloads.packs(tmp_path)) == 1


@pytest.mark.parametrize("harm", ["removed", "longer"])
async def test_a_pack_that_somebody_touched_ends_everything(tmp_path, harm):
    ledger, _ = Ledger.open(tmp_path, "dev")
    await ledger.append(denied(ledger.keep(b"one")))
    (pack,) = payloads.packs(tmp_path)
    if harm == "removed":
        pack.unlink()
    else:
        pack.write_bytes(pack.read_bytes() + b"x")
    with pytest.raises(AuditUnavailableError, match=r"000000000000\.pack"):
        await ledger.append(denied(ledger.keep(b"two")))
    with pytest.raises(AuditUnavailableError):
        await ledger.append(denied(Stored()))
    lost = ledger.keep(b"three")
    assert (lost.sha256, lost.pack) == (sha256(b"three"), -1)
    await ledger.close()


async def test_a_payload_waits_for_the_next_record(tmp_path):
    ledger, _ = Ledger.open(tmp_path, "dev")
    early = ledger.keep(b"early")
    assert payloads.packs(tmp_path) == []
    await ledger.append(denied(Stored()))
    assert payloads.read(tmp_path, early) == b"early"
    await ledger.close()
