"""Who has written to which plan: durable before it happens, bounded, and never believed when it is damaged."""

from __future__ import annotations

import json
import os
import resource

import pytest

from plugind.errors import PlanError
from plugind.sandbox.plans.identity import Identity
from plugind.sandbox.plans.known import KEPT, Known, path_of

ANNA, BERT = Identity(1000, 100, (4, 27), 0o22), Identity(1001, 100, (), 0o77)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "state.plans"


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def refused(known, uid, plan_dir):
    with pytest.raises(PlanError) as caught:
        known.identity(uid, plan_dir)
    return caught.value.code


def test_it_lies_beside_the_state_folder(tmp_path, path):
    assert path_of(tmp_path / "state") == path


def test_what_is_noted_is_known_and_nothing_else_is(path):
    known = Known(path)
    assert refused(known, 1000, "/plans/one") == "caller"
    assert not path.exists()
    known.note(ANNA, "/plans/one")
    assert known.identity(1000, "/plans/one") == ANNA
    assert refused(known, 1001, "/plans/one") == refused(known, 1000, "/plans/other") == "caller"
    assert path.stat().st_mode & 0o777 == 0o600


def test_the_next_launcher_knows_it_too(path):
    Known(path).note(ANNA, "/plans/one")
    Known(path).note(BERT, "/plans/ä\n\u2028\udc80")
    known = Known(path)
    assert known.identity(1000, "/plans/one") == ANNA
    assert known.identity(1001, "/plans/ä\n\u2028\udc80") == BERT


def test_the_same_again_is_no_line_and_other_groups_are_one_that_counts(path):
    known = Known(path)
    for _ in range(3):
        known.note(ANNA, "/plans/one")
    assert len(lines(path)) == 1
    other = Identity(1000, 200, (5,), 0o22)
    known.note(other, "/plans/one")
    assert known.identity(1000, "/plans/one") == Known(path).identity(1000, "/plans/one") == other
    assert len(lines(path)) == 2


def test_what_somebody_else_has_changed_is_read_again(path):
    known = Known(path)
    known.note(ANNA, "/plans/one")
    Known(path).note(BERT, "/plans/one")
    assert known.identity(1001, "/plans/one") == BERT
    path.unlink()
    assert refused(known, 1000, "/plans/one") == "caller"
    known.note(BERT, "/plans/two")
    assert len(lines(path)) == 1


def test_a_line_that_was_cut_off_by_a_crash_is_none(path):
    """What follows it in the file is the next line, whole."""
    Known(path).note(ANNA, "/plans/one")
    with path.open("ab") as file:
        file.write(b'{"uid":1001,"gid":1')
    known = Known(path)
    assert known.identity(1000, "/plans/one") == ANNA
    known.note(BERT, "/plans/one")
    assert Known(path).identity(1001, "/plans/one") == BERT


GOOD = {"uid": 1, "gid": 2, "groups": [3], "umask": 18, "plan_dir": "/plans/one", "at_unix_ms": 5}
BAD = [
    b"\n", b"{}\n", b"[]\n", b"null\n", b"\xff\n", b"[" * 100_000 + b"\n",
    *(json.dumps({**GOOD, **change}).encode() + b"\n" for change in (
        {"uid": -1}, {"uid": 2**32 - 1}, {"uid": True}, {"uid": "0"}, {"gid": 2**32}, {"gid": None}, {"groups": [-1]},
        {"groups": ["a"]}, {"groups": [True]}, {"groups": list(range(5000))}, {"plan_dir": 7}, {"more": 1}, {"umask": -1}, {"umask": 64}, {"umask": "022"},
    )),
]  # fmt: skip


