"""Refusals in the launcher's log: told, and never by the ten thousand."""

from __future__ import annotations

from plugind.sandbox.complaints import MOST_A_SECOND, Complaints


class Clock:
    now_ns = 5

    def __call__(self) -> int:
        return self.now_ns


def test_each_is_told_until_there_are_too_many_in_a_second() -> None:
    lines: list[str] = []
    clock = Clock()
    complaints = Complaints(lines.append, clock)
    for number in range(10_000):
        complaints.note(f"no {number}")
    assert lines == [f"refused no {number}" for number in range(MOST_A_SECOND)]
    clock.now_ns += 10**9
    complaints.note("later")
    assert lines[MOST_A_SECOND:] == [f"refused {10_000 - MOST_A_SECOND} more before this", "refused later"]
    clock.now_ns += 10**9
    complaints.note("again")
    assert lines[-1] == "refused again", "nothing was left out since"


def test_a_line_is_one_line_and_has_an_end() -> None:
    lines: list[str] = []
    complaints = Complaints(lines.append)
    complaints.note("a\nplugind-launcher: all is well\x1b[2J" + "x" * 20_000)
    (line,) = lines
    assert "\n" not in line
    assert "\x1b" not in line
    assert len(line) < 1100
