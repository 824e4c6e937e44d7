"""Who else claims part of plugind's range of uids."""

from __future__ import annotations

import pytest

from plugind.sandbox import uids

FIRST, LAST = uids.FIRST, uids.LAST


def test_the_slices_lie_in_the_range_and_apart() -> None:
    seen = {uids.FRONT}
    for tier in (0, 1, 2):
        first, count = uids.slice_of(tier)
        slice_ = set(range(first, first + count))
        assert not seen & slice_
        assert first >= FIRST
        assert first + count - 1 <= LAST
        seen |= slice_
    assert FIRST > 1879048191  # the last of systemd-nspawn
    assert LAST < 2**31  # some programs hold uids in a signed number


@pytest.mark.parametrize(
    ("subordinate", "found"),
    [
        ("", []),
        ("root:100000:65536\n", []),
        (f"a:{FIRST - 10}:10\n", []),
        (f"a:{FIRST - 10}:11\n", [f"a has the subordinate ids {FIRST - 10} to {FIRST}"]),
        (f"a:{LAST}:1\n", [f"a has the subordinate ids {LAST} to {LAST}"]),
        (f"a:{LAST + 1}:5\n", []),
        ("a:0:4294967295\n", ["a has the subordinate ids 0 to 4294967294"]),
        (f"a:{FIRST}:0\n", []),
        (f"a:{FIRST}:²\n\n#comment\nnonsense\na:b:c\na:1\n", []),
        (
            f"x:1:1\ny:{FIRST}:1\nz:{FIRST + 1}:1\n",
            [f"{n} has the subordinate ids {FIRST + k} to {FIRST + k}" for k, n in enumerate("yz")],
        ),
    ],
)
def test_subordinate_ids(subordinate, found) -> None:
    assert uids.conflicts(subordinate, []) == found


@pytest.mark.parametrize(
    ("number", "taken"), [(0, False), (FIRST - 1, False), (FIRST, True), (LAST, True), (LAST + 1, False)]
)
def test_users_and_groups(number, taken) -> None:
    assert uids.conflicts("", [("mallory", number)]) == ([f"mallory has id {number}"] if taken else [])


def test_this_machine_can_be_asked() -> None:
    assert all(" has " in line for line in uids.conflicts_here())