@pytest.mark.parametrize("bad", BAD)
def test_a_damaged_file_fails_everything_and_is_not_written_over(path, bad):
    Known(path).note(ANNA, "/plans/one")
    path.write_bytes(path.read_bytes() + bad)
    before = path.read_bytes()
    known = Known(path)
    for _ in range(2):
        assert refused(known, 1000, "/plans/one") == "fault"
        with pytest.raises(PlanError, match=r"state\.plans: line 2: .* mend it, or move it away"):
            known.note(BERT, "/plans/one")
    assert path.read_bytes() == before
    path.rename(path.with_name("aside"))
    known.note(BERT, "/plans/one")
    assert known.identity(1001, "/plans/one") == BERT


def test_a_file_that_others_may_write_is_not_believed(path):
    known = Known(path)
    known.note(ANNA, "/plans/one")
    path.chmod(0o620)
    with pytest.raises(PlanError, match="nobody else may write"):
        Known(path).identity(1000, "/plans/one")


@pytest.mark.parametrize("kind", ["folder", "link", "fifo"])
def test_what_is_no_file_is_not_believed(tmp_path, path, kind):
    match kind:
        case "folder":
            path.mkdir()
        case "link":
            (tmp_path / "there").write_text("")
            path.symlink_to(tmp_path / "there")
        case "fifo":
            os.mkfifo(path)
    assert refused(Known(path), 1000, "/plans/one") == "fault"


def test_a_line_that_cannot_be_written_is_not_known(path, tmp_path):
    """And nothing of it is in the way of the next one."""
    known = Known(path)
    known.note(ANNA, "/plans/one")
    before = path.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 10, hard))  # as of a disk that is full
    try:
        with pytest.raises(PlanError, match="cannot be written") as caught:
            known.note(BERT, "/plans/one")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert caught.value.code == "fault"
    assert path.read_bytes() == before
    assert refused(known, 1001, "/plans/one") == "caller"
    known.note(BERT, "/plans/one")
    assert Known(path).identity(1001, "/plans/one") == BERT


def test_it_is_bounded_and_nobody_pushes_another_out(path):
    """Of 40 lines the newest of who has most are kept, and all of who has few."""
    known = Known(path, most=40)
    known.note(BERT, "/plans/precious")
    for number in range(200):
        known.note(ANNA, f"/plans/{number}")
        assert known.identity(1000, f"/plans/{number}") == ANNA
        assert len(lines(path)) <= 40
    assert known.identity(1001, "/plans/precious") == BERT
    assert refused(known, 1000, "/plans/0") == "caller"
    assert known.identity(1000, "/plans/170") == ANNA
    again = Known(path, most=40)
    assert again.identity(1001, "/plans/precious") == BERT
    assert again.identity(1000, "/plans/199") == ANNA
    assert sorted(os.listdir(path.parent)) == ["state.plans"]


def test_two_that_have_much_give_way_alike(path):
    known = Known(path, most=100)
    for number in range(300):
        known.note((ANNA, BERT)[number % 2], f"/plans/{number}")
    counts = [sum(line["uid"] == each.uid for line in lines(path)) for each in (ANNA, BERT)]
    assert abs(counts[0] - counts[1]) <= 12
    assert 100 * KEPT - 1 <= sum(counts) <= 100


def test_lines_that_were_overtaken_go_first(path):
    known = Known(path, most=10)
    known.note(BERT, "/plans/one")
    for number in range(50):
        known.note(Identity(1000, number, (), 0o22), "/plans/one")
    assert len(lines(path)) <= 10
    assert known.identity(1000, "/plans/one").gid == 49
    assert known.identity(1001, "/plans/one") == BERT


def test_long_names_of_folders_fill_it_for_nobody(path):
    """Bounded by its bytes too: what the next launcher could not read is never written."""
    most = 100_000
    known = Known(path, most_bytes=most)
    known.note(BERT, "/plans/bert")
    for number in range(200):
        known.note(ANNA, f"/plans/{number}/" + "\1" * 1000)
        assert path.stat().st_size <= most
    again = Known(path, most_bytes=most)
    assert again.identity(1001, "/plans/bert") == BERT
    assert again.identity(1000, "/plans/199/" + "\1" * 1000) == ANNA
    assert refused(again, 1000, "/plans/0/" + "\1" * 1000) == "caller"
