"""Counting what was refused: exact, bounded, and never on somebody else's account."""

from __future__ import annotations

import collections
import threading

import pyseccomp
import pytest
from hypothesis import given
from hypothesis import strategies as st

from plugind.linux import seccomp_lists as lists
from plugind.linux import seccomp_notify
from plugind.linux.seccomp_notify import NATIVE, Call
from plugind.sandbox import refusals
from plugind.sandbox.refusals import MOST_KINDS, PLACES, Table

RULES = seccomp_notify.Rules()
CALLS = st.builds(Call, st.integers(0, 60), st.sampled_from([NATIVE, 0x40000003]), st.integers(0, 2))


def number(name: str) -> int:
    return pyseccomp.resolve_syscall(pyseccomp.system_arch(), name)


@given(st.lists(CALLS, max_size=300))
def test_every_call_is_counted_once_by_its_kind(calls) -> None:
    table = Table()
    owner = table.take()
    for call in calls:
        table.count(owner, call, dangerous=call.number == 7)
    found, others = table.of(owner)
    expected = collections.Counter(calls)
    kinds = list(dict.fromkeys(calls))
    counted = {each.call: each.count for each in found if not each.dangerous}
    assert counted == {kind: expected[kind] for kind in kinds[:MOST_KINDS] if kind.number != 7}
    assert others + sum(each.count for each in found) == len(calls)
    assert len(found) <= MOST_KINDS + 1
    assert any(each.dangerous for each in found) == any(call.number == 7 for call in calls)
    assert all(each.dangerous == (each.call.number == 7) for each in found)
    table.close()


def test_who_tried_nothing_has_nothing() -> None:
    table = Table()
    assert table.of(table.take()) == ([], 0)
    table.close()


def test_a_place_that_went_to_another_takes_nothing_more_from_the_first() -> None:
    table = Table()
    first = table.take()
    table.count(first, Call(1, NATIVE, 0), dangerous=True)
    for _ in range(PLACES):
        last = table.take()
    assert last % PLACES == first % PLACES
    assert table.of(last) == ([], 0)
    table.count(first, Call(1, NATIVE, 0), dangerous=True)
    assert table.of(last) == ([], 0)
    table.close()


def test_how_many_there_were_until_now() -> None:
    table = Table()
    owner, other = table.take(), table.take()
    for place in range(MOST_KINDS + 3):
        for _ in range(300):
            table.count(owner, Call(place, NATIVE, 0), dangerous=False)
    assert (table.so_far(owner), table.so_far(other)) == (300 * (MOST_KINDS + 3), 0)
    table.close()


def test_what_is_counted_meanwhile_is_not_read_in_the_middle() -> None:
    table = Table()
    owner = table.take()

    def count() -> None:
        for _ in range(20_000):
            table.count(owner, Call(1, NATIVE, 0), dangerous=False)

    writer = threading.Thread(target=count)
    writer.start()
    seen = [0]
    while writer.is_alive():
        if (read := table.so_far(owner)) >= 0:
            seen.append(read)
    assert seen == sorted(seen)
    assert table.so_far(owner) == 20_000
    table.close()


def test_neighbours_do_not_touch() -> None:
    table = Table()
    owners = [table.take() for _ in range(PLACES)]
    for place in range(MOST_KINDS + 5):
        table.count(owners[5], Call(place, NATIVE, 0), dangerous=False)
    assert [table.of(owner) == ([], 0) for owner in owners].count(False) == 1
    table.close()


@pytest.mark.parametrize(
    ("call", "name", "detail"),
    [
        (Call(number("socket"), NATIVE, 2), "socket", "AF_INET: refused with EPERM"),
        (Call(number("socket"), NATIVE, 77), "socket", "0x4d: refused with EPERM"),
        (Call(number("socketpair"), NATIVE, 40), "socketpair", "AF_VSOCK: refused with EPERM"),
        (Call(number("prctl"), NATIVE, 22), "prctl", "PR_SET_SECCOMP: refused with EPERM"),
        (Call(number("ioctl"), NATIVE, 0x5412), "ioctl", "TIOCSTI: refused with EPERM"),
        (Call(number("fcntl"), NATIVE, 6), "fcntl", "F_SETLK: refused with EPERM"),
        (Call(number("clone"), NATIVE, 0x10000000), "clone", "0x10000000: refused with EPERM"),
        (Call(number("io_uring_setup"), NATIVE, 0), "io_uring_setup", "refused with ENOSYS"),
        (Call(number("flock"), NATIVE, 0), "flock", "refused with ENOSYS"),
        (Call(1000, NATIVE, 0), "system call 1000", "refused with ENOSYS"),
        (Call(0xFFFFFFFF, NATIVE, 0), "", ""),
        (Call(20, 0x40000003, 0), "getpid (i386)", ""),
        (Call(0, 0x12345678, 0), "system call 0 (architecture 0x12345678)", ""),
    ],
)
def test_in_words(call, name, detail) -> None:
    found = refusals.violations([refusals.Refusal(call, 3, False)], 0, RULES)[0]
    assert found.kind == "syscall"
    assert found.count == 3
    if name:
        assert found.name == name
    if detail:
        assert found.detail == detail


def test_what_ended_the_run_comes_first_and_the_rest_is_counted_together() -> None:
    found = [
        refusals.Refusal(Call(number("chroot"), NATIVE, 0), 2, False),
        refusals.Refusal(Call(number("mount"), NATIVE, 0), 1, True),
    ]
    said = refusals.violations(found, 4, RULES)
    assert [(each.name, each.count) for each in said] == [("mount", 1), ("chroot", 2), ("", 4)]
    assert said[0].detail == "no plugin may make it: the run ended"


@given(st.builds(Call, st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1)))
def test_any_call_has_a_name_and_an_answer(call) -> None:
    assert seccomp_notify.name_of(call)
    assert len(seccomp_notify.name_of(call)) < 80
    assert RULES.word(call) in {"EPERM", "ENOSYS"}
    assert RULES.dangerous(call) in {True, False}
    if call.arch != NATIVE:
        assert RULES.dangerous(call)


def test_a_dangerous_call_is_named_whatever_came_before() -> None:
    table = Table()
    owner = table.take()
    for place in range(MOST_KINDS + 5):
        table.count(owner, Call(place, NATIVE, 0), dangerous=False)
    table.count(owner, Call(900, NATIVE, 0), dangerous=True)
    found, others = table.of(owner)
    assert (len(found), others) == (MOST_KINDS + 1, 5)
    assert [each.call.number for each in found if each.dangerous] == [900]
    table.close()


def test_calls_that_a_librarys_tables_lack_have_their_names() -> None:
    for name, number_of_it in lists.NEWER.items():
        call = Call(number_of_it, NATIVE, 0)
        assert seccomp_notify.name_of(call) == name
        assert RULES.dangerous(call) == (name in lists.DANGEROUS)
